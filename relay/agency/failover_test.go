package agency_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/agency/agencytest"
	"github.com/truclienthong/truc/relay/envelope"
)

const chunk = 512 << 10

// A relay that dies in the middle of a transfer and comes back with what it had
// is sent the rest only.
func TestSubmitGoesOnAtTheRelayThatCameBack(t *testing.T) {
	mesh := newMesh(t, bac)
	var restarted sync.WaitGroup
	fail := failOnce(agencytest.SubmitChunk, 5, cut())
	mesh.Fault(func(relay string, step agencytest.Step) error {
		err := fail(relay, step)
		if err != nil {
			restarted.Go(func() {
				mesh.Stop(relay)
				if err := mesh.Start(relay); err != nil {
					t.Error(err)
				}
			})
		}
		return err
	})
	submit(t, newClient(t, configOf(t, mesh, "G22")), "1", "H26", 6*chunk)
	restarted.Wait()
	if got := mesh.Count(agencytest.SubmitChunk); got != 7 {
		t.Errorf("%d chunks were sent, want 7: the first four must not travel again", got)
	}
}

func TestSubmitStartsAtAnotherRelayWhenTheNearestDies(t *testing.T) {
	mesh := newMesh(t, bac, trung)
	var stopped sync.WaitGroup
	var died string
	fail := failOnce(agencytest.SubmitChunk, 5, cut())
	mesh.Fault(func(relay string, step agencytest.Step) error {
		err := fail(relay, step)
		if err != nil {
			died = relay
			stopped.Go(func() { mesh.Lose(relay) })
		}
		return err
	})
	r := submit(t, newClient(t, configOf(t, mesh, "G22")), "1", "H26", 6*chunk)
	stopped.Wait()
	if r.Relay == died || mesh.Accepted() != 1 {
		t.Errorf("accepted by %s after %s died, %d in all", r.Relay, died, mesh.Accepted())
	}
	if a := receiveAll(t, newClient(t, configOf(t, mesh, "H26"))); len(a) != 1 {
		t.Errorf("%d arrivals, want one", len(a))
	}
}

// A line that is cut again and again, each time a little later, carries a large
// file to the relay that has its beginning: another one would begin anew, and a
// connector that waited ever longer would take minutes.
func TestSubmitStaysWithTheRelayThatHasItsBeginning(t *testing.T) {
	mesh := newMesh(t, bac, trung)
	const cuts = 8
	var mu sync.Mutex
	sent, asked := 0, map[string]bool{}
	mesh.Fault(func(relay string, step agencytest.Step) error {
		mu.Lock()
		defer mu.Unlock()
		if step == agencytest.SubmitStart {
			asked[relay] = true
		}
		if step != agencytest.SubmitChunk {
			return nil
		}
		if sent++; sent%3 == 0 && sent <= 3*cuts {
			return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT, "cut")
		}
		return nil
	})
	config := configOf(t, mesh, "G22")
	r := submit(t, newClient(t, config), "1", "H26", 30*chunk)
	if len(asked) != 1 {
		t.Errorf("asked %v, accepted by %s", asked, r.Relay)
	}
	if got := mesh.Count(agencytest.SubmitStart); got != cuts+1 {
		t.Errorf("%d attempts, want %d", got, cuts+1)
	}
}

// When the relay that answers refuses and the others are silent, the error says
// both: why nothing was accepted, and that nobody else could be asked.
func TestSubmitNamesTheRefusalBesideTheSilence(t *testing.T) {
	for name, bounded := range map[string]bool{"patience ends": false, "the caller's time ends": true} {
		t.Run(name, func(t *testing.T) {
			mesh := newMesh(t, bac, trung)
			mesh.Stop("trung")
			mesh.Fault(func(_ string, step agencytest.Step) error {
				if step != agencytest.SubmitStart {
					return nil
				}
				return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DISK_FULL, "no room")
			})
			config := configOf(t, mesh, "G22")
			config.Patience = 700 * time.Millisecond
			ctx := testContext(t)
			if bounded {
				config.Patience = time.Hour
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 700*time.Millisecond)
				defer cancel()
			}
			_, err := newClient(t, config).Submit(ctx, agency.Document{Header: header("1", "H26"), Parts: files(t, 10)})
			if refusal, ok := envelope.AsRefusal(err); !ok || refusal.Reason != exchangev1.ErrorReason_ERROR_REASON_DISK_FULL {
				t.Errorf("got %v, want what the relay said in it", err)
			}
			if bounded != errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, which tells the end of the caller's time: %t", err, !bounded)
			}
		})
	}
}

// The patience with a transfer begins when the line breaks, not when the
// transfer began.
func TestSubmitHasPatienceAfterALongTransfer(t *testing.T) {
	mesh := newMesh(t, bac)
	config := configOf(t, mesh, "G22")
	config.Patience = time.Second
	fail := failOnce(agencytest.SubmitChunk, 6, cut())
	began := time.Now()
	mesh.Fault(func(relay string, step agencytest.Step) error {
		if n := mesh.Count(agencytest.SubmitChunk); step == agencytest.SubmitChunk && n <= 5 {
			<-time.After(time.Duration(n)*300*time.Millisecond - time.Since(began))
		}
		return fail(relay, step)
	})
	r := submit(t, newClient(t, config), "1", "H26", 6*chunk)
	if took := time.Since(began); took < config.Patience || r.Repeat {
		t.Errorf("took %s, repeat %v: the test was too fast to test anything", took, r.Repeat)
	}
}

