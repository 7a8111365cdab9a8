package keeper_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// toNam is an envelope whose recipient's home, nam, has custody.
func toNam(r *envelope.Record) {
	r.Deliveries = []envelope.Delivery{at("H29", envelope.Elsewhere, "nam")}
	r.Holders = []routing.RelayID{"nam"}
}

// What a lost relay had is sent again at once, to where the directory says, and
// nobody is asked, though the relay has just been found to be silent.
func TestLostHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const n = 2000
		for i := range n {
			w.put(i, toNam)
		}
		onTheWay := w.put(n, func(r *envelope.Record) {
			r.Deliveries = []envelope.Delivery{at("G22", envelope.Elsewhere, "trung"), at("H26", envelope.InInbox, "bac")}
			r.Holders = []routing.RelayID{"nam"}
		})
		here := w.put(n+1, toNam)
		w.setDown("nam", true)
		stop := w.run()
		defer stop()
		time.Sleep(30 * time.Second)
		before, _ := w.others.count("nam")
		w.lose("nam")
		w.agency("H29", "trung", "tay")
		time.Sleep(2 * time.Second)
		for i := range n {
			w.want(idOf(i), "H29", envelope.InQueue, "trung")
			w.wantHolders(idOf(i))
		}
		w.want(onTheWay, "G22", envelope.InQueue, "trung")
		w.want(onTheWay, "H26", envelope.InInbox, "bac")
		w.want(here, "H29", envelope.InQueue, "trung")
		if after, _ := w.others.count("nam"); after != before {
			t.Error("the lost relay was asked")
		}
	})
}

// A recipient whose home is this relay now gets it from here.
func TestLostHolderOfMyRecipient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, toNam)
		w.agency("H29", "nam", "bac")
		stop := w.run()
		defer stop()
		w.lose("nam")
		time.Sleep(2 * time.Second)
		w.want(id, "H29", envelope.InInbox, "bac")
		w.wantHolders(id)
	})
}

// Between the new duty and the forgetting of the holder a crash may come: the
// envelope is looked after again. In the other order it would not be.
func TestForgetComesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, toNam)
		crashed := false
		w.fails = func(fact string, _ envelope.ID) error {
			if crashed = crashed || fact == "forget"; crashed {
				return errors.New("the power is gone")
			}
			return nil
		}
		stop := w.run()
		w.lose("nam")
		time.Sleep(5 * time.Second)
		stop()
		w.want(id, "H29", envelope.InQueue, "trung")
		w.wantHolders(id, "nam")
		w.fails, crashed = nil, false
		stop = w.run()
		time.Sleep(5 * time.Second)
		stop()
		w.wantHolders(id)
		w.want(id, "H29", envelope.InQueue, "trung")
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, toNam)
		w.fails = func(fact string, _ envelope.ID) error {
			if fact == "reroute" {
				return errors.New("the disk is full")
			}
			return nil
		}
		stop := w.run()
		w.lose("nam")
		time.Sleep(5 * time.Second)
		w.want(id, "H29", envelope.Elsewhere, "nam")
		w.wantHolders(id, "nam")
		w.edit(func() { w.fails = nil })
		time.Sleep(15 * time.Second)
		stop()
		w.want(id, "H29", envelope.InQueue, "trung")
	})
}

// A recipient whom the directory does not have just now is not lost sight of.
func TestLostHolderOfAnUnknownRecipient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, func(r *envelope.Record) {
			r.Deliveries = []envelope.Delivery{at("H99", envelope.Elsewhere, "nam"), at("H29", envelope.Elsewhere, "nam")}
			r.Holders = []routing.RelayID{"nam"}
		})
		stop := w.run()
		defer stop()
		w.lose("nam")
		time.Sleep(2 * time.Second)
		w.want(id, "H29", envelope.InQueue, "trung")
		w.want(id, "H99", envelope.Elsewhere, "nam")
		w.wantHolders(id, "nam")
		w.agency("H99", "tay", "trung")
		time.Sleep(3 * time.Second)
		w.want(id, "H99", envelope.InQueue, "tay")
		w.wantHolders(id)
	})
}

// A relay that is missing in the directory is gone after a while, not at once: a
// directory that is being restored lacks it for a moment.
func TestAbsentHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, func(r *envelope.Record) {
			r.Deliveries = []envelope.Delivery{at("G22", envelope.Elsewhere, "dong")}
			r.Holders = []routing.RelayID{"dong"}
		})
		stop := w.run()
		defer stop()
		time.Sleep(50 * time.Second)
		w.want(id, "G22", envelope.Elsewhere, "dong")
		w.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
			Relay: &directoryv1.Relay{Id: "dong", Region: "dong", Address: "dong:7400"}}}})
		w.others.up("dong", id, says(stands("G22", inbox)))
		time.Sleep(3 * time.Minute)
		w.want(id, "G22", envelope.Elsewhere, "dong")
		w.change(&directoryv1.Command{Change: &directoryv1.Command_RemoveRelay{RemoveRelay: &directoryv1.RemoveRelay{RelayId: "dong"}}})
		time.Sleep(80 * time.Second)
		w.want(id, "G22", envelope.InQueue, "trung")
	})
}

