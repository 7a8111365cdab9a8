package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// A segment file, little-endian:
//
//	      0  head of the segment (64 bytes):
//	           0  "trucjrnl"
//	           8  uint32  version of the format
//	          12  uint32  check: CRC-32C of the 64 bytes, this field as zero
//	          16  id of the journal, 16 random bytes
//	          32  uint64  number of the segment
//	          40  uint64  size of the file
//	          48  uint64  sequence of the first record
//	          56  zeros
//	     64  records, one after the other
//	size-128  seal (64 bytes): a record of typeSeal with the payload
//	            uint64  end: offset behind the last record
//	            uint64  records of the callers
//	          Its sequence is the one that the next segment begins with.
//	size- 64  the head of the segment again
//
// <number>.segment is a live segment, <number>.free a recycled one that waits
// to be used again, <number>.new one in the making. Numbers are 16 hex digits;
// files that never were a segment have numbers from firstSpare on.
const (
	segmentHead    = 64
	sealLength     = 64
	segmentTrailer = sealLength + segmentHead
	sealPayload    = 16
	pageSize       = 4096

	// shortSegment is the size of a segment where there is no room for a whole one.
	shortSegment = 1 << 20

	magic         = "trucjrnl"
	formatVersion = 1

	firstSpare = 1 << 63

	suffixLive = ".segment"
	suffixFree = ".free"
	suffixNew  = ".new"
)

type segment struct {
	number uint64
	first  uint64        // sequence of its first record; 0 not known
	next   atomic.Uint64 // sequence behind its last record; 0 not known, or still written to
	size   int64
	seed   uint32
	file   File

	end     atomic.Int64  // behind the last record written
	records atomic.Uint64 // of the callers

	mu   sync.RWMutex // held for reading while the file is read
	gone bool         // the file is not this segment any more
}

// limit is where records must have ended.
func (s *segment) limit() int64 { return s.size - segmentTrailer }

// fileSize is that of a segment which a record of this size fits in.
func fileSize(segmentSize, record int64) int64 {
	need := segmentHead + record + segmentTrailer
	return max(segmentSize, (need+pageSize-1)/pageSize*pageSize)
}

type freeFile struct {
	name string
	file File
}

func (j *Journal) path(number uint64, suffix string) string {
	return filepath.Join(j.dir, fmt.Sprintf("%016x", number)+suffix)
}

// parseName tells what a file in the directory is; suffix is empty for what
// is not the journal's.
func parseName(name string) (number uint64, suffix string) {
	for _, suffix := range []string{suffixLive, suffixFree, suffixNew} {
		if digits, ok := strings.CutSuffix(name, suffix); ok && len(digits) == 16 {
			if n, err := strconv.ParseUint(digits, 16, 64); err == nil {
				return n, suffix
			}
		}
	}
	return 0, ""
}

type segmentHeader struct {
	version uint32
	id      [16]byte
	number  uint64
	size    int64
	first   uint64
}

func (h segmentHeader) encode() []byte {
	b := make([]byte, 0, segmentHead)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, h.version)
	b = append(b, 0, 0, 0, 0)
	b = append(b, h.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, h.number)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.size))
	b = binary.LittleEndian.AppendUint64(b, h.first)
	b = append(b, make([]byte, segmentHead-len(b))...)
	binary.LittleEndian.PutUint32(b[12:], crc32.Checksum(b, castagnoli))
	return b
}

func parseSegmentHeader(b []byte) (segmentHeader, bool) {
	if len(b) < segmentHead || string(b[:8]) != magic {
		return segmentHeader{}, false
	}
	var c [segmentHead]byte
	copy(c[:], b)
	clear(c[12:16])
	if crc32.Checksum(c[:], castagnoli) != binary.LittleEndian.Uint32(b[12:]) {
		return segmentHeader{}, false
	}
	return segmentHeader{
		version: binary.LittleEndian.Uint32(b[8:]),
		id:      [16]byte(b[16:32]),
		number:  binary.LittleEndian.Uint64(b[32:]),
		size:    int64(binary.LittleEndian.Uint64(b[40:])),
		first:   binary.LittleEndian.Uint64(b[48:]),
	}, true
}

type seal struct {
	end     int64
	records uint64
	next    uint64 // sequence of the next segment's first record
	synced  uint64
}

func (l seal) encode(seed uint32) []byte {
	payload := binary.LittleEndian.AppendUint64(nil, uint64(l.end))
	payload = binary.LittleEndian.AppendUint64(payload, l.records)
	b := appendHead(make([]byte, 0, sealLength), seed, head{
		kind:     typeSeal,
		length:   len(payload),
		content:  checkContent([][]byte{payload}),
		sequence: l.next,
		synced:   l.synced,
	})
	b = append(b, payload...)
	return append(b, make([]byte, sealLength-len(b))...)
}

func parseSeal(b []byte, seed uint32) (seal, bool) {
	if len(b) < sealLength || !proveHead(b, seed) {
		return seal{}, false
	}
	h := glanceHead(b)
	payload := b[headLength:]
	if h.kind != typeSeal || h.length != sealPayload ||
		h.content != checkContent([][]byte{payload[:sealPayload]}) {
		return seal{}, false
	}
	return seal{
		end:     int64(binary.LittleEndian.Uint64(payload)),
		records: binary.LittleEndian.Uint64(payload[8:]),
		next:    h.sequence,
		synced:  h.synced,
	}, true
}
