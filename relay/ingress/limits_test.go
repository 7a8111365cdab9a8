package ingress_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ingress"
	"github.com/truclienthong/truc/routing"
)

const (
	rateLimited   = exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED
	quotaExceeded = exchangev1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED
)

// limited checks a refusal because of a limit: what it says to programs.
func limited(t *testing.T, what string, err error, reason exchangev1.ErrorReason, quota string) {
	t.Helper()
	r, ok := envelope.AsRefusal(err)
	if !ok || r.Reason != reason || status.Code(err) != codes.ResourceExhausted || !envelope.Temporary(err) {
		t.Errorf("%s: got %v, want RESOURCE_EXHAUSTED, %s, temporary", what, err, reason)
		return
	}
	if r.Quota != quota || r.RetryAfter <= 0 {
		t.Errorf("%s: quota %q, retry after %s; want quota %q and a hint", what, r.Quota, r.RetryAfter, quota)
	}
}

// An agency that hurries is slowed down, and only that one.
func TestRatePerAgency(t *testing.T) {
	m := newMesh(t, ingress.Limits{Rate: 2, Burst: 3})
	send := func(id string) error {
		_, err := m.send("bac", "agency/G22", document("G22", id, nil, "H26"))
		return err
	}
	for i := range 3 {
		if err := send(fmt.Sprint(i)); err != nil {
			t.Fatalf("within the burst: %v", err)
		}
	}
	limited(t, "after the burst", send("3"), rateLimited, "submits per agency")
	m.mustSend("bac", "gateway/sss", document("G09", "1", nil, "H26"))
	m.clock.advance(500 * time.Millisecond)
	if err := send("3"); err != nil {
		t.Errorf("half a second later: %v", err)
	}
	limited(t, "and one more", send("4"), rateLimited, "submits per agency")
}

// What an agency leaves here is bounded; what it handed over before keeps its
// receipt, and other agencies do not notice.
func TestQuotaPerAgency(t *testing.T) {
	content := strings.Repeat("x", 600)
	for _, test := range []struct {
		name   string
		limits ingress.Limits
		quota  string
	}{
		{"bytes", ingress.Limits{Quota: 1000}, "bytes per agency"},
		{"envelopes", ingress.Limits{QuotaEnvelopes: 1}, "envelopes per agency"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMesh(t, test.limits)
			one, two := document("G22", "1", []string{content}, "H26"), document("G22", "2", []string{content}, "H26")
			first := m.mustSend("bac", "agency/G22", one, content)
			_, err := m.send("bac", "agency/G22", two, content)
			limited(t, "second document", err, quotaExceeded, test.quota)
			if again := m.mustSend("bac", "agency/G22", one, content); !again.GetRepeat() ||
				!again.GetReceipt().GetAcceptedAt().AsTime().Equal(first.GetReceipt().GetAcceptedAt().AsTime()) {
				t.Errorf("repeat: got %v, want the original receipt", again)
			}
			m.mustSend("bac", "gateway/sss", document("G09", "1", []string{content}, "H26"), content)
			m.relays["bac"].spool.end(envelope.ID(first.GetReceipt().GetEnvelopeId()))
			m.mustSend("bac", "agency/G22", two, content)
		})
	}
}

// Documents that are being handed over count, so that many at once do not go
// beyond the quota together; one that is given up counts no more.
func TestQuotaCountsOpenSubmits(t *testing.T) {
	content := strings.Repeat("x", 600)
	m := newMesh(t, ingress.Limits{Quota: 1000})
	one, two := document("G22", "1", []string{content}, "H26"), document("G22", "2", []string{content}, "H26")
	_, err := m.sendMessages("bac", "agency/G22", startOf(one), func(*exchangev1.SubmitResume) []*exchangev1.SubmitRequest {
		_, err := m.send("bac", "agency/G22", two, content)
		limited(t, "while another is under way", err, quotaExceeded, "bytes per agency")
		return []*exchangev1.SubmitRequest{chunk(0, 0, content[:100])}
	})
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT) {
		t.Fatalf("first: %v", err)
	}
	m.mustSend("bac", "agency/G22", two, content)
}

// A destination where nothing moves fills its own queue and inbox, and not the
// disk.
func TestFullQueueAndInbox(t *testing.T) {
	m := newDirectory(t)
	m.adjust = func(c *ingress.Config) {
		c.Queued = func(relay routing.RelayID) int64 { return map[routing.RelayID]int64{"nam": 10}[relay] }
	}
	m.start("bac", ingress.Limits{Queue: 10, Inbox: 1})
	first := document("G22", "1", nil, "H26")
	m.mustSend("bac", "agency/G22", first)
	for _, test := range []struct{ name, to, quota string }{
		{"queue", "H29", "queue of relay nam"}, {"inbox", "H26", "inbox of H26"},
	} {
		_, err := m.send("bac", "agency/G22", document("G22", test.name, nil, "G09", test.to))
		limited(t, test.name, err, rateLimited, test.quota)
	}
	m.mustSend("bac", "agency/G22", document("G22", "3", nil, "G09"))
	if again := m.mustSend("bac", "agency/G22", first); !again.GetRepeat() {
		t.Errorf("repeat: got %v", again)
	}
	if err := m.relays["bac"].service.InboxRoom([]routing.AgencyCode{"G22", "H26"}); !has(err, rateLimited) {
		t.Errorf("for other relays: got %v, want RATE_LIMITED", err)
	}
	if err := m.relays["bac"].service.InboxRoom([]routing.AgencyCode{"G22"}); err != nil {
		t.Errorf("an inbox with room: %v", err)
	}
}

