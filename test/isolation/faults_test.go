package isolation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/torture/tally"
)

// patience bounds every wait; nothing waits for it when all is well.
const patience = 100 * time.Second

// attack breaks the network of a mesh under load.
type attack struct {
	*office
	f      *fabric
	ids    []string // relays by site
	random *rand.Rand
	kinds  map[string]*tally.Faults
	// alones are documents that one relay has accepted for somebody who is away.
	alones []lone
}

type lone struct {
	from *desk
	id   envelope.ID
}

// fault breaks the network, waits for what must go on meanwhile, and returns what
// heals it; nil: fabric.heal.
type fault struct {
	name, measured string
	do             func(a *attack, site int) (heal func())
}

const toHealed = "healed to all delivered"

var plan = []fault{
	{"one relay isolated (packets dropped)", toHealed, func(a *attack, site int) func() {
		a.f.filter(a.f.isolated("drop", site)...)
		a.alone(site)
		return nil
	}},
	{"one relay isolated (ICMP unreachable)", toHealed, func(a *attack, site int) func() {
		a.f.filter(a.f.isolated("reject with icmp type host-unreachable", site)...)
		a.alone(site)
		return nil
	}},
	{"majority isolated", toHealed, func(a *attack, _ int) func() {
		a.f.filter(a.f.isolated("drop", 0, 1, 2)...)
		a.apart()
		return nil
	}},
	{"one relay isolated, then a majority", toHealed, func(a *attack, site int) func() {
		a.f.filter(a.f.isolated("drop", site)...)
		a.alone(site)
		a.f.filter(a.f.isolated("drop", 0, 1, 2)...)
		a.apart()
		if a.random.IntN(2) == 0 { // the first is back before the others
			a.f.filter(a.f.isolated("drop", a.next(site))...)
			a.alone(a.next(site))
		}
		return nil
	}},
	{"one direction dropped (inbound)", toHealed, func(a *attack, site int) func() {
		a.f.filter(a.f.into(site) + "drop")
		a.some(15 * time.Second)
		a.othersGoOn(site)
		return nil
	}},
	{"one direction dropped (outbound)", toHealed, func(a *attack, site int) func() {
		a.f.filter(a.f.outOf(site) + "drop")
		a.some(15 * time.Second)
		a.othersGoOn(site)
		return nil
	}},
	{"packets to one port dropped", toHealed, func(a *attack, site int) func() {
		a.f.filter(a.f.into(site) + "tcp dport " + port + " drop")
		a.some(15 * time.Second)
		a.othersGoOn(site)
		return nil
	}},
	{"30 % of packets lost", toHealed, func(a *attack, site int) func() {
		a.f.filter(a.f.isolated("numgen random mod 100 < 30 drop", site)...)
		a.some(8 * time.Second)
		a.othersGoOn(site)
		return nil
	}},
	{"slow network (20 kB/s)", toHealed, func(a *attack, site int) func() {
		a.f.filter(a.f.isolated("limit rate over 20 kbytes/second burst 8 kbytes drop", site)...)
		a.some(8 * time.Second)
		a.othersGoOn(site)
		return nil
	}},
	{"link down", toHealed, func(a *attack, site int) func() {
		a.f.link(site, "down")
		a.some(8 * time.Second)
		a.othersGoOn(site)
		// The agencies there find another relay to hand over at.
		a.must(a.delivers(a.random, a.at(site, 0), a.at(a.next(site), 0)))
		return func() { a.f.link(site, "up") }
	}},
	{"link flaps", toHealed, func(a *attack, site int) func() {
		for range 4 {
			a.f.link(site, "down")
			a.some(time.Second)
			a.f.link(site, "up")
			a.some(time.Second)
		}
		return func() {}
	}},
	{"connections forgotten by a firewall", "forgotten to all delivered", func(a *attack, _ int) func() {
		a.f.filter(a.f.forgotten()...)
		for site := range a.ids {
			a.must(a.delivers(a.random, a.at(site, 0), a.at(a.next(site), 1)))
		}
		return nil
	}},
}

// inject does one fault and waits until everything has arrived that was promised
// before it was healed.
func (a *attack) inject(f fault) {
	a.t.Helper()
	kind, ok := a.kinds[f.name]
	if !ok {
		kind = tally.Kind(a.t, f.name, f.measured)
		a.kinds[f.name] = kind
	}
	a.some(500 * time.Millisecond)
	site := a.random.IntN(len(a.ids))
	begun := time.Now()
	hit := kind.Inject()
	heal := f.do(a, site)
	if heal == nil {
		heal = a.f.heal
	}
	heal()
	healed := time.Now()
	if f.measured == toHealed {
		hit.From()
	}
	if err := a.await(healed); err != nil {
		a.t.Fatalf("%s at %s: %v", f.name, a.ids[site], err)
	}
	a.secondCopies()
	hit.Survived()
	a.t.Logf("%s at %s: broken for %s, all is there %s later", f.name, a.ids[site],
		healed.Sub(begun).Round(time.Millisecond), time.Since(healed).Round(time.Millisecond))
	a.m.AwaitServing()
}

func (a *attack) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// some lets the load go on for a random while up to most.
func (a *attack) some(most time.Duration) {
	<-time.After(most/4 + time.Duration(a.random.Int64N(int64(most*3/4))))
}