// keptFor is a copy that this relay keeps for an envelope accepted at nam.
func keptFor(codes ...routing.AgencyCode) func(*envelope.Record) {
	return func(r *envelope.Record) {
		r.FromSender, r.Ingress = false, "nam"
		for _, code := range codes {
			r.Deliveries = append(r.Deliveries, at(code, envelope.Kept, ""))
		}
	}
}

// Where the ingress is lost, copies kept become deliveries, and what waits here
// is remembered.
func TestLostIngress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, keptFor("H26", "H29", "G22"))
		waiting := w.put(2, func(r *envelope.Record) {
			r.FromSender, r.Ingress = false, "nam"
			r.Deliveries = []envelope.Delivery{at("H26", envelope.InInbox, "bac")}
		})
		report := w.put(3, func(r *envelope.Record) {
			r.FromSender, r.Ingress, r.Report = false, "nam", true
			r.Deliveries = []envelope.Delivery{at("H26", envelope.InQueue, "tay")}
		})
		stop := w.run()
		defer stop()
		w.lose("nam")
		time.Sleep(3 * time.Second)
		w.want(id, "H26", envelope.InInbox, "bac")
		w.want(id, "H29", envelope.InQueue, "trung")
		w.want(id, "G22", envelope.InQueue, "trung")
		for _, id := range []envelope.ID{id, waiting} {
			if r, _ := w.Record(id); !r.FromSender || r.Ingress != "bac" {
				t.Errorf("%s: its ingress is still %s", id, r.Ingress)
			}
		}
		if r, _ := w.Record(report); r.FromSender {
			t.Error("a report was taken over")
		}
		// And the second copy of what only this relay has is made again.
		var copied bool
		for _, c := range w.copies() {
			copied = copied || c.ID == waiting
		}
		if !copied {
			t.Error("no second copy of what was taken over")
		}
	})
}

// A relay that was given up itself takes nothing over.
func TestLostRelayTakesNothingOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, keptFor("H29"))
		stop := w.run()
		defer stop()
		w.lose("bac")
		w.lose("nam")
		time.Sleep(30 * time.Second)
		w.want(id, "H29", envelope.Kept, "")
	})
}

// What the ingress says of copies kept for it.
func TestReviewOfCopies(t *testing.T) {
	ingress := func(a *relayv1.ReconcileAnswer) *relayv1.ReconcileAnswer { a.Ingress = true; return a }
	for _, c := range []struct {
		name   string
		answer *relayv1.ReconcileAnswer
		silent bool
		place  envelope.Place
		home   routing.RelayID
		how    exchangev1.TransportStatus
	}{
		{name: "delivered", answer: ingress(says(ended("H29", done, 0))), place: envelope.Settled, how: done},
		{name: "expired", answer: ingress(says(ended("H29", fail, expired))), place: envelope.Settled, how: fail},
		{name: "still on its way", answer: ingress(says(stands("H29", away))), place: envelope.Kept},
		{name: "still at the ingress", answer: ingress(says(stands("H29", queue))), place: envelope.Kept},
		{name: "ingress lost its disk", place: envelope.InQueue, home: "nam"},
		{name: "ingress lost its disk and got it again", answer: says(stands("H29", inbox)), place: envelope.InQueue, home: "nam"},
		{name: "ingress is silent", silent: true, place: envelope.Kept},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				id := w.put(1, keptFor("H29"))
				if !c.silent {
					w.others.up("nam", id, c.answer)
				}
				stop := w.run()
				time.Sleep(25 * time.Second)
				stop()
				w.want(id, "H29", c.place, c.home)
				if r, _ := w.Record(id); r.Deliveries[0].Transport != c.how {
					t.Errorf("got %v, want %v", r.Deliveries[0].Transport, c.how)
				}
				if len(w.reports) > 0 {
					t.Error("the end of a copy was reported")
				}
			})
		})
	}
}

// What waits here for an ingress that lost its disk is remembered here, if not
// at once.
func TestIngressForgotWhatWaitsHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, func(r *envelope.Record) {
			r.FromSender, r.Ingress = false, "nam"
			r.Deliveries = []envelope.Delivery{at("H26", envelope.InInbox, "bac")}
		})
		w.others.up("nam", id, nil)
		stop := w.run()
		time.Sleep(3 * time.Minute)
		stop()
		if r, _ := w.Record(id); !r.FromSender {
			t.Error("nobody remembers it")
		}
		w.want(id, "H26", envelope.InInbox, "bac")
	})
}
