package index

import "github.com/truclienthong/truc/relay/envelope"

// tableNumber counts, under the number and notation that its issuer gave it in one
// year, what was accepted here from its sender:
//
//	number  envelope.Number 32                             how many, and the first of them
const tableNumber byte = 70

// Numbers is the prefix of the table.
func Numbers() []byte { return []byte{tableNumber} }

// NumberKey holds what was accepted under a number.
func NumberKey(n envelope.Number) []byte { return append([]byte{tableNumber}, n[:]...) }

// ParseNumber returns the number of a key.
func ParseNumber(key []byte) envelope.Number { return envelope.Number(key[1:]) }
