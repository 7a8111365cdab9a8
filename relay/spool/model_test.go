package spool_test

import (
	"context"
	"errors"
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

// What the spool must know of an envelope, told as simply as possible.
type modelEnvelope struct {
	p          *parcel
	fromSender bool
	deliveries map[routing.AgencyCode]*modelDelivery
	bare       map[routing.RelayID]bool
	holders    map[routing.RelayID]bool
}

type modelDelivery struct {
	where     string // "inbox", "queue", "handed on", "settled"
	home      routing.RelayID
	transport exchangev1.TransportStatus
}

func (e *modelEnvelope) done() bool {
	for _, d := range e.deliveries {
		if d.where == "inbox" || d.where == "queue" || e.fromSender && d.where != "settled" {
			return false
		}
	}
	return len(e.bare) == 0
}

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
	onward := make(map[routing.RelayID][]routing.AgencyCode)
	for _, a := range modelAgencies {
		switch to := rapid.IntRange(-2, len(modelRelays)).Draw(rt, string(a)); {
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
		p.FromSender = true
	} else if relay := modelRelays[seed%3]; onward[relay] == nil && rapid.IntRange(0, 3).Draw(rt, "report") == 0 {
		p.onward(relay)
	}
	_, err := m.n.put(p)
	if err != nil {
		rt.Fatalf("put %s: %v", p.ID, err)
	}
	e := m.envelopes[p.ID]
	if e == nil {
		e = &modelEnvelope{
			deliveries: map[routing.AgencyCode]*modelDelivery{}, bare: map[routing.RelayID]bool{}, holders: map[routing.RelayID]bool{},
		}
		m.envelopes[p.ID] = e
	}
	e.p = p
	wants := func(a routing.AgencyCode, inbox bool) bool {
		d := e.deliveries[a]
		switch {
		case d == nil:
			return true
		case p.FromSender && e.fromSender:
			return false
		case d.where == "queue":
			return inbox
		}
		return d.where == "handed on"
	}
	for _, a := range p.Inboxes {
		if wants(a, true) {
			e.deliveries[a] = &modelDelivery{"inbox", self, exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING}
		}
	}
	for _, o := range p.Onward {
		for _, a := range o.Agencies {
			if wants(a, false) {
				e.deliveries[a] = &modelDelivery{"queue", o.Relay, exchangev1.TransportStatus_TRANSPORT_STATUS_INITIAL}
			}
		}
		if len(o.Agencies) == 0 {
			e.bare[o.Relay] = true
		}
	}
	e.fromSender = e.fromSender || p.FromSender
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
		Peer: rapid.SampledFrom(modelRelays).Draw(rt, "peer"), Agencies: m.agencies(rt),
	}
	if err := m.n.HandOn(context.Background(), f); err != nil {
		rt.Fatal(err)
	}
	moved := len(f.Agencies) == 0 && e.bare[f.Destination]
	if moved {
		delete(e.bare, f.Destination)
	}
	for _, a := range f.Agencies {
		if d := e.deliveries[a]; d != nil && d.where == "queue" && d.home == f.Destination {
			d.where, moved = "handed on", true
			if f.Peer == f.Destination {
				d.transport = exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING
			}
		}
	}
	if moved {
		e.holders[f.Peer] = true
	}
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
		}
		batch = append(batch, f)
		d := e.deliveries[a]
		if d == nil || d.where == "settled" && !(d.transport == fail && f.Transport == done) {
			continue
		}
		want++
		d.where, d.transport = "settled", f.Transport
	}
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
	to := make(map[routing.AgencyCode]routing.RelayID)
	for _, a := range r.Agencies {
		relay := rapid.SampledFrom(append(modelRelays, self)).Draw(rt, "to")
		to[a] = relay
		if relay == self {
			r.Inboxes = append(r.Inboxes, a)
			continue
		}
		i := slices.IndexFunc(r.Onward, func(o envelope.Onward) bool { return o.Relay == relay })
		if i < 0 {
			r.Onward = append(r.Onward, envelope.Onward{Relay: relay, Agencies: []routing.AgencyCode{a}})
		} else {
			r.Onward[i].Agencies = append(r.Onward[i].Agencies, a)
		}
	}
	if err := m.n.Reroute(context.Background(), r); err != nil {
		rt.Fatal(err)
	}
	for _, a := range r.Agencies {
		d := e.deliveries[a]
		switch {
		case d == nil || d.where == "settled":
			continue
		case d.where == "inbox" && (r.From != self || to[a] == self):
			continue
		case d.where != "inbox" && d.home != r.From:
			continue
		case d.where == "queue" && to[a] == r.From:
			continue
		}
		if to[a] == self {
			*d = modelDelivery{"inbox", self, exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING}
		} else {
			*d = modelDelivery{"queue", to[a], exchangev1.TransportStatus_TRANSPORT_STATUS_INITIAL}
		}
	}
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
	if !rebuild {
		return
	}
	if m.keep {
		return
	}
	// What was done with, and released, may be forgotten now, or remembered as
	// it once was; it must not be a duty again.
	for id, e := range m.envelopes {
		if !e.done() {
			continue
		}
		r, err := m.n.Record(id)
		if errors.Is(err, spool.ErrNotFound) {
			delete(m.envelopes, id)
			continue
		}
		if err != nil || len(r.Inboxes) > 0 || len(r.Onward) > 0 {
			rt.Fatalf("envelope %s was done with, and after a rebuild: %+v, %v", id, r, err)
		}
		e.fromSender = r.FromSender
		clear(e.deliveries)
		for _, d := range r.Deliveries {
			e.deliveries[d.Agency] = &modelDelivery{"handed on", d.Home, d.Transport}
			if d.Transport == done || d.Transport == fail {
				e.deliveries[d.Agency].where = "settled"
			}
		}
		clear(e.holders)
		for i := range r.Copies - 1 {
			e.holders[routing.RelayID(fmt.Sprint(i))] = true
		}
	}
}

// The spool does what the model does, whatever is moved, released, recycled,
// restarted or rebuilt between the steps.
func TestSpoolIsItsModel(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		m := &model{envelopes: make(map[envelope.ID]*modelEnvelope), keep: rapid.Bool().Draw(rt, "keep content")}
		m.cfg = spool.Hurried(spool.Config{
			Dir: filepath.Join(root, fmt.Sprint(runs)), Self: self, SegmentSize: 512 << 10,
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
			"cut":       m.cut,
			"restart":   func(rt *rapid.T) { m.reopen(rt, false) },
			"rebuild":   func(rt *rapid.T) { m.reopen(rt, true) },
			"":          m.compare,
		})
		m.n.end()
		check(rt, m.cfg)
	})
}
