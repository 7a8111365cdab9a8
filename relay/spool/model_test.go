package spool_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

type model struct {
	cfg       spool.Config
	n         *node
	envelopes map[envelope.ID]*modelEnvelope
	keep      bool
}

var (
	modelAgencies = []routing.AgencyCode{"A", "AB", "H26", "H26.1", "H26.12", "Z"}
	modelRelays   = []routing.RelayID{"nam", "trung", "tay"}
	modelSizes    = [][]int{{100}, {300 << 10, 10}, {}, {70_000, 1, 200_000}}
	modelTime     = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	// modelCrowd are further recipients of every second envelope, so that their
	// deliveries do not fit into its state.
	modelCrowd = func() (crowd []routing.AgencyCode) {
		for i := range 18 {
			crowd = append(crowd, routing.AgencyCode(fmt.Sprintf("X%d", i)))
		}
		return crowd
	}()
)

func (m *model) put(rt *rapid.T) {
	seed := rapid.IntRange(0, 9).Draw(rt, "envelope")
	p := newParcel(uint64(seed), modelSizes[seed%len(modelSizes)]...)
	if seed%2 == 0 {
		p.Ingress = modelRelays[0] // it may be handed back to where it came from
	}
	p.ExpiresAt = modelTime.Add(time.Duration(rapid.IntRange(0, 3).Draw(rt, "expires")) * time.Hour)
	onward := make(map[routing.RelayID][]routing.AgencyCode)
	for _, a := range modelAgencies {
		switch to := rapid.IntRange(-2, len(modelRelays)+1).Draw(rt, string(a)); {
		case to > len(modelRelays):
			p.Kept = append(p.Kept, a)
		case to == len(modelRelays):
			p.inbox(a)
		case to >= 0:
			onward[modelRelays[to]] = append(onward[modelRelays[to]], a)
		}
	}
	if seed%2 == 1 {
		p.inbox(modelCrowd...)
	}
	for _, relay := range slices.Sorted(maps.Keys(onward)) {
		p.onward(relay, onward[relay]...)
	}
	if rapid.Bool().Draw(rt, "from its sender") {
		p.fromSender()
	}
	if relay := modelRelays[seed%3]; onward[relay] == nil && rapid.IntRange(0, 3).Draw(rt, "copy") == 0 {
		p.onward(relay)
	}
	_, err := m.n.put(p)
	if err != nil {
		rt.Fatalf("put %s: %v", p.ID, err)
	}
	e := m.envelopes[p.ID]
	if e == nil {
		e = &modelEnvelope{
			deliveries: map[routing.AgencyCode]*modelDelivery{}, bare: map[routing.RelayID]bool{}, holders: map[routing.RelayID]bool{}, keepers: map[routing.RelayID]bool{},
			ingress: p.Ingress, expiresAt: p.ExpiresAt,
		}
		m.envelopes[p.ID] = e
	}
	e.p = p
	e.put(p)
	e.tidy()
}

// any draws one of the envelopes; false if there is none.
func (m *model) any(rt *rapid.T) (*modelEnvelope, bool) {
	ids := slices.SortedFunc(maps.Keys(m.envelopes), func(a, b envelope.ID) int { return slices.Compare(a[:], b[:]) })
	if len(ids) == 0 {
		return nil, false
	}
	return m.envelopes[rapid.SampledFrom(ids).Draw(rt, "id")], true
}

func (m *model) agencies(rt *rapid.T) []routing.AgencyCode {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(modelAgencies), 0, len(modelAgencies), rapid.ID).Draw(rt, "agencies")
}

