package keeper_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

const (
	nowhere = relayv1.Place_PLACE_UNSPECIFIED
	inbox   = relayv1.Place_PLACE_INBOX
	queue   = relayv1.Place_PLACE_QUEUE
	away    = relayv1.Place_PLACE_ELSEWHERE
	kept    = relayv1.Place_PLACE_KEPT
)

// What follows from what a holder, and the home, say of one delivery to H29,
// which has its home at nam.
func TestReview(t *testing.T) {
	type relays = map[routing.RelayID]*relayv1.ReconcileAnswer
	nothing := &relayv1.ReconcileAnswer{} // it answers, and does not know the envelope
	for _, c := range []struct {
		name    string
		home    routing.RelayID // where the delivery is believed to be
		holders []routing.RelayID
		old     bool // it went there long ago
		says    relays
		place   envelope.Place
		at      routing.RelayID
		left    []routing.RelayID
	}{
		{
			name: "it waits at its home", home: "nam", holders: []routing.RelayID{"nam"},
			says: relays{"nam": says(stands("H29", inbox))}, place: envelope.Elsewhere, at: "nam", left: []routing.RelayID{"nam"},
		},
		{
			name: "it waits on the way", home: "nam", holders: []routing.RelayID{"tay"}, old: true,
			says: relays{"tay": says(stands("H29", queue)), "nam": nothing}, place: envelope.Elsewhere, at: "nam", left: []routing.RelayID{"tay"},
		},
		{
			name: "the report was lost", home: "nam", holders: []routing.RelayID{"nam"},
			says: relays{"nam": without(ended("H29", done, 0))}, place: envelope.Settled, at: "nam",
		},
		{
			name: "the home lost its disk", home: "nam", holders: []routing.RelayID{"nam"},
			says: relays{"nam": nothing}, place: envelope.InQueue, at: "nam",
		},
		{
			name: "the home knows nothing of this recipient", home: "nam", holders: []routing.RelayID{"nam"},
			says: relays{"nam": says()}, place: envelope.InQueue, at: "nam", left: []routing.RelayID{"nam"},
		},
		{
			name: "the home only kept a copy", home: "nam", holders: []routing.RelayID{"nam"},
			says: relays{"nam": says(stands("H29", kept))}, place: envelope.InQueue, at: "nam", left: []routing.RelayID{"nam"},
		},
		{
			name: "a former home lost its disk", home: "tay", holders: []routing.RelayID{"tay"},
			says: relays{"tay": nothing}, place: envelope.InQueue, at: "nam",
		},
		{
			name: "handed on to the home", home: "nam", holders: []routing.RelayID{"tay"},
			says:  relays{"tay": without(stands("H29", away)), "nam": says(stands("H29", inbox))},
			place: envelope.Elsewhere, at: "nam", left: []routing.RelayID{"nam"},
		},
		{
			name: "handed on to the home, and delivered there", home: "nam", holders: []routing.RelayID{"tay"},
			says:  relays{"tay": without(stands("H29", away)), "nam": without(ended("H29", done, 0))},
			place: envelope.Settled, at: "nam",
		},
		{
			name: "the recipient moved", home: "tay", holders: []routing.RelayID{"tay"},
			says:  relays{"tay": without(stands("H29", away)), "nam": says(stands("H29", inbox))},
			place: envelope.Elsewhere, at: "nam", left: []routing.RelayID{"nam"},
		},
		{
			name: "handed on just now and not there yet", home: "nam", holders: []routing.RelayID{"tay"},
			says:  relays{"tay": without(stands("H29", away)), "nam": nothing},
			place: envelope.Elsewhere, at: "nam", left: []routing.RelayID{"tay"},
		},
		{
			name: "handed on long ago and not there", home: "nam", holders: []routing.RelayID{"tay"}, old: true,
			says:  relays{"tay": without(stands("H29", away)), "nam": nothing},
			place: envelope.InQueue, at: "nam",
		},
		{
			name: "handed on long ago to a home that is silent", home: "nam", holders: []routing.RelayID{"tay"}, old: true,
			says:  relays{"tay": without(stands("H29", away))},
			place: envelope.Elsewhere, at: "nam", left: []routing.RelayID{"tay"},
		},
		{
			name: "the relay on the way lost its disk", home: "nam", holders: []routing.RelayID{"tay"},
			says: relays{"tay": nothing}, place: envelope.InQueue, at: "nam",
		},
		{
			name: "the relay on the way became home", home: "tay", holders: []routing.RelayID{"nam"},
			says: relays{"nam": says(stands("H29", inbox))}, place: envelope.Elsewhere, at: "nam", left: []routing.RelayID{"nam"},
		},
		{
			name: "passed on by its home and come back", home: "nam", holders: []routing.RelayID{"nam"}, old: true,
			says: relays{"nam": without(stands("H29", away))}, place: envelope.InQueue, at: "nam",
		},
		{
			name: "given up by its home", home: "nam", holders: []routing.RelayID{"nam"},
			says:  relays{"nam": without(ended("H29", fail, exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED))},
			place: envelope.Settled, at: "nam",
		},
		{
			name: "a relay that never was home says that it was confirmed", home: "nam", holders: []routing.RelayID{"tay"},
			says:  relays{"tay": says(ended("H29", done, 0)), "nam": nothing},
			place: envelope.Elsewhere, at: "nam", left: []routing.RelayID{"tay"},
		},
		{
			name: "the same, long ago", home: "nam", holders: []routing.RelayID{"tay"}, old: true,
			says:  relays{"tay": says(ended("H29", done, 0)), "nam": nothing},
			place: envelope.InQueue, at: "nam", left: []routing.RelayID{"tay"},
		},
		{
			name: "everybody is silent", home: "nam", holders: []routing.RelayID{"nam"}, old: true,
			place: envelope.Elsewhere, at: "nam", left: []routing.RelayID{"nam"},
		},
		{
			name: "only a copy is known of what went by way of another", home: "nam", holders: []routing.RelayID{"trung"}, old: true,
			says:  relays{"trung": says(stands("H29", kept)), "nam": nothing},
			place: envelope.InQueue, at: "nam", left: []routing.RelayID{"trung"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				id := w.put(1, func(r *envelope.Record) {
					r.Deliveries, r.Holders = []envelope.Delivery{at("H29", envelope.Elsewhere, c.home)}, c.holders
					if c.old {
						r.AcceptedAt = r.AcceptedAt.Add(-2 * time.Minute)
					}
				})
				for relay, answer := range c.says {
					if answer == nothing {
						answer = nil
					}
					w.others.up(relay, id, answer)
				}
				stop := w.run()
				// Old ones are asked after now and then only.
				time.Sleep(50 * time.Second)
				if !c.old {
					stop()
				}
				if c.old {
					time.Sleep(10 * time.Minute)
					stop()
				}
				synctest.Wait()
				w.want(id, "H29", c.place, c.at)
				w.wantHolders(id, c.left...)
			})
		})
	}
}

