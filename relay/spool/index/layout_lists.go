package index

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// The tables that list envelopes by what is to be looked after, and those that
// count; see layout.go.

// Aways is the prefix of the table away.
func Aways() []byte { return []byte{tableAway} }

// Away is the prefix of what one holder has.
func Away(holder routing.RelayID) []byte { return codeKey(tableAway, string(holder), 17) }

// AwayKey says that a holder has an envelope that was accepted here.
func AwayKey(holder routing.RelayID, id envelope.ID) []byte { return append(Away(holder), id[:]...) }

// Origins is the prefix of the table origin.
func Origins() []byte { return []byte{tableOrigin} }

// Origin is the prefix of what is here of one ingress.
func Origin(ingress routing.RelayID) []byte { return codeKey(tableOrigin, string(ingress), 17) }

// OriginKey says that an envelope of an ingress is in custody or kept here.
func OriginKey(ingress routing.RelayID, id envelope.ID) []byte {
	return append(Origin(ingress), id[:]...)
}

// ParseRelayAndID returns relay and envelope of a key of away or origin.
func ParseRelayAndID(key []byte) (routing.RelayID, envelope.ID) {
	end := 2 + int(key[1])
	return routing.RelayID(key[2:end]), envelope.ID(key[end : end+16])
}

// Behind is beyond every key that begins with the prefix and goes on with an id.
func Behind(prefix []byte) []byte {
	return append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, 17)...)
}

// Soles is the prefix of the table sole.
func Soles() []byte { return []byte{tableSole} }

// SoleFrom is the beginning of the keys at or after a sequence.
func SoleFrom(sequence uint64) []byte {
	key := make([]byte, 0, 1+8+16)
	return binary.BigEndian.AppendUint64(append(key, tableSole), sequence)
}

// SoleKey says that nobody else has an envelope that was accepted here.
func SoleKey(sequence uint64, id envelope.ID) []byte { return append(SoleFrom(sequence), id[:]...) }

// ParseSoleKey returns sequence and envelope.
func ParseSoleKey(key []byte) (uint64, envelope.ID) {
	return binary.BigEndian.Uint64(key[1:]), envelope.ID(key[9:25])
}

// Dead is the prefix of the table dead.
func Dead() []byte { return []byte{tableDead} }

// DeadFrom is the beginning of the keys at or after an instant.
func DeadFrom(at time.Time) []byte { return timeKey(tableDead, at) }

// DeadKey says that an envelope was given up for a recipient.
func DeadKey(at time.Time, id envelope.ID) []byte { return append(DeadFrom(at), id[:]...) }

// ParseDeadKey returns since when, and the envelope.
func ParseDeadKey(key []byte) (time.Time, envelope.ID) {
	return parseTime(key), envelope.ID(key[9:25])
}

// Helds is the prefix of the table held.
func Helds() []byte { return []byte{tableHeld} }

// HeldKey says that an operator holds an envelope.
func HeldKey(id envelope.ID) []byte { return idKey(tableHeld, id, 0) }

// Usages is the prefix of the table usage.
func Usages() []byte { return []byte{tableUsage} }

// UsageKey counts what a sender has under way.
func UsageKey(sender routing.AgencyCode) []byte { return codeKey(tableUsage, string(sender), 0) }

// Waitings is the prefix of the table waiting.
func Waitings() []byte { return []byte{tableWaiting} }

// WaitingKey counts the entries of an inbox.
func WaitingKey(agency routing.AgencyCode) []byte { return codeKey(tableWaiting, string(agency), 0) }

// ParseAgency returns the agency of a key of usage or waiting.
func ParseAgency(key []byte) routing.AgencyCode { return routing.AgencyCode(key[2:]) }
