package spool

import (
	"fmt"
	"math"
	"slices"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// Entries returns the queue and inbox entries of one envelope, at most max of
// each. An entry that leaves while they are read may be among them or not.
func (s *Spool) Entries(id envelope.ID, max int) ([]envelope.QueueEntry, []envelope.InboxEntry, error) {
	lane, duties, inboxed, err := s.places(id, max)
	if err != nil {
		return nil, nil, fmt.Errorf("entries of %s: %w", id, err)
	}
	var queue []envelope.QueueEntry
	for _, d := range duties[:min(len(duties), max)] {
		page, err := s.Queue(d.Relay, before(lane, d.Sequence), 1)
		if err != nil {
			return nil, nil, fmt.Errorf("entries of %s: %w", id, err)
		}
		if len(page) == 1 && page[0].ID == id {
			queue = append(queue, page[0])
		}
	}
	var inboxes []envelope.InboxEntry
	for _, d := range inboxed {
		page, err := s.Inbox(d.Agency, before(lane, d.Sequence), 1)
		if err != nil {
			return nil, nil, fmt.Errorf("entries of %s: %w", id, err)
		}
		if len(page) == 1 && page[0].ID == id {
			inboxes = append(inboxes, page[0])
		}
	}
	return queue, inboxes, nil
}

// before is the position just before an entry.
func before(lane envelope.Lane, sequence uint64) envelope.Position {
	at := envelope.Position{Lane: lane, Sequence: sequence - 1}
	if i := slices.Index(envelope.LaneOrder[:], lane); at == (envelope.Position{}) && i > 0 {
		// That would be the beginning of all lanes.
		at = envelope.Position{Lane: envelope.LaneOrder[i-1], Sequence: math.MaxUint64}
	}
	return at
}

// inboxPlace is where one inbox entry stands.
type inboxPlace struct {
	Agency   routing.AgencyCode
	Sequence uint64
}

// places finds where the entries of an envelope stand.
func (s *Spool) places(id envelope.ID, max int) (envelope.Lane, []duty, []inboxPlace, error) {
	v := s.store.View()
	defer v.Close()
	st, err := envelopeAt(v, id)
	if err != nil {
		return 0, nil, nil, err
	}
	if st == nil {
		return 0, nil, nil, ErrNotFound
	}
	all, err := deliveriesAt(v, id, st)
	if err != nil {
		return 0, nil, nil, err
	}
	var inboxed []inboxPlace
	for _, d := range all {
		if d.Place == inInbox && len(inboxed) < max {
			inboxed = append(inboxed, inboxPlace{d.Agency, d.Sequence})
		}
	}
	return st.Lane, st.Duties, inboxed, nil
}

// Arriving returns how many envelopes are on their way in just now; transfers
// that wait to be resumed are not.
func (s *Spool) Arriving() int {
	s.incomingMu.Lock()
	defer s.incomingMu.Unlock()
	return len(s.incoming)
}