// A second copy that its keeper lost is made again; deliveries are not touched.
func TestLostCopyIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, func(r *envelope.Record) {
			r.Deliveries = []envelope.Delivery{at("H26", envelope.InInbox, "bac")}
			r.Holders = []routing.RelayID{"trung"}
		})
		w.others.up("trung", id, nil)
		stop := w.run()
		time.Sleep(15 * time.Second)
		stop()
		w.wantHolders(id)
		w.want(id, "H26", envelope.InInbox, "bac")
		if got := w.copies(); len(got) == 0 || got[0].Relay != "trung" {
			t.Errorf("copies: got %v, want one at the standby again", got)
		}
	})
}

// What a relay says about something else than it was asked is not believed.
func TestAnswersThatDoNotFit(t *testing.T) {
	for name, spoil := range map[string]func(*relayv1.ReconcileResponse){
		"none":              func(r *relayv1.ReconcileResponse) { r.Answers = nil },
		"one too many":      func(r *relayv1.ReconcileResponse) { r.Answers = append(r.Answers, r.Answers[0]) },
		"another order":     func(r *relayv1.ReconcileResponse) { r.Answers[0], r.Answers[1] = r.Answers[1], r.Answers[0] },
		"another envelope":  func(r *relayv1.ReconcileResponse) { r.Answers[0].EnvelopeId = make([]byte, 16) },
		"another recipient": func(r *relayv1.ReconcileResponse) { r.Answers[0].Standings[0].AgencyCode = "H43" },
		"too many recipients": func(r *relayv1.ReconcileResponse) {
			r.Answers[1].Standings = append(r.Answers[1].Standings, stands("H43", inbox))
		},
		"no recipients": func(r *relayv1.ReconcileResponse) { r.Answers[0].Standings = nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var ids []envelope.ID
				for n := range 2 {
					id := w.put(n, func(r *envelope.Record) {
						r.Deliveries = []envelope.Delivery{at("H29", envelope.Elsewhere, "nam")}
						r.Holders = []routing.RelayID{"nam"}
					})
					ids = append(ids, id)
					w.others.up("nam", id, says(ended("H29", done, 0)))
				}
				w.others.spoils = spoil
				stop := w.run()
				time.Sleep(30 * time.Second)
				stop()
				for _, id := range ids {
					w.want(id, "H29", envelope.Elsewhere, "nam")
					w.wantHolders(id, "nam")
				}
			})
		})
	}
}

// How a delivery ended, and when, is what the home says.
func TestSettledAsTheHomeSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, func(r *envelope.Record) {
			r.Deliveries = []envelope.Delivery{at("H29", envelope.Elsewhere, "nam"), at("H43", envelope.Elsewhere, "nam")}
			r.Holders = []routing.RelayID{"nam"}
		})
		gone := ended("H43", fail, expired)
		gone.Delivery.Note = "too late"
		w.others.up("nam", id, without(ended("H29", done, 0), gone))
		stop := w.run()
		time.Sleep(15 * time.Second)
		stop()
		r, _ := w.Record(id)
		if d := r.Deliveries[0]; d.Transport != done || !d.UpdatedAt.Equal(endedAt) {
			t.Errorf("H29: got %v at %v", d.Transport, d.UpdatedAt)
		}
		if d := r.Deliveries[1]; d.Transport != fail || d.Reason != expired || d.Note != "too late" || !d.UpdatedAt.Equal(endedAt) {
			t.Errorf("H43: got %+v", d)
		}
		if len(w.reports) > 0 {
			t.Error("the ingress reports to itself")
		}
	})
}

