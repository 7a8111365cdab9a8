package index

import "github.com/truclienthong/truc/relay/envelope"

// tableQuarantine lists envelopes whose content is damaged here:
//
//	quarantine  id 16                                      since when
const tableQuarantine byte = 65

// QuarantineKey says that content of an envelope is damaged.
func QuarantineKey(id envelope.ID) []byte { return idKey(tableQuarantine, id, 0) }

// Quarantines is the prefix of all of them.
func Quarantines() []byte { return []byte{tableQuarantine} }
