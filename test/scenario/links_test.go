package scenario

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/test/faults"
	"github.com/truclienthong/truc/test/mesh"
)

// broken is one way in which the link between trung and bac fails.
type broken struct {
	name  string
	fault func(faults.Links)
	// from and to of the one direction that fails; empty: both.
	from, to string
	// roundabout: the document has to go by way of nam.
	roundabout bool
	bulk       int
}

// Links between relays fail in every way that networks have, and documents
// arrive: by way of a third relay where there is no other, and without a storm
// of connections.
func TestCutLinks(t *testing.T) {
	t.Parallel()
	cut := faults.Links.Cut
	overBroken(t,
		broken{name: "both ways", fault: cut, roundabout: true, bulk: 200_000},
		broken{name: "from trung", fault: cut, from: "trung", to: "bac", roundabout: true, bulk: 200_000},
		broken{name: "from bac", fault: cut, from: "bac", to: "trung", bulk: 200_000},
	)
}

func TestHalfOpenLinks(t *testing.T) {
	t.Parallel()
	overBroken(t, broken{name: "both ways", fault: faults.Links.HalfOpen, roundabout: true, bulk: 200_000})
}

func TestLinksWithoutAnswer(t *testing.T) {
	t.Parallel()
	overBroken(t, broken{name: "from trung", fault: func(l faults.Links) { l[0].Lose(faults.Down) }, from: "trung", to: "bac", roundabout: true, bulk: 200_000})
}

func TestBadLinks(t *testing.T) {
	t.Parallel()
	overBroken(t,
		broken{name: "flapping", fault: func(l faults.Links) { l.Flap(300*time.Millisecond, 300*time.Millisecond) }, bulk: 3_000_000},
		broken{name: "late", fault: func(l faults.Links) { l.Delay(80*time.Millisecond, 80*time.Millisecond) }, bulk: 2_000_000},
		broken{name: "slow", fault: func(l faults.Links) { l.Throttle(400_000) }, bulk: 500_000},
	)
}

func overBroken(t *testing.T, cases ...broken) {
	m := mesh.Start(t, mesh.Config{Links: true, Seed: 11})
	for _, code := range []string{"G22", "H17.97.08", "H13"} { // at bac, trung, nam
		m.Agency(code).Receive()
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			// What was broken before carries again.
			m.Await("links are up", func(ctx context.Context) error {
				return errors.Join(linkUp(ctx, m, "trung", "bac"), linkUp(ctx, m, "bac", "trung"))
			})
			links := m.Between("trung", "bac")
			if c.from != "" {
				links = faults.Links{m.Link(c.from, c.to)}
			}
			dials := 0
			for _, p := range links {
				dials -= p.Accepted()
			}
			c.fault(links)
			defer links.Heal()
			began := time.Now()
			files := mesh.Files{"a.pdf": sample.PDF(c.name, c.bulk)}
			there := m.Agency("H17.97.08").Send(files, "G22", "H13")
			accepted := time.Since(began)
			back := m.Agency("G22").Send(files, "H17.97.08")
			m.Agency("G22").AwaitArrival(there.ID())
			m.Agency("H17.97.08").AwaitArrival(back.ID())
			t.Logf("accepted after %s with %d copies, there and back after %s", accepted.Round(time.Millisecond),
				there.Receipt.Copies, time.Since(began).Round(time.Millisecond))

			if c.roundabout {
				m.Await("it went by way of nam", func(ctx context.Context) error {
					trace, err := m.Operator("nam").Custody.Trace(ctx, &adminv1.TraceRequest{EnvelopeId: idBytes(there.ID())})
					if err == nil && count(trace.GetEvents(), step{"nam", exchangev1.TraceAction_TRACE_ACTION_HANDED_ON, "bac"}) == 0 {
						err = fmt.Errorf("not in %v", trace.GetEvents())
					}
					return err
				})
			}
			for _, p := range links {
				dials += p.Accepted()
			}
			// Raft's two routes to a peer try again after 10, 20, 40 ms and so on,
			// and from the beginning each time that a link carries again: about
			// ten tries in the 600 ms of a flapping link. A storm without waiting
			// would be thousands.
			if most := 60 + 16*int(1+time.Since(began)/time.Second)*len(links); dials > most {
				t.Errorf("%d connections were tried over the broken links in %s, at most %d are sensible", dials, time.Since(began), most)
			}
		})
	}
}

// linkUp says whether a relay reaches another directly, by its own table.
func linkUp(ctx context.Context, m *mesh.Mesh, from, to string) error {
	relays, err := m.Operator(from).Directory.ListRelays(ctx, &adminv1.ListRelaysRequest{})
	if err != nil {
		return err
	}
	for _, r := range relays.GetRelays() {
		if r.GetRelay().GetId() == to {
			if r.GetRoundTrip() == nil {
				return fmt.Errorf("%s does not reach %s", from, to)
			}
			return nil
		}
	}
	return errors.New("no such relay")
}