// A silent relay costs one call per pass, and passes get rarer; asking for a
// review changes nothing. Once it is in reach again, it is asked soon.
func TestSilentRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		toNam := func(r *envelope.Record) {
			r.Deliveries = []envelope.Delivery{at("H29", envelope.Elsewhere, "nam")}
			r.Holders = []routing.RelayID{"nam"}
		}
		for n := range 700 {
			w.put(n, toNam)
		}
		w.setDown("nam", true)
		stop := w.run()
		defer stop()
		for range 600 {
			time.Sleep(time.Second)
			w.keeper.Review()
		}
		calls, _ := w.others.count("nam")
		if calls > 30 {
			t.Errorf("got %d calls in 10 minutes to a relay that is silent", calls)
		}
		if calls < 8 {
			t.Errorf("got %d calls in 10 minutes, it is given up", calls)
		}
		id := w.put(1000, toNam)
		w.others.up("nam", id, without(ended("H29", done, 0)))
		w.setDown("nam", false)
		time.Sleep(25 * time.Second)
		w.want(id, "H29", envelope.Settled, "nam")
	})
}

// Young envelopes are asked after in every pass, old ones rarely, each of them
// again and again.
func TestOldEnvelopesAreAskedAfterRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const n = 600
		for i := range n {
			w.put(i, func(r *envelope.Record) {
				r.AcceptedAt = r.AcceptedAt.Add(-48 * time.Hour)
				r.Deliveries = []envelope.Delivery{at("H29", envelope.Elsewhere, "nam")}
				r.Holders = []routing.RelayID{"nam"}
			})
			w.others.up("nam", idOf(i), says(stands("H29", inbox)))
		}
		stop := w.run()
		time.Sleep(10 * time.Minute)
		stop()
		calls, asked := w.others.count("nam")
		// A pass lasts 5 to 10 seconds, and takes one in 60.
		if calls < 50 || calls > 130 || asked > 130*n/60*2 || asked < 50*n/60/2 {
			t.Errorf("got %d envelopes asked after in %d calls", asked, calls)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, func(r *envelope.Record) {
			r.Deliveries = []envelope.Delivery{at("H29", envelope.Elsewhere, "nam")}
			r.Holders = []routing.RelayID{"nam"}
		})
		w.others.up("nam", id, says(stands("H29", inbox)))
		stop := w.run()
		time.Sleep(50 * time.Second)
		stop()
		if calls, asked := w.others.count("nam"); calls < 5 || asked != calls {
			t.Errorf("got %d envelopes asked after in %d calls, want it in every one", asked, calls)
		}
	})
}

// Review asks soon, and once for many wishes.
func TestReviewSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.put(1, func(r *envelope.Record) {
			r.Deliveries = []envelope.Delivery{at("H29", envelope.Elsewhere, "nam")}
			r.Holders = []routing.RelayID{"nam"}
		})
		w.others.up("nam", id, says(stands("H29", inbox)))
		stop := w.run()
		defer stop()
		time.Sleep(time.Millisecond)
		before, _ := w.others.count("nam")
		for range 100 {
			w.keeper.Review()
		}
		time.Sleep(1100 * time.Millisecond)
		if after, _ := w.others.count("nam"); after != before+1 {
			t.Errorf("got %d calls, want 1", after-before)
		}
		for range 50 {
			time.Sleep(100 * time.Millisecond)
			w.keeper.Review()
		}
		if after, _ := w.others.count("nam"); after > before+7 {
			t.Errorf("got %d calls in 6 seconds, want one a second at most", after-before)
		}
	})
}

// A circular to more recipients than one call may ask about.
func TestCircular(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const recipients = 12_000
		answer := without()
		id := w.put(1, func(r *envelope.Record) {
			r.Holders = []routing.RelayID{"nam"}
			for i := range recipients {
				code := routing.AgencyCode(fmt.Sprint("H29.", i))
				r.Deliveries = append(r.Deliveries, at(code, envelope.Elsewhere, "nam"))
				answer.Standings = append(answer.Standings, ended(string(code), done, 0))
			}
		})
		w.others.up("nam", id, answer)
		stop := w.run()
		time.Sleep(5 * time.Second)
		stop()
		if r, _ := w.Record(id); !settled(r) {
			t.Error("not all are settled")
		}
		if calls, _ := w.others.count("nam"); calls != 3 {
			t.Errorf("got %d calls, want 3 of at most 5,000 recipients", calls)
		}
	})
}