// What a relay asks for is obeyed, but not waited for beyond the patience.
func TestSubmitWaitsNoLongerThanItsPatience(t *testing.T) {
	for name, reason := range map[string]exchangev1.ErrorReason{
		"the relay's trouble":  exchangev1.ErrorReason_ERROR_REASON_DISK_FULL,
		"the caller's trouble": exchangev1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED,
	} {
		mesh := newMesh(t, bac)
		mesh.Fault(func(_ string, step agencytest.Step) error {
			if step != agencytest.SubmitStart {
				return nil
			}
			r := envelope.Refuse(reason, "later")
			r.RetryAfter = time.Hour
			return r
		})
		config := configOf(t, mesh, "G22")
		config.Patience = 200 * time.Millisecond
		_, err := newClient(t, config).Submit(testContext(t), agency.Document{Header: header("1", "H26"), Parts: files(t, 10)})
		if refusal, ok := envelope.AsRefusal(err); !ok || refusal.Reason != reason || refusal.RetryAfter != time.Hour {
			t.Errorf("%s: got %v, want what the relay said", name, err)
		}
		if n := mesh.Count(agencytest.SubmitStart); n != 1 {
			t.Errorf("%s: asked %d times within the hour, want once", name, n)
		}
	}
}

func TestSubmitMovesOnFromARelayThatTakesNothing(t *testing.T) {
	for name, reason := range map[string]exchangev1.ErrorReason{
		"disk full":   exchangev1.ErrorReason_ERROR_REASON_DISK_FULL,
		"not serving": exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING,
	} {
		mesh := newMesh(t, bac, trung)
		var full string
		mesh.Fault(func(relay string, step agencytest.Step) error {
			if step != agencytest.SubmitStart || full != "" && relay != full {
				return nil
			}
			full = relay
			r := envelope.Refuse(reason, "no")
			r.RetryAfter = time.Hour
			return r
		})
		if r := submit(t, newClient(t, configOf(t, mesh, "G22")), "1", "H26", 10); r.Relay == full || mesh.Count(agencytest.SubmitStart) != 2 {
			t.Errorf("%s: %s refused, accepted by %s after %d tries", name, full, r.Relay, mesh.Count(agencytest.SubmitStart))
		}
	}
}

// While the home relay is out of reach the inbox is asked for again soon, at
// every relay, however long it has been: the directory moves the home at any
// moment.
func TestReceiveIsReadyWhenTheHomeMoved(t *testing.T) {
	mesh := newMesh(t, bac, trung)
	submit(t, newClient(t, configOf(t, mesh, "G22")), "1", "H26", 10)
	var mu sync.Mutex
	var asked []string
	mesh.Fault(func(relay string, step agencytest.Step) error {
		mu.Lock()
		defer mu.Unlock()
		if step != agencytest.Receive {
			return nil
		}
		if asked = append(asked, relay); len(asked) > 12 {
			return nil
		}
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE, "home relay nam cannot be reached just now")
	})
	config := configOf(t, mesh, "H26").Backoff(time.Hour, 5*time.Millisecond)
	for _, err := range newClient(t, config).Receive(testContext(t), agency.ReceiveOptions{}) {
		if err != nil {
			t.Fatalf("after %d tries: %v", len(asked), err)
		}
		break
	}
	if !slices.Contains(asked, "bac") || !slices.Contains(asked, "trung") {
		t.Errorf("asked %v, want both relays: one may have a way where the other has none", asked)
	}
}

// Where all relays of the home region are lost, those of other regions serve
// whom no profile named them to.
func TestClientGoesAbroadInBadTimes(t *testing.T) {
	mesh := newMesh(t, bac, nam)
	client := newClient(t, configOf(t, mesh, "G22", "bac"))
	abroad := 0
	mesh.Fault(func(relay string, _ agencytest.Step) error {
		if relay == "nam" {
			abroad++
		}
		return nil
	})
	submit(t, client, "1", "H26", 10)
	if abroad != 0 {
		t.Errorf("nam was called %d times while bac was well", abroad)
	}
	mesh.Stop("bac")
	if r := submit(t, client, "2", "H26", 10); r.Relay != "nam" {
		t.Errorf("submitted at %s, want nam", r.Relay)
	}
}

// A relay that is lost after its receipt takes along what it alone had.
func TestAReceiptOfOneCopyCanBeLost(t *testing.T) {
	mesh := newMesh(t, bac, trung)
	client := newClient(t, configOf(t, mesh, "G22"))
	mesh.Copies(1)
	lost := mesh.LoseAfterReceipt("bac")
	mesh.Stop("trung")
	r := submit(t, client, "1", "H26", 10)
	<-lost
	if err := mesh.Start("trung"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Track(testContext(t), r.ID); r.Copies != 1 || mesh.Accepted() != 0 || err == nil {
		t.Errorf("copies %d, %d accepted, track: %v; want nothing left", r.Copies, mesh.Accepted(), err)
	}
	again := submit(t, client, "1", "H26", 10)
	if again.ID != r.ID || again.Relay != "trung" || again.Repeat {
		t.Errorf("again: %+v, want the same envelope at trung", again)
	}
	mesh.Copy(again.ID)
	tracked, err := client.Track(testContext(t), again.ID)
	if err != nil || tracked.GetReceipt().GetCopies() != 2 {
		t.Errorf("after the copy: %v, %v", tracked.GetReceipt(), err)
	}
}
