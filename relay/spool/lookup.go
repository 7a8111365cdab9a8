package spool

import (
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

// envelopeAt reads the state of an envelope; nil if it is not known.
func envelopeAt(v *index.View, id envelope.ID) (*state, error) {
	b, found, err := v.Get(index.EnvelopeKey(id))
	if err != nil || !found {
		return nil, err
	}
	return decodeState(b)
}

// headerAt reads what never changes of an envelope that is known.
func headerAt(v *index.View, id envelope.ID) (*envelope.Custody, error) {
	var all []byte
	for page := 0; ; page++ {
		b, found, err := v.Get(index.HeaderKey(id, page))
		if err != nil {
			return nil, err
		}
		if !found {
			break
		}
		if all == nil {
			all = b
		} else {
			all = append(all[:len(all):len(all)], b...)
		}
		if len(b) < headerPage {
			break
		}
	}
	r := versioned(all)
	c := readHeader(r)
	return c, r.done("header")
}

// deliveryAt reads one delivery; nil if there is none.
func deliveryAt(v *index.View, id envelope.ID, st *state, agency routing.AgencyCode) (*delivery, error) {
	if !st.Paged {
		for _, d := range st.Deliveries {
			if d.Agency == agency {
				return d, nil
			}
		}
		return nil, nil
	}
	b, found, err := v.Get(index.DeliveryKey(id, agency))
	if err != nil || !found {
		return nil, err
	}
	return decodeDelivery(b)
}

// deliveriesAt reads all deliveries, by agency where there are many.
func deliveriesAt(v *index.View, id envelope.ID, st *state) ([]*delivery, error) {
	if !st.Paged {
		return st.Deliveries, nil
	}
	all := make([]*delivery, 0, st.Count)
	it := v.Iterator(index.Deliveries(id))
	defer it.Close()
	for ; it.Valid(); it.Next() {
		d, err := decodeDelivery(it.Value())
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, it.Err()
}

// transferAt reads a transfer; nil if there is none.
func transferAt(v *index.View, id envelope.ID) (*transfer, error) {
	b, found, err := v.Get(index.TransferKey(id))
	if err != nil || !found {
		return nil, err
	}
	return decodeTransfer(b)
}

func chunkAt(v *index.View, id envelope.ID, generation uint64, part int, offset uint64) (location, bool, error) {
	b, found, err := v.Get(index.ChunkKey(id, generation, part, offset))
	if err != nil || !found {
		return location{}, false, err
	}
	l, err := decodeLocation(b)
	return l, err == nil, err
}