func TestNoLimits(t *testing.T) {
	m := newMesh(t, ingress.Limits{Rate: -1, Quota: -1, QuotaEnvelopes: -1, Queue: -1, Inbox: -1})
	for i := range 20 {
		m.mustSend("bac", "agency/G22", document("G22", fmt.Sprint(i), nil, "H26", "H29"))
	}
}

// A large document of an agency takes its time, and a small one beside it only
// a little longer.
func TestByteRatePerAgency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const MiB = 1 << 20
		m := newMeshWithoutNetwork(t, func(c *ingress.Config) { c.Limits.ByteRate = MiB })
		content := strings.Repeat("x", 6*MiB)
		messages := []*exchangev1.SubmitRequest{startOf(document("G22", "1", []string{content}, "H26"))}
		for i := range 6 {
			messages = append(messages, chunk(0, uint64(i*MiB), content[i*MiB:(i+1)*MiB]))
		}
		large := m.begin(t.Context(), append(messages, commit())...)
		time.Sleep(1500 * time.Millisecond)
		_, beside := m.begin(t.Context(), startOf(document("G22", "2", []string{"x"}, "H26")), chunk(0, 0, "x"), commit()).answer(t)
		if beside > 2*time.Second {
			t.Errorf("a small document beside it took %s", beside)
		}
		if _, took := large.answer(t); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("6 MiB at 1 MiB/s after a burst of 1 MiB took %s", took)
		}
	})
}

// Whoever sends far more at once than its rate allows is refused, and resumes.
func TestByteRateRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const MiB = 1 << 20
		m := newMeshWithoutNetwork(t, func(c *ingress.Config) { c.Limits.ByteRate = 64 << 10 }) // 16 s each
		content := strings.Repeat("x", MiB)
		var under []*submitting
		for i := range 3 {
			under = append(under, m.begin(t.Context(), startOf(document("G22", fmt.Sprint(i), []string{content}, "H26")), chunk(0, 0, content), commit()))
			synctest.Wait()
		}
		under[0].answer(t)
		for _, s := range under[1:] {
			limited(t, "beside it", <-s.ended, rateLimited, "bytes per agency")
		}
	})
}

// Who opens a submit and says nothing is let go, and holds nothing afterwards.
func TestIdleSubmitIsCut(t *testing.T) {
	content := strings.Repeat("x", 5000)
	one := startOf(document("G22", "1", []string{content}, "H26"))
	for _, test := range []struct {
		name     string
		messages []*exchangev1.SubmitRequest
		pause    time.Duration // before one more chunk
		took     time.Duration
	}{
		{"after start", []*exchangev1.SubmitRequest{one}, 0, time.Minute},
		{"in the middle", []*exchangev1.SubmitRequest{one, chunk(0, 0, content[:10])}, 50 * time.Second, 110 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMeshWithoutNetwork(t, func(c *ingress.Config) { c.Limits.RoomPerCaller = 8000 })
				s := m.begin(t.Context(), test.messages...)
				if test.pause > 0 {
					time.Sleep(test.pause)
					s.in <- chunk(0, 10, content[10:20])
				}
				err := <-s.ended
				if took := time.Since(s.began); !has(err, exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT) || took != test.took {
					t.Errorf("after %s: got %v, want STREAM_CUT after %s", took, err, test.took)
				}
				m.begin(t.Context(), startOf(document("G22", "2", []string{content}, "H26")), chunk(0, 0, content), commit()).answer(t)
			})
		})
	}
	t.Run("before start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newMeshWithoutNetwork(t)
			s := &fakeSubmit{ctx: t.Context(), in: make(chan *exchangev1.SubmitRequest), gone: make(chan struct{})}
			defer close(s.gone)
			if err := m.relays["bac"].service.Submit(s); !has(err, exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT) {
				t.Errorf("got %v, want STREAM_CUT", err)
			}
		})
	})
}

// A pause because of the rate ends with the relay.
func TestPacedSubmitEndsWithTheRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ending, end := context.WithCancel(t.Context())
		m := newMeshWithoutNetwork(t, func(c *ingress.Config) { c.Limits.ByteRate, c.Ending = 128<<10, ending.Done() })
		content := strings.Repeat("x", 2<<20)
		s := m.begin(t.Context(), startOf(document("G22", "1", []string{content}, "H26")),
			chunk(0, 0, content[:1<<20]), chunk(0, 1<<20, content[1<<20:]), commit())
		s.pending(t)
		end()
		if err := <-s.ended; !has(err, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING) {
			t.Errorf("got %v, want NOT_SERVING", err)
		}
	})
}

// A relay that takes no envelopes answers repeats all the same: their sender has
// no other way to know.
func TestRepeatAtRelayThatDoesNotAccept(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	h := document("G22", "1", nil, "H26")
	m.mustSend("bac", "agency/G22", h)
	m.relays["bac"].accepting = envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DISK_FULL, "full")
	if again := m.mustSend("bac", "agency/G22", h); !again.GetRepeat() {
		t.Errorf("got %v, want a repeat", again)
	}
	if _, err := m.send("bac", "agency/G22", document("G22", "2", nil, "H26")); !has(err, exchangev1.ErrorReason_ERROR_REASON_DISK_FULL) {
		t.Errorf("a new one: got %v, want DISK_FULL", err)
	}
}
