package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// busy is how long documents are handed in, and faults begin.
const busy = 6 * time.Second

// Streams of chance, so that one more document does not change the faults.
const (
	streamPlan = iota + 1
	streamFaults
	streamNetwork
	streamDirectory
	streamDesks
	streamAsks
	streamDisks = 100 // and one for each disk
)

// plan is everything that a seed decides beforehand. What the runtime leaves to
// chance in between (the order of goroutines, jitter of back-offs) is not in it.
type plan struct {
	seed   uint64
	relays []string
	desks  []deskPlan
	// documents in order of time.
	documents []documentPlan
	events    []event
	copyWait  time.Duration
	// delay and jitter of every way; slow is the most that a sync takes.
	delay, jitter, slow time.Duration
	lags                []time.Duration
	// probe is how often relays measure their links.
	probe time.Duration
	// segment is the size of the journals' segments.
	segment int64
	// lossy: a disk is lost.
	lossy bool
	// ahead: a clock is put forward by more than the lifetime of a document.
	ahead bool
	// heal is when everything is mended, and nothing more is done to the mesh.
	heal time.Duration
}

type deskPlan struct {
	code          string
	home, standby string
	// knows are the relays in its profile; it learns of the others.
	knows []string
	// late is the most between the books and the confirmation, stubborn confirms
	// nothing before the end.
	late     time.Duration
	stubborn bool
	// twice confirms again, loses cuts the connections before the confirmation,
	// restarts begins anew in place of it; each in so many of a hundred.
	twice, loses, restarts int
	inline                 int
}

type documentPlan struct {
	at       time.Duration
	sender   int
	to       []int
	sizes    []int
	priority int
	id       string
	// patience of one call to Submit, after which the sender's software dies.
	patience time.Duration
	// again: so many times handed in once more, later and perhaps elsewhere.
	again int
	// lies: so many times other bytes are sent than the header declares.
	lies int
}

func names(relays []string, with rand.Source) []string {
	r := rand.New(with)
	out := slices.Clone(relays)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// between gives a time by chance.
func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)+1))
}

// newPlan decides what a seed does.
func newPlan(seed uint64) *plan {
	r := rand.New(rand.NewPCG(seed, streamPlan))
	p := &plan{seed: seed, relays: []string{"bac", "trung", "nam", "tay", "dong"}[:3]}
	switch r.IntN(16) {
	case 0:
		p.relays = []string{"bac", "trung", "nam", "tay", "dong"}
	case 1, 2:
		p.relays = []string{"bac", "trung", "nam", "tay"}
	}
	p.copyWait = []time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second}[r.IntN(3)]
	p.delay = []time.Duration{0, time.Millisecond, 20 * time.Millisecond}[r.IntN(3)]
	p.jitter = []time.Duration{0, 2 * time.Millisecond, 100 * time.Millisecond}[r.IntN(3)]
	p.slow = []time.Duration{0, 5 * time.Millisecond, 100 * time.Millisecond}[r.IntN(3)]
	p.probe = []time.Duration{time.Second, 3 * time.Second}[r.IntN(2)]
	p.segment = []int64{64 << 10, 128 << 10, 256 << 10}[r.IntN(3)]
	for range p.relays {
		p.lags = append(p.lags, []time.Duration{0, 50 * time.Millisecond, 3 * time.Second}[r.IntN(3)])
	}
	p.planDesks(r)
	p.planDocuments(r)
	p.planEvents(rand.New(rand.NewPCG(seed, streamFaults)))
	return p
}

func (p *plan) planDesks(r *rand.Rand) {
	for i := range 3 + r.IntN(3) {
		order := names(p.relays, r)
		d := deskPlan{code: fmt.Sprintf("H%02d", i+1), home: order[0], knows: names(p.relays, r)[:1+r.IntN(len(p.relays))]}
		if r.IntN(4) > 0 {
			d.standby = order[1]
		}
		d.inline = []int{0, -1, 4096}[r.IntN(3)]
		switch r.IntN(6) {
		case 0:
			d.late = 5 * time.Second
		case 1:
			d.late = time.Second
		case 2:
			d.stubborn = true
		}
		if r.IntN(3) == 0 {
			d.twice = 50
		}
		if r.IntN(3) == 0 {
			d.loses = 30
		}
		if r.IntN(3) == 0 {
			d.restarts = 20
		}
		p.desks = append(p.desks, d)
	}
}

func (p *plan) planDocuments(r *rand.Rand) {
	sizes := []int{0, 1, 511, 512, 3000, 4096, 9000, 40_000}
	for i := range 3 + r.IntN(5) {
		d := documentPlan{
			at: between(r, 0, busy), sender: r.IntN(len(p.desks)), id: fmt.Sprintf("%d/CV", i+1),
			patience: []time.Duration{2 * time.Second, 20 * time.Second, 2 * time.Minute}[r.IntN(3)],
		}
		order := r.Perm(len(p.desks))
		d.to = order[:1+r.IntN(min(4, len(order)))]
		for range r.IntN(4) {
			d.sizes = append(d.sizes, sizes[r.IntN(len(sizes))])
		}
		if r.IntN(14) == 0 {
			// Too much for one record: it travels, and lies, in chunks.
			d.sizes = append(d.sizes, 260_000+r.IntN(140_000))
		}
		d.priority = r.IntN(5)
		if r.IntN(4) == 0 {
			d.again = 1 + r.IntN(2)
		}
		if len(d.sizes) > 0 && r.IntN(10) == 0 {
			d.lies = 1 + r.IntN(2)
		}
		p.documents = append(p.documents, d)
	}
	slices.SortFunc(p.documents, func(a, b documentPlan) int { return int(a.at - b.at) })
}

// String lists what is done to the mesh, for people.
func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "relays %v; copy wait %s, delay %s and up to %s, sync up to %s, segments of %d, directory behind by %v\n",
		p.relays, p.copyWait, p.delay, p.jitter, p.slow, p.segment, p.lags)
	for _, d := range p.desks {
		fmt.Fprintf(&b, "  %s at %s, standby %q, knows %v, confirms up to %s late, stubborn %t, twice %d, loses %d, restarts %d (of 100)\n",
			d.code, d.home, d.standby, d.knows, d.late, d.stubborn, d.twice, d.loses, d.restarts)
	}
	for _, d := range p.documents {
		var to []string
		for _, i := range d.to {
			to = append(to, p.desks[i].code)
		}
		fmt.Fprintf(&b, "  %8s %s sends %s to %v: parts of %v, priority %d, patience %s, again %d, lies %d\n",
			d.at.Round(time.Millisecond), p.desks[d.sender].code, d.id, to, d.sizes, d.priority, d.patience, d.again, d.lies)
	}
	for _, e := range p.events {
		fmt.Fprintf(&b, "  %8s for %8s: %s\n", e.at.Round(time.Millisecond), e.lasts.Round(time.Millisecond), e)
	}
	fmt.Fprintf(&b, "  %8s everything is mended\n", p.heal)
	return b.String()
}
