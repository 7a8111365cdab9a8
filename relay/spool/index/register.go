package index

import (
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// tableUnregistered lists released envelopes of which the register does not have
// the last word:
//
//	unregistered  id 16                                    empty
const tableUnregistered byte = 66

// UnregisteredKey says that an envelope is to be registered.
func UnregisteredKey(id envelope.ID) []byte { return idKey(tableUnregistered, id, 0) }

// Unregistered is the prefix of all of them.
func Unregistered() []byte { return []byte{tableUnregistered} }

// The table life, and what of it the register lacks:
//
//	life               id 16, length 1, agency             what was said there
//	unregistered life  id 16, length 1, agency             empty
const (
	tableLife             byte = 67
	tableUnregisteredLife byte = 68
)

func recipientKey(table byte, id envelope.ID, agency routing.AgencyCode) []byte {
	key := append(idKey(table, id, 1+len(agency)), byte(len(agency)))
	return append(key, agency...)
}

// LifeKey holds what was said of an envelope at a recipient.
func LifeKey(id envelope.ID, agency routing.AgencyCode) []byte {
	return recipientKey(tableLife, id, agency)
}

// Lives is the prefix of what was said of an envelope.
func Lives(id envelope.ID) []byte { return idKey(tableLife, id, 0) }

// AllLives is the prefix of everything that was said.
func AllLives() []byte { return []byte{tableLife} }

// UnregisteredLifeKey says that what was said at a recipient is to be registered.
func UnregisteredLifeKey(id envelope.ID, agency routing.AgencyCode) []byte {
	return recipientKey(tableUnregisteredLife, id, agency)
}

// UnregisteredLives is the prefix of all of them, or of those of one envelope.
func UnregisteredLives(id *envelope.ID) []byte {
	if id == nil {
		return []byte{tableUnregisteredLife}
	}
	return idKey(tableUnregisteredLife, *id, 0)
}

// ParseRecipient returns envelope and agency of a key of these tables.
func ParseRecipient(key []byte) (envelope.ID, routing.AgencyCode) {
	return ParseID(key), routing.AgencyCode(key[18:])
}
