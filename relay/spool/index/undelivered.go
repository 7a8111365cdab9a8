package index

import (
	"encoding/binary"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
)

// tableUndelivered lists what was accepted here and not settled, by lane and by
// when its delivery target began to run:
//
//	undelivered  lane 1, nanoseconds since 1970 8, id 16  empty
const tableUndelivered byte = 69

// Undelivered is the prefix of the table.
func Undelivered() []byte { return []byte{tableUndelivered} }

// UndeliveredIn is the prefix of one lane.
func UndeliveredIn(lane envelope.Lane) []byte { return []byte{tableUndelivered, byte(lane)} }

// UndeliveredFrom is the beginning of the keys of a lane at or after an instant.
func UndeliveredFrom(lane envelope.Lane, at time.Time) []byte {
	key := make([]byte, 0, 2+8+16)
	return binary.BigEndian.AppendUint64(append(key, tableUndelivered, byte(lane)), uint64(max(at.UnixNano(), 0)))
}

// UndeliveredKey says that the target of an envelope runs since then.
func UndeliveredKey(lane envelope.Lane, since time.Time, id envelope.ID) []byte {
	return append(UndeliveredFrom(lane, since), id[:]...)
}

// ParseUndelivered returns since when, and the envelope.
func ParseUndelivered(key []byte) (envelope.Lane, time.Time, envelope.ID) {
	return envelope.Lane(key[1]), parseTime(key[1:]), envelope.ID(key[10:26])
}
