package routing

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"iter"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

const (
	snapshotFormat = 1
	// stagedPerRecord bounds the record of a staged import, which may hold
	// every agency there is; its pieces follow one another.
	stagedPerRecord = 1000
	// maxRecord bounds what a reader allocates for one record. The largest is
	// a group or gateway; it came in one command of at most 1 MiB.
	maxRecord = 16 << 20
)

// snapshot writes one version of the directory out.
type snapshot struct{ s *state }

var _ io.WriterTo = snapshot{}

// WriteTo streams the snapshot, one record in memory at a time. It may be
// called more than once and writes the same bytes each time.
func (x snapshot) WriteTo(w io.Writer) (int64, error) {
	out := &recordWriter{w: bufio.NewWriter(w), sum: sha256.New()}
	for record := range x.s.records() {
		out.write(record)
	}
	out.write(&directoryv1.SnapshotRecord{Record: &directoryv1.SnapshotRecord_End{End: &directoryv1.SnapshotEnd{
		Records: out.records, Sha256: out.sum.Sum(nil),
	}}})
	if out.err == nil {
		out.err = out.w.Flush()
	}
	if out.err != nil {
		return out.bytes, fmt.Errorf("write directory snapshot of version %d: %w", x.s.version, out.err)
	}
	return out.bytes, nil
}

// recordWriter keeps the first error and writes nothing after it.
type recordWriter struct {
	w       *bufio.Writer
	sum     hash.Hash
	buffer  []byte
	records uint64
	bytes   int64
	err     error
}

func (o *recordWriter) write(m *directoryv1.SnapshotRecord) {
	if o.err != nil {
		return
	}
	options := proto.MarshalOptions{Deterministic: true}
	o.buffer = binary.AppendUvarint(o.buffer[:0], uint64(options.Size(m)))
	if o.buffer, o.err = options.MarshalAppend(o.buffer, m); o.err != nil {
		return
	}
	o.sum.Write(o.buffer)
	n, err := o.w.Write(o.buffer)
	o.bytes += int64(n)
	o.records++
	o.err = err
}

// records yields everything but the end, in order of tables and keys.
func (s *state) records() iter.Seq[*directoryv1.SnapshotRecord] {
	return func(yield func(*directoryv1.SnapshotRecord) bool) {
		m := &directoryv1.SnapshotRecord{Record: &directoryv1.SnapshotRecord_Header{
			Header: &directoryv1.SnapshotHeader{Format: snapshotFormat, Version: s.version},
		}}
		if !yield(m) {
			return
		}
		for r := range all[*directoryv1.Relay](s.rows, relayTable) {
			if m.Record = (&directoryv1.SnapshotRecord_Relay{Relay: r}); !yield(m) {
				return
			}
		}
		for e := range all[*entry](s.rows, agencyTable) {
			if m.Record = (&directoryv1.SnapshotRecord_Agency{Agency: e.Agency}); !yield(m) {
				return
			}
		}
		for g := range all[*directoryv1.Gateway](s.rows, gatewayTable) {
			if m.Record = (&directoryv1.SnapshotRecord_Gateway{Gateway: g}); !yield(m) {
				return
			}
		}
		for g := range all[*directoryv1.Group](s.rows, groupTable) {
			if m.Record = (&directoryv1.SnapshotRecord_Group{Group: g}); !yield(m) {
				return
			}
		}
		for r := range all[*directoryv1.Rule](s.rows, ruleTable) {
			if m.Record = (&directoryv1.SnapshotRecord_Rule{Rule: r}); !yield(m) {
				return
			}
		}
		for r := range all[*directoryv1.TrustRoot](s.rows, trustRootTable) {
			if m.Record = (&directoryv1.SnapshotRecord_TrustRoot{TrustRoot: r}); !yield(m) {
				return
			}
		}
		for r := range all[*directoryv1.Revocation](s.rows, revocationTable) {
			if m.Record = (&directoryv1.SnapshotRecord_Revocation{Revocation: r}); !yield(m) {
				return
			}
		}
		for _, name := range slices.Sorted(maps.Keys(s.staged)) {
			for piece := range slices.Chunk(s.staged[name], stagedPerRecord) {
				m.Record = &directoryv1.SnapshotRecord_Staged{
					Staged: &directoryv1.ImportAgencies{Staging: name, Agencies: piece},
				}
				if !yield(m) {
					return
				}
			}
		}
	}
}
