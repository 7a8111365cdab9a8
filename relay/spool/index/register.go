package index

import "github.com/truclienthong/truc/relay/envelope"

// tableUnregistered lists released envelopes of which the register does not have
// the last word:
//
//	unregistered  id 16                                    empty
const tableUnregistered byte = 66

// UnregisteredKey says that an envelope is to be registered.
func UnregisteredKey(id envelope.ID) []byte { return idKey(tableUnregistered, id, 0) }

// Unregistered is the prefix of all of them.
func Unregistered() []byte { return []byte{tableUnregistered} }