func (m *model) handOn(rt *rapid.T) {
	e, ok := m.any(rt)
	if !ok {
		return
	}
	f := envelope.HandedOn{
		ID: e.p.ID, Destination: rapid.SampledFrom(modelRelays).Draw(rt, "destination"),
		Peer: rapid.SampledFrom(append(modelRelays, self)).Draw(rt, "peer"), Agencies: m.agencies(rt),
	}
	switch rapid.IntRange(0, 2).Draw(rt, "holding") {
	case 1:
		f.Keeps = true
	case 2:
		f.Released = true
	}
	if err := m.n.HandOn(context.Background(), f); err != nil {
		rt.Fatal(err)
	}
	bare := len(f.Agencies) == 0 && e.bare[f.Destination]
	moved := bare
	if moved {
		delete(e.bare, f.Destination)
	}
	if f.Peer == self {
		e.tidy()
		return // given up
	}
	for _, a := range f.Agencies {
		if d := e.deliveries[a]; d != nil && d.place == envelope.InQueue && d.home == f.Destination {
			d.place, moved = envelope.Elsewhere, true
			if f.Peer == e.ingress && !e.fromSender && !f.Released {
				d.place = envelope.Kept // the ingress alone would have it
			}
			if f.Peer == f.Destination {
				d.transport = processing
			}
		}
	}
	if moved && !f.Released {
		e.holders[f.Peer] = true
		if e.fromSender && (f.Keeps || bare) {
			e.keepers[f.Peer] = true
		}
		delete(e.bare, f.Peer)
	}
	e.tidy()
}

func (m *model) settle(rt *rapid.T) {
	e, ok := m.any(rt)
	if !ok {
		return
	}
	var batch []envelope.Settlement
	want := 0
	agencies := m.agencies(rt)
	if rapid.Bool().Draw(rt, "crowd") {
		agencies = append(agencies, modelCrowd...)
	}
	for _, a := range agencies {
		f := envelope.Settlement{ID: e.p.ID, Agency: a, Transport: fail}
		if len(a)%2 == 0 || rapid.Bool().Draw(rt, "done") {
			f.Transport = done
		} else if rapid.IntRange(0, 3).Draw(rt, "recalled") == 0 {
			f.Reason = exchangev1.ErrorReason_ERROR_REASON_RECALLED
		}
		batch = append(batch, f)
		d := e.deliveries[a]
		if d == nil || d.place == envelope.Settled && !(d.transport == fail && f.Transport == done) {
			continue
		}
		want++
		d.place, d.transport, d.recalled = envelope.Settled, f.Transport, f.Reason != 0
	}
	e.tidy()
	if got, err := m.n.Settle(context.Background(), batch); err != nil || got != want {
		rt.Fatalf("settle %v: %d, %v, want %d", batch, got, err, want)
	}
}

func (m *model) reroute(rt *rapid.T) {
	e, ok := m.any(rt)
	if !ok || !m.keep && e.done() {
		return // whether its content is there is a matter of time
	}
	r := envelope.Reroute{
		ID: e.p.ID, From: rapid.SampledFrom(append(modelRelays, self)).Draw(rt, "from"), Agencies: m.agencies(rt),
	}
	to, elsewhere := make(map[routing.AgencyCode]routing.RelayID), make(map[routing.AgencyCode]bool)
	for _, a := range r.Agencies {
		to[a], elsewhere[a] = rapid.SampledFrom(append(modelRelays, self)).Draw(rt, "to"), rapid.IntRange(0, 2).Draw(rt, "elsewhere") == 0
		switch {
		case elsewhere[a]:
			r.Elsewhere = append(r.Elsewhere, envelope.Onward{Relay: to[a], Agencies: []routing.AgencyCode{a}})
		case to[a] == self:
			r.Inboxes = append(r.Inboxes, a)
		default:
			r.Onward = onwardTo(r.Onward, to[a], a)
		}
	}
	if err := m.n.Reroute(context.Background(), r); err != nil {
		rt.Fatal(err)
	}
	held := maps.Clone(e.holders)
	for _, a := range r.Agencies {
		d := e.deliveries[a]
		switch {
		case d == nil || d.place == envelope.Settled || d.place == envelope.Kept:
			continue
		case d.place == envelope.InInbox && (r.From != self || to[a] == self):
			continue
		case d.place != envelope.InInbox && d.home != r.From:
			continue
		case d.place == envelope.InQueue && to[a] == r.From && !elsewhere[a]:
			continue
		case d.place == envelope.Elsewhere && to[a] == r.From && elsewhere[a] && held[r.From]:
			continue
		}
		if d.place == envelope.Elsewhere && !(elsewhere[a] && to[a] == self) {
			clear(e.keepers)
		}
		switch {
		case elsewhere[a] && to[a] == self: // nonsense
		case elsewhere[a]:
			*d = modelDelivery{place: envelope.Elsewhere, home: to[a], transport: processing}
			e.holders[to[a]] = true
			delete(e.bare, to[a])
		case to[a] == self:
			*d = modelDelivery{place: envelope.InInbox, home: self, transport: processing}
		default:
			*d = modelDelivery{place: envelope.InQueue, home: to[a], transport: initial}
		}
	}
	e.tidy()
}