func (a *attack) next(site int) int { return (site + 1) % len(a.ids) }

// at is the nth desk of a site.
func (a *attack) at(site, n int) *desk {
	for _, d := range a.desks {
		if d.site == site {
			if n == 0 {
				return d
			}
			n--
		}
	}
	a.t.Fatalf("site %d has no more desks", site)
	return nil
}

// alone waits until an isolated site has shown that it goes on by itself, and the
// others together.
func (a *attack) alone(site int) {
	a.t.Helper()
	begun := time.Now()
	a.local(site)
	a.othersGoOn(site)
	a.writes(a.next(site))
	a.refuses(site)
	if a.some(tally.Pick(2*time.Second, 12*time.Second)); tally.Long() {
		a.local(site) // by now it knows that no other can be reached
	}
	a.single(begun, site)
}

// apart waits until every site has shown that it goes on by itself.
func (a *attack) apart() {
	a.t.Helper()
	begun := time.Now()
	for site := range a.ids {
		a.local(site)
	}
	a.refuses(a.random.IntN(len(a.ids)))
	a.some(10 * time.Second)
	a.local(a.random.IntN(len(a.ids)))
	a.single(begun, 0, 1, 2)
}

// local sends documents within a site, to somebody who is there and to somebody
// who is away.
func (a *attack) local(site int) {
	a.t.Helper()
	from := a.at(site, 0)
	a.must(a.delivers(a.random, from, a.at(site, 1)))
	receipt, err := a.submit(from, a.random, a.away[site].code)
	a.must(err)
	a.alones = append(a.alones, lone{from, receipt.ID})
}

// secondCopies waits until what one relay had accepted alone is on two.
func (a *attack) secondCopies() {
	a.t.Helper()
	for _, l := range a.alones {
		a.m.Await(fmt.Sprintf("envelope %s is on two relays", l.id), func(ctx context.Context) error {
			track, err := l.from.client.Track(ctx, l.id)
			if n := track.GetReceipt().GetCopies(); err == nil && n < 2 {
				err = fmt.Errorf("on %d", n)
			}
			return err
		})
	}
	a.alones = nil
}

// together asks, while the network is whole, that documents within a site are on
// two relays when they are accepted: of some, as a busy machine may be too late
// with one.
func (a *attack) together() {
	a.t.Helper()
	const each = 3
	safe := 0
	for site := range a.ids {
		for range each {
			receipt, err := a.submit(a.at(site, 0), a.random, a.at(site, 1).code)
			a.must(err)
			if receipt.Copies >= 2 {
				safe++
			}
		}
	}
	a.t.Logf("%d of %d documents within a site were accepted with two copies", safe, each*len(a.ids))
	if safe < len(a.ids) {
		a.t.Errorf("%d of %d documents within a site were accepted with two copies in a whole network", safe, each*len(a.ids))
	}
}

// othersGoOn sends documents among the others.
func (a *attack) othersGoOn(site int) {
	a.t.Helper()
	one, other := a.next(site), a.next(a.next(site))
	a.must(a.deliversBy(a.random, a.at(one, 0), a.at(other, 0), a.ids[site]))
	a.must(a.deliversBy(a.random, a.at(other, 1), a.at(one, 1), a.ids[site]))
}

// single asks that documents that were accepted at isolated sites, begun after a
// moment, were told to have one copy.
func (a *attack) single(begun time.Time, sites ...int) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, p := range a.promises {
		for _, site := range sites {
			if p.relay == a.ids[site] && p.begun.After(begun) {
				if n++; p.copies != 1 {
					a.t.Errorf("%s, isolated, accepted a document with %d copies", p.relay, p.copies)
				}
			}
		}
	}
	if n == 0 {
		a.t.Errorf("no document was accepted at isolated sites")
	}
}

// writes changes the directory at a site with a majority.
func (a *attack) writes(site int) {
	a.t.Helper()
	a.m.Await("the directory is written where there is a majority", func(ctx context.Context) error {
		return a.change(ctx, site)
	})
}

// refuses asks a relay without a majority for a change: it says why not. It takes
// as long as relays wait for a leader, so only the long form does it.
func (a *attack) refuses(site int) {
	a.t.Helper()
	if !tally.Long() || a.random.IntN(2) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(a.ctx, 30*time.Second)
	defer cancel()
	err := a.change(ctx, site)
	if r, ok := envelope.AsRefusal(err); !ok || r.Reason != exchangev1.ErrorReason_ERROR_REASON_NO_LEADER {
		a.t.Errorf("change at %s without a majority: got %v, want NO_LEADER", a.ids[site], err)
	}
}

func (a *attack) change(ctx context.Context, site int) error {
	id := make([]byte, 16)
	for i := range id {
		id[i] = byte(a.random.Uint32())
	}
	_, err := a.m.Operator(a.ids[site]).Directory.Change(ctx, &adminv1.ChangeRequest{RequestId: id, Command: &directoryv1.Command{
		Change: &directoryv1.Command_SetGroup{SetGroup: &directoryv1.SetGroup{Group: &directoryv1.Group{
			Name: fmt.Sprintf("probe-%d", a.random.IntN(5)), AgencyCodes: []string{a.desks[0].code}}}}}})
	return err
}
