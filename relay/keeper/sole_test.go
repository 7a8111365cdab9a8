package keeper_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// waiting is an envelope that no other relay has, for H29 at nam.
func waiting(r *envelope.Record) {
	r.Deliveries = []envelope.Delivery{at("H29", envelope.InQueue, "nam")}
}

// own is one whose recipient is at home here.
func own(r *envelope.Record) {
	r.Deliveries = []envelope.Delivery{at("H26", envelope.InInbox, "bac")}
}

func size(n uint64) func(*envelope.Record) {
	return func(r *envelope.Record) { r.Parts = append(r.Parts, envelope.PartSum{Size: n}) }
}

func copyAt(relay routing.RelayID) func(*envelope.Record) {
	return func(r *envelope.Record) { r.Onward = append(r.Onward, envelope.Onward{Relay: relay}) }
}

func TestSecondCopies(t *testing.T) {
	for _, c := range []struct {
		name  string
		put   []func(*envelope.Record)
		down  []routing.RelayID
		after time.Duration
		want  []routing.RelayID // relays where copies became duties, in order
	}{
		{name: "home here: at the standby", put: []func(*envelope.Record){own}, after: 3 * time.Second, want: []routing.RelayID{"trung"}},
		{name: "standby down: at the nearest", put: []func(*envelope.Record){own}, down: []routing.RelayID{"trung"}, after: 3 * time.Second, want: []routing.RelayID{"nam"}},
		{name: "on its way", put: []func(*envelope.Record){waiting}, after: 900 * time.Millisecond},
		{name: "on its way too long", put: []func(*envelope.Record){waiting}, after: 3 * time.Second, want: []routing.RelayID{"trung"}},
		{name: "destination down", put: []func(*envelope.Record){waiting}, down: []routing.RelayID{"nam"}, after: 3 * time.Second, want: []routing.RelayID{"trung"}},
		{name: "large and on its way", put: []func(*envelope.Record){waiting, size(100 << 20)}, after: 50 * time.Second},
		{name: "large and on its way for long", put: []func(*envelope.Record){waiting, size(100 << 20)}, after: 63 * time.Second, want: []routing.RelayID{"trung"}},
		{name: "large, destination down", put: []func(*envelope.Record){waiting, size(100 << 20)}, down: []routing.RelayID{"nam"}, after: 3 * time.Second, want: []routing.RelayID{"trung"}},
		{name: "a copy is on its way", put: []func(*envelope.Record){own, copyAt("tay")}, after: 25 * time.Second},
		{name: "a copy is on its way for long", put: []func(*envelope.Record){own, copyAt("tay")}, after: 33 * time.Second, want: []routing.RelayID{"trung"}},
		{name: "a copy waits for a relay that is down", put: []func(*envelope.Record){own, copyAt("tay")}, down: []routing.RelayID{"tay"}, after: 3 * time.Second, want: []routing.RelayID{"trung"}},
		{name: "nobody in reach", put: []func(*envelope.Record){own}, down: []routing.RelayID{"nam", "tay", "trung"}, after: time.Minute},
		{name: "content released", put: []func(*envelope.Record){own, func(r *envelope.Record) { r.ContentReleased = true }}, after: 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				for _, relay := range c.down {
					w.setDown(relay, true)
				}
				stop := w.run()
				defer stop()
				time.Sleep(time.Minute) // whatever it does when idle
				id := w.put(1, func(r *envelope.Record) {
					for _, edit := range c.put {
						edit(r)
					}
				})
				time.Sleep(c.after)
				got := w.copies()
				if len(got) != len(c.want) {
					t.Fatalf("copies: got %v, want %v", got, c.want)
				}
				for i := range got {
					if got[i].Relay != c.want[i] || got[i].ID != id {
						t.Errorf("copies: got %v, want %v", got, c.want)
					}
				}
				if c.name == "a copy waits for a relay that is down" && (len(got[0].Instead) != 1 || got[0].Instead[0] != "tay") {
					t.Errorf("instead: got %v", got[0].Instead)
				}
			})
		})
	}
}

// Copies that find no way are as many as fit, not as many as there are; and as
// they are made, others follow.
func TestOutageIsNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const n = 300
		for i := range n {
			w.put(i, own)
		}
		stop := w.run()
		defer stop()
		time.Sleep(20 * time.Second)
		made := w.copies()
		if len(made) != 64 {
			t.Fatalf("got %d copies under way, want 64", len(made))
		}
		for done := 0; done < n; {
			made := w.copies()
			if len(made)-done > 64 {
				t.Fatalf("got %d copies under way, want at most 64", len(made)-done)
			}
			for _, c := range made[done:] {
				if err := w.HandOn(t.Context(), envelope.HandedOn{ID: c.ID, Destination: c.Relay, Peer: c.Relay}); err != nil {
					t.Fatal(err)
				}
			}
			if len(made) == done {
				t.Fatalf("got stuck after %d copies", done)
			}
			done = len(made)
			time.Sleep(2 * time.Second)
		}
	})
}

