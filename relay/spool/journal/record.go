package journal

import (
	"encoding/binary"
	"hash/crc32"
)

// A record, little-endian, at an offset divisible by 8:
//
//	 0  uint32  check of the head: CRC-32C over journal id, segment number
//	            and the head's bytes 4 to 31
//	 4  uint32  check of the payload: CRC-32C
//	 8  uint8   type; 3 bytes of zero
//	12  uint32  length of the payload
//	16  uint64  sequence: one more than that of the record before it
//	24  uint64  synced: every record up to this sequence was durable when
//	            this one was written
//	32  payload, then zeros up to the next offset divisible by 8
//
// The head's check covers the payload's, so both together cover the record.
// They are two so that the search for the next record behind a damaged one
// never has to guess: a head proves itself, in 32 bytes, with a random id that
// no sender of a document knows. Content that imitates records is not found.
const (
	headLength = 32
	alignment  = 8

	// MaxPayload is the longest payload of one record, in bytes.
	MaxPayload = 4 << 20

	// typeMark is a record of the journal's own: it has no payload and
	// carries what is synced when nothing else is there to carry it.
	typeMark = 0
	// typeSeal ends a segment; it stands in the segment's last bytes.
	typeSeal = 255
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type head struct {
	kind     uint8
	length   int
	content  uint32
	sequence uint64
	synced   uint64
}

// recordSize is what a payload of this length takes on disk.
func recordSize(length int) int64 {
	return headLength + (int64(length)+alignment-1)/alignment*alignment
}

func (h head) size() int64 { return recordSize(h.length) }

// seedOf starts the checksum of every head of a segment. No two segments of
// any journals share it, so what a recycled file held before never parses.
func seedOf(id [16]byte, segment uint64) uint32 {
	sum := crc32.Update(0, castagnoli, id[:])
	return crc32.Update(sum, castagnoli, binary.LittleEndian.AppendUint64(nil, segment))
}

func appendHead(b []byte, seed uint32, h head) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, h.content)
	b = append(b, h.kind, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.length))
	b = binary.LittleEndian.AppendUint64(b, h.sequence)
	b = binary.LittleEndian.AppendUint64(b, h.synced)
	binary.LittleEndian.PutUint32(b[start:], crc32.Update(seed, castagnoli, b[start+4:]))
	return b
}

// glanceHead reads a head without proving it.
func glanceHead(b []byte) head {
	return head{
		content:  binary.LittleEndian.Uint32(b[4:]),
		kind:     b[8],
		length:   int(binary.LittleEndian.Uint32(b[12:])),
		sequence: binary.LittleEndian.Uint64(b[16:]),
		synced:   binary.LittleEndian.Uint64(b[24:]),
	}
}

func proveHead(b []byte, seed uint32) bool {
	return b[9] == 0 && b[10] == 0 && b[11] == 0 &&
		binary.LittleEndian.Uint32(b) == crc32.Update(seed, castagnoli, b[4:headLength])
}

func checkContent(parts [][]byte) uint32 {
	var sum uint32
	for _, part := range parts {
		sum = crc32.Update(sum, castagnoli, part)
	}
	return sum
}

func totalLength(parts [][]byte) int {
	n := 0
	for _, part := range parts {
		n += len(part)
	}
	return n
}
