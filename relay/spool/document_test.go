package spool_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// twins are two envelopes with one document id.
func twins() (*parcel, *parcel) {
	p, q := newParcel(1, 100), newParcel(2, 100)
	q.DocumentID = p.DocumentID
	return p, q
}

// Two documents with one id never meet at a home, however they come.
func TestADocumentIDIsForOneEnvelopeAtHome(t *testing.T) {
	reused := exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED
	p, q := twins()
	p.until(lifetime).inbox("A")
	for name, c := range map[string]struct {
		// prepare has p claim the document id, or not.
		prepare func(t *testing.T, n *node)
		claimed bool
	}{
		"delivered here": {func(t *testing.T, n *node) { n.mustPut(p) }, true},
		"settled here": {func(t *testing.T, n *node) {
			n.mustPut(p)
			n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
			eventually(t, "the release", func() bool { return n.record(p).ContentReleased })
		}, true},
		"revived here": {func(t *testing.T, n *node) {
			n.mustPut(p)
			n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: fail})
			n.mustPut(p.with().until(lifetime.Add(time.Hour)).inbox("A"))
		}, true},
		"on its way":          {func(t *testing.T, n *node) { n.mustPut(p.with().onward("nam", "A")) }, false},
		"kept":                {func(t *testing.T, n *node) { n.mustPut(p.with().keep("A")) }, false},
		"report on its way":   {func(t *testing.T, n *node) { r := p.with().onward("nam"); r.Report = true; n.mustPut(r) }, false},
		"kept, and delivered": {func(t *testing.T, n *node) { n.mustPut(p.with().keep("A")); n.mustPut(p) }, true},
		"home moved here": {func(t *testing.T, n *node) {
			n.mustPut(p.with().onward("nam", "A"))
			must(t, n.Reroute(t.Context(), envelope.Reroute{ID: p.ID, From: "nam", Agencies: p.Inboxes, Inboxes: p.Inboxes}))
		}, true},
		"home moved away": {func(t *testing.T, n *node) {
			n.mustPut(p)
			must(t, n.Reroute(t.Context(), envelope.Reroute{
				ID: p.ID, From: self, Agencies: p.Inboxes, Onward: []envelope.Onward{{Relay: "nam", Agencies: p.Inboxes}},
			}))
		}, true},
		"taken over": {func(t *testing.T, n *node) {
			n.mustPut(p.with().keep("A"))
			must(t, n.TakeOver(t.Context(), envelope.TakeOver{ID: p.ID}))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			n := start(t, cfg)
			c.prepare(t, n)
			_, found, err := n.ByDocument(p.Sender, p.DocumentID)
			if found != c.claimed || err != nil {
				t.Errorf("the document id is claimed: %v, %v, want %v", found, err, c.claimed)
			}
			n.mustPut(p.with().until(lifetime).inbox("A")) // the same envelope is always welcome
			_, err = n.put(q.with().inbox("B"))
			wantReason(t, err, reused)
			n.mustPut(q.with().onward("nam", "B"))
			n = reopened(t, cfg, n, func(n *node) {
				if id, found, err := n.ByDocument(p.Sender, p.DocumentID); id != p.ID || !found || err != nil {
					t.Errorf("the document is %v, %v, %v, want the first envelope", id, found, err)
				}
			})
			// What is on its way has to be delivered if its recipient's home comes here.
			must(t, n.Reroute(t.Context(), envelope.Reroute{
				ID: q.ID, From: "nam", Agencies: []routing.AgencyCode{"B"}, Inboxes: []routing.AgencyCode{"B"},
			}))
			if got := n.inboxOf("B"); len(got) != 1 {
				t.Errorf("inbox of B holds %v, want what was on its way", got)
			}
			n.end()
			check(t, cfg)
		})
	}
}

// The document id is free once the record is forgotten.
func TestADocumentIDIsFreeAgain(t *testing.T) {
	t.Parallel()
	cfg, now := config(t), newClock()
	cfg.Clock = now.Now
	cfg.Retention = spool.Retention{Record: time.Hour}
	n := start(t, cfg)
	p, q := twins()
	n.mustPut(p.inbox("A"))
	n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
	eventually(t, "the release", func() bool { return n.record(p).ContentReleased })
	now.Advance(2 * time.Hour)
	eventually(t, "the end of the record", func() bool {
		_, err := n.Record(p.ID)
		return errors.Is(err, spool.ErrNotFound)
	})
	n.mustPut(q.inbox("A"))
	n = reopened(t, cfg, n, func(n *node) {
		if id, found, err := n.ByDocument(q.Sender, q.DocumentID); id != q.ID || !found || err != nil {
			t.Errorf("the document is %v, %v, %v, want the second envelope", id, found, err)
		}
		n.wantContent(q)
	})
}

// A home moves here while another document with the id arrives.
func TestRivalsForADocumentIDAtHome(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	for round := range uint64(30) {
		p, q := newParcel(2*round, 10).onward("nam", "A"), newParcel(2*round+1, 10).inbox("A")
		q.DocumentID = p.DocumentID
		n.mustPut(p)
		var both sync.WaitGroup
		both.Go(func() {
			err := n.Reroute(context.Background(), envelope.Reroute{
				ID: p.ID, From: "nam", Agencies: []routing.AgencyCode{"A"}, Inboxes: []routing.AgencyCode{"A"},
			})
			if err != nil {
				t.Error(err)
			}
		})
		both.Go(func() { n.put(q) })
		both.Wait()
		id, found, err := n.ByDocument(p.Sender, p.DocumentID)
		if _, unknown := n.Record(q.ID); !found || err != nil || (id == q.ID) != (unknown == nil) {
			t.Errorf("round %d: the document is %v, %v, %v; the second one: %v", round, id, found, err, unknown)
		}
	}
	n.end()
	check(t, cfg)
}