// onwardTo adds a recipient to the duty for one relay.
func onwardTo(list []envelope.Onward, relay routing.RelayID, a routing.AgencyCode) []envelope.Onward {
	i := slices.IndexFunc(list, func(o envelope.Onward) bool { return o.Relay == relay })
	if i < 0 {
		return append(list, envelope.Onward{Relay: relay, Agencies: []routing.AgencyCode{a}})
	}
	list[i].Agencies = append(list[i].Agencies, a)
	return list
}

// cut begins a transfer and leaves it.
func (m *model) cut(rt *rapid.T) {
	p := newParcel(uint64(rapid.IntRange(0, 9).Draw(rt, "envelope")), 500<<10).inbox("A")
	p.Header, p.DocumentID = append(p.Header, "cut"...), p.DocumentID+" cut"
	p.ID = envelope.ComputeID("x", "y", p.Header)
	in, err := m.n.Begin(context.Background(), &p.Custody)
	if err != nil {
		rt.Fatal(err)
	}
	defer in.Close()
	from := in.Offsets()[0]
	to := min(from+uint64(rapid.IntRange(0, 100<<10).Draw(rt, "bytes")), 499<<10)
	if to <= from {
		return
	}
	if err := in.Write(context.Background(), 0, from, p.content[0][from:to]); err != nil {
		rt.Fatal(err)
	}
}

func (m *model) reopen(rt *rapid.T, rebuild bool) {
	m.n.end()
	check(rt, m.cfg)
	if rebuild {
		if err := os.RemoveAll(filepath.Join(m.cfg.Dir, "index")); err != nil {
			rt.Fatal(err)
		}
		check(rt, m.cfg)
	}
	m.n = start(rt, m.cfg)
}

// The spool does what the model does, whatever is moved, released, recycled,
// restarted or rebuilt between the steps; nothing that was released is forgotten.
func TestSpoolIsItsModel(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		m := &model{envelopes: make(map[envelope.ID]*modelEnvelope), keep: rapid.Bool().Draw(rt, "keep content")}
		m.cfg = spool.Hurried(spool.Config{
			Dir: filepath.Join(root, fmt.Sprint(runs)), Self: self, SegmentSize: 96 << 10,
			IndexMemory: 8 << 20, IndexOverlay: 256 << 10,
		})
		if m.keep {
			m.cfg.Retention.Ingress, m.cfg.Retention.Transit = time.Hour, time.Hour
		}
		m.n = start(rt, m.cfg)
		rt.Repeat(map[string]func(*rapid.T){
			"put":       m.put,
			"put more":  m.put,
			"hand on":   m.handOn,
			"settle":    m.settle,
			"settle it": m.settle,
			"reroute":   m.reroute,
			"copy":      m.copy,
			"forget":    m.forget,
			"take over": m.takeOver,
			"hold":      m.hold,
			"revive":    m.revive,
			"cut":       m.cut,
			"restart":   func(rt *rapid.T) { m.reopen(rt, false) },
			"rebuild":   func(rt *rapid.T) { m.reopen(rt, true) },
			"":          m.compare,
		})
		m.n.end()
		check(rt, m.cfg)
	})
}