// A relay that refuses a copy is not asked again and again; others are.
func TestRefusedCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, own)
		stop := w.run()
		defer stop()
		for range 300 {
			time.Sleep(time.Second)
			for _, c := range w.copies() {
				// Given up: no holder, and no duty any more.
				if err := w.HandOn(t.Context(), envelope.HandedOn{ID: c.ID, Destination: c.Relay, Peer: "bac"}); err != nil {
					t.Fatal(err)
				}
			}
		}
		var asked []routing.RelayID
		for _, c := range w.copies() {
			asked = append(asked, c.Relay)
		}
		if want := []routing.RelayID{"trung", "nam", "tay"}; !slices.Equal(asked, want) {
			t.Errorf("asked %v to copy %s, want each once: %v", asked, id, want)
		}
	})
}

// What was accepted before the clock was put back is copied all the same, and so
// is what stands behind it.
func TestCopyAfterTheClockWasPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(1, func(r *envelope.Record) { own(r); r.AcceptedAt = time.Now().Add(240 * time.Hour) })
		w.put(2, own)
		stop := w.run()
		defer stop()
		time.Sleep(3 * time.Second)
		if got := w.copies(); len(got) != 2 {
			t.Errorf("copies: got %v, want one of each", got)
		}
	})
}

// A copy that waits for a relay which goes out of reach is made elsewhere.
func TestCopyholderGoesDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(1, own)
		stop := w.run()
		defer stop()
		time.Sleep(3 * time.Second)
		w.setDown("trung", true)
		time.Sleep(3 * time.Second)
		got := w.copies()
		if len(got) != 2 || got[1].Relay != "nam" || !slices.Equal(got[1].Instead, []routing.RelayID{"trung"}) {
			t.Errorf("copies: got %v, want one at nam instead of trung", got)
		}
	})
}

// A relay that is alone does next to nothing.
func TestAloneCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, relay := range []string{"nam", "tay", "trung"} {
			w.lose(relay)
		}
		for i := range 100 {
			w.put(i, own)
		}
		reads := 0
		w.memory.onRead = func() { reads++ }
		stop := w.run()
		time.Sleep(10 * time.Minute)
		stop()
		if len(w.copies()) > 0 || reads > 0 {
			t.Errorf("got %d copies and %d records read, want none", len(w.copies()), reads)
		}
	})
}

// Where they went knows how they ended, though it has let the envelope go: it had
// it from another ingress.
func TestStraysThatHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, func(r *envelope.Record) { r.Deliveries = []envelope.Delivery{at("H29", envelope.Elsewhere, "nam")} })
		w.others.up("nam", id, without(ended("H29", done, 0)))
		stop := w.run()
		defer stop()
		time.Sleep(3 * time.Second)
		w.want(id, "H29", envelope.Settled, "nam")
		if n := len(w.copies()); n > 0 {
			t.Errorf("%d copies were wanted of what has ended", n)
		}
	})
}

// Deliveries that nobody is known to have are sent again.
func TestOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, func(r *envelope.Record) { r.Deliveries = []envelope.Delivery{at("H29", envelope.Elsewhere, "nam")} })
		stop := w.run()
		defer stop()
		time.Sleep(50 * time.Second)
		w.want(id, "H29", envelope.Elsewhere, "nam")
		time.Sleep(20 * time.Second)
		w.want(id, "H29", envelope.InQueue, "nam")
	})
}

// Where the only other copy is at a relay that leaves, another is made.
func TestCopyAtARelayThatDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, func(r *envelope.Record) { own(r); r.Holders = []routing.RelayID{"trung"} })
		two := w.put(2, func(r *envelope.Record) { own(r); r.Holders = []routing.RelayID{"trung", "tay"} })
		w.others.up("trung", id, says())
		w.others.up("trung", two, says())
		w.others.up("tay", two, says())
		stop := w.run()
		defer stop()
		w.setDown("trung", true)
		w.drain("trung")
		time.Sleep(15 * time.Second)
		if got := w.copies(); len(got) != 1 || got[0].ID != id || got[0].Relay != "nam" && got[0].Relay != "tay" {
			t.Errorf("copies: got %v, want one of %s at a relay that stays", got, id)
		}
		w.wantHolders(id, "trung")
	})
}
