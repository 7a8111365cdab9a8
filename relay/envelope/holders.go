package envelope

import (
	"slices"

	"github.com/truclienthong/truc/routing"
)

// Beside lists the relays that may hold the content beside self, the most
// certain first: the ingress, which keeps the whole envelope until every
// recipient has confirmed it, then those known to have made it durable, then
// those that it came by.
func (r *Record) Beside(self routing.RelayID) []routing.RelayID {
	others := append([]routing.RelayID{r.Ingress}, r.Holders...)
	for _, relay := range slices.Backward(r.Visited) {
		others = append(others, relay)
	}
	var once []routing.RelayID
	for _, relay := range others {
		if relay != self && relay != "" && !slices.Contains(once, relay) {
			once = append(once, relay)
		}
	}
	return once
}
