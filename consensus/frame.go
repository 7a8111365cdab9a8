package consensus

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A snapshot and a backup are the same bytes:
//
//	magic    8 bytes  "trucraft"
//	format   4 bytes  1
//	records  type 1 byte, length 4 bytes, payload, check sum 4 bytes
//
// in this order: one head, any number of requests, any number of state
// records, one end. Numbers are big endian. A check sum is CRC-32C over type,
// length and payload, carried on from the record before, so that a record lost,
// doubled or moved is found as well as one that is changed.
const (
	frameMagic  = "trucraft"
	frameFormat = 1

	recordHead    = 1 // applied index 8 bytes, latest time 8 bytes
	recordRequest = 2 // id 16 bytes, index 8 bytes, time 8 bytes, result
	recordState   = 3 // a piece of the state machine's own snapshot
	recordEnd     = 4 // number of records before it 8 bytes

	statePiece = 256 << 10
	maxRecord  = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged is in every error about a snapshot or backup that is not whole.
var errDamaged = errors.New("it is damaged or not whole")

// view is the replicated state at one index.
type view struct {
	applied  uint64
	latest   int64
	requests []*request
	state    io.WriterTo
}

// frameWriter writes records; Write takes the state machine's bytes.
type frameWriter struct {
	w     *bufio.Writer
	sum   uint32
	count uint64
	piece []byte
}

func (v *view) writeTo(w io.Writer) error {
	f := &frameWriter{w: bufio.NewWriterSize(w, statePiece), piece: make([]byte, 0, statePiece)}
	start := binary.BigEndian.AppendUint32([]byte(frameMagic), frameFormat)
	if _, err := f.w.Write(start); err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint64(nil, v.applied)
	head = binary.BigEndian.AppendUint64(head, uint64(v.latest))
	if err := f.record(recordHead, head); err != nil {
		return err
	}
	for _, r := range v.requests {
		payload := append([]byte(nil), r.id[:]...)
		payload = binary.BigEndian.AppendUint64(payload, r.index)
		payload = binary.BigEndian.AppendUint64(payload, uint64(r.at))
		if err := f.record(recordRequest, append(payload, r.result...)); err != nil {
			return err
		}
	}
	if _, err := v.state.WriteTo(f); err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	if err := f.flushPiece(); err != nil {
		return err
	}
	if err := f.record(recordEnd, binary.BigEndian.AppendUint64(nil, f.count)); err != nil {
		return err
	}
	return f.w.Flush()
}

func (f *frameWriter) record(kind byte, payload []byte) error {
	if len(payload) > maxRecord {
		return fmt.Errorf("record of %d bytes is larger than %d", len(payload), maxRecord)
	}
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))
	f.sum = crc32.Update(crc32.Update(f.sum, castagnoli, head), castagnoli, payload)
	f.count++
	for _, b := range [][]byte{head, payload, binary.BigEndian.AppendUint32(nil, f.sum)} {
		if _, err := f.w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (f *frameWriter) flushPiece() error {
	if len(f.piece) == 0 {
		return nil
	}
	err := f.record(recordState, f.piece)
	f.piece = f.piece[:0]
	return err
}

func (f *frameWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), statePiece-len(f.piece))
		f.piece = append(f.piece, p[:n]...)
		p, written = p[n:], written+n
		if len(f.piece) == statePiece {
			if err := f.flushPiece(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// frameReader reads records; Read gives the state machine's bytes, each checked
// before it is handed out, and io.EOF only after a good end record.
type frameReader struct {
	r     *bufio.Reader
	sum   uint32
	count uint64
	piece []byte
	ended bool
}

// readFrames reads a snapshot or backup to its end. state is given the state
// machine's bytes and need not read them all. Nothing is returned unless
// everything was whole.
func readFrames(r io.Reader, state func(io.Reader) error) (applied uint64, requests memory, _ error) {
	f := &frameReader{r: bufio.NewReaderSize(r, statePiece)}
	fail := func(err error) (uint64, memory, error) { return 0, memory{}, err }
	var start [len(frameMagic) + 4]byte
	if _, err := io.ReadFull(f.r, start[:]); err != nil || string(start[:len(frameMagic)]) != frameMagic {
		return fail(fmt.Errorf("this is no copy of a directory: %w", errDamaged))
	}
	if format := binary.BigEndian.Uint32(start[len(frameMagic):]); format != frameFormat {
		return fail(fmt.Errorf("format %d is not known to this release", format))
	}
	kind, payload, err := f.next()
	if err != nil {
		return fail(err)
	}
	if kind != recordHead || len(payload) != 16 {
		return fail(fmt.Errorf("no head: %w", errDamaged))
	}
	applied = binary.BigEndian.Uint64(payload)
	requests = newMemory()
	requests.latest = int64(binary.BigEndian.Uint64(payload[8:]))
	for {
		if kind, payload, err = f.next(); err != nil {
			return fail(err)
		}
		if kind != recordRequest {
			break
		}
		if len(payload) < 32 {
			return fail(fmt.Errorf("request of %d bytes: %w", len(payload), errDamaged))
		}
		requests.insert(&request{
			id:     requestID(payload[:16]),
			index:  binary.BigEndian.Uint64(payload[16:]),
			at:     int64(binary.BigEndian.Uint64(payload[24:])),
			result: append([]byte(nil), payload[32:]...),
		})
	}
	if err := f.take(kind, payload); err != nil {
		return fail(err)
	}
	if err := state(f); err != nil {
		return fail(err)
	}
	if _, err := io.Copy(io.Discard, f); err != nil {
		return fail(err)
	}
	return applied, requests, nil
}

func (f *frameReader) next() (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("record %d: %w: %w", f.count, errDamaged, err)
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length > maxRecord {
		return 0, nil, fmt.Errorf("record %d: length %d: %w", f.count, length, errDamaged)
	}
	body := make([]byte, length+4)
	if _, err := io.ReadFull(f.r, body); err != nil {
		return 0, nil, fmt.Errorf("record %d: %w: %w", f.count, errDamaged, err)
	}
	payload = body[:length]
	f.sum = crc32.Update(crc32.Update(f.sum, castagnoli, head[:]), castagnoli, payload)
	if f.sum != binary.BigEndian.Uint32(body[length:]) {
		return 0, nil, fmt.Errorf("record %d: check sum: %w", f.count, errDamaged)
	}
	f.count++
	return head[0], payload, nil
}

// take accepts a state or end record.
func (f *frameReader) take(kind byte, payload []byte) error {
	switch {
	case kind == recordState:
		f.piece = payload
		return nil
	case kind == recordEnd && len(payload) == 8 && binary.BigEndian.Uint64(payload) == f.count-1:
		if _, err := f.r.ReadByte(); err != io.EOF {
			return fmt.Errorf("something follows its end: %w", errDamaged)
		}
		f.ended = true
		return nil
	}
	return fmt.Errorf("record %d of type %d: %w", f.count-1, kind, errDamaged)
}

func (f *frameReader) Read(p []byte) (int, error) {
	for len(f.piece) == 0 {
		if f.ended {
			return 0, io.EOF
		}
		kind, payload, err := f.next()
		if err != nil {
			return 0, err
		}
		if err := f.take(kind, payload); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.piece)
	f.piece = f.piece[n:]
	return n, nil
}
