package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/hashicorp/raft"
)

// What bbolt keeps carries no check sum, so each entry and each vote gets one of
// ours. That of an entry stands at the end of its Extensions, which Raft hands
// through and nobody else here uses:
//
//	mark 4 bytes "sum1", CRC-32C 4 bytes
//
// over index, term, type, data and the Extensions before it. That of a vote
// stands behind its value, over key and value. Earlier releases wrote neither;
// summedFrom says from which entry on all have one.
const (
	sumMark = "sum1"
	sumLen  = len(sumMark) + 4
)

// summedFromKey stands among the votes: index 8 bytes, and its own check sum.
const summedFromKey = "truc.summed-from"

// voteKeys are all that Raft keeps there.
var voteKeys = []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"}

// errLogDamaged says that a file is not what was written.
var errLogDamaged = errors.New("damaged")

func entrySum(l *raft.Log, extensions []byte) uint32 {
	head := binary.BigEndian.AppendUint64(nil, l.Index)
	head = binary.BigEndian.AppendUint64(head, l.Term)
	head = append(head, byte(l.Type))
	head = binary.BigEndian.AppendUint64(head, uint64(len(l.Data)))
	sum := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, l.Data)
	return crc32.Update(sum, castagnoli, extensions)
}

// withSum returns a copy of an entry with its check sum.
func withSum(l *raft.Log) *raft.Log {
	summed := *l
	summed.Extensions = append(slices.Clip(l.Extensions), sumMark...)
	summed.Extensions = binary.BigEndian.AppendUint32(summed.Extensions, entrySum(l, l.Extensions))
	return &summed
}

// checkEntry verifies an entry that was read as that of an index, and takes its
// check sum off.
func checkEntry(l *raft.Log, index, summedFrom uint64) error {
	if l.Index != index {
		return fmt.Errorf("%w: entry %d calls itself %d", errLogDamaged, index, l.Index)
	}
	bare := len(l.Extensions) - sumLen
	if bare < 0 || string(l.Extensions[bare:bare+len(sumMark)]) != sumMark {
		if index < summedFrom {
			return nil
		}
		return fmt.Errorf("%w: entry %d has lost its check sum", errLogDamaged, index)
	}
	want := binary.BigEndian.Uint32(l.Extensions[bare+len(sumMark):])
	l.Extensions = l.Extensions[:bare:bare]
	if bare == 0 {
		l.Extensions = nil
	}
	if entrySum(l, l.Extensions) != want {
		return fmt.Errorf("%w: check sum of entry %d", errLogDamaged, index)
	}
	return nil
}

func voteSum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

func voteWithSum(key, value []byte) []byte {
	return binary.BigEndian.AppendUint32(slices.Clip(value), voteSum(key, value))
}

// checkVote verifies a value that was read and takes its check sum off.
func checkVote(key, summed []byte) ([]byte, error) {
	n := len(summed) - 4
	if n < 0 || binary.BigEndian.Uint32(summed[n:]) != voteSum(key, summed[:n]) {
		return nil, fmt.Errorf("%w: check sum of %s", errLogDamaged, key)
	}
	return summed[:n:n], nil
}
