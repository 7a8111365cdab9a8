package spool_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

func wantReason(t *testing.T, err error, want exchangev1.ErrorReason) {
	t.Helper()
	var r *envelope.Refusal
	if !errors.As(err, &r) || r.Reason != want {
		t.Errorf("got %v, want a refusal with %s", err, want)
	}
}

func (n *node) begin(p *parcel) *spool.Incoming {
	n.t.Helper()
	in, err := n.Begin(context.Background(), &p.Custody)
	if err != nil {
		n.t.Fatal(err)
	}
	return in
}

func TestResume(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	p := newParcel(1, 3<<20, 1<<20).inbox("A")
	ctx := context.Background()
	at := uint64(0)
	// Cut after a while, again and again, also by restarts.
	for round := 0; ; round++ {
		in := n.begin(p)
		offsets := in.Offsets()
		if offsets[0] < at || offsets[0] > at+uint64(len(p.content[0])) {
			t.Fatalf("round %d resumes at %d, want %d or more", round, offsets[0], at)
		}
		at = offsets[0]
		end := min(int(at)+600<<10, len(p.content[0]))
		if err := in.Write(ctx, 0, at, p.content[0][at:end]); err != nil {
			t.Fatal(err)
		}
		if end == len(p.content[0]) {
			if err := write(in, p, 100_000); err != nil {
				t.Fatal(err)
			}
			if _, err := in.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			in.Close()
			break
		}
		in.Close()
		if round%2 == 0 {
			n.end()
			check(t, cfg)
			n = start(t, cfg)
		}
	}
	n.wantContent(p)
	n.end()
	check(t, cfg)
}

func TestALaterWriterTakesOver(t *testing.T) {
	n := start(t, config(t))
	p := newParcel(1, 1<<20).inbox("A")
	first := n.begin(p)
	if err := first.Write(context.Background(), 0, 0, p.content[0][:300<<10]); err != nil {
		t.Fatal(err)
	}
	second := n.begin(p)
	defer second.Close()
	cut := exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT
	wantReason(t, first.Write(context.Background(), 0, 300<<10, []byte{1}), cut)
	_, err := first.Commit(context.Background())
	wantReason(t, err, cut)
	first.Close() // does not end the second
	if got := second.Offsets(); got[0] != 300<<10 {
		t.Errorf("the second goes on at %d, want %d", got[0], 300<<10)
	}
	if err := write(second, p, 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	n.wantContent(p)
}

func TestWhatIsNotWhatTheHeaderSaysIsRefused(t *testing.T) {
	const (
		invalid = exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
		size    = exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH
		hash    = exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH
		large   = exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE
		many    = exchangev1.ErrorReason_ERROR_REASON_TOO_MANY_RECIPIENTS
	)
	cfg := config(t)
	n := start(t, cfg)
	ctx := context.Background()
	for _, length := range []int{1000, 600 << 10} {
		p := newParcel(uint64(length), length).inbox("A")
		in := n.begin(p)
		wantReason(t, in.Write(ctx, 0, 1, []byte{1}), invalid)
		wantReason(t, in.Write(ctx, 1, 0, []byte{1}), invalid)
		wantReason(t, in.Write(ctx, -1, 0, []byte{1}), invalid)
		wantReason(t, in.Write(ctx, 0, 0, make([]byte, length+1)), size)
		_, err := in.Commit(ctx)
		wantReason(t, err, size)
		wrong := slices.Clone(p.content[0])
		wrong[length/2] ^= 1
		if err := in.Write(ctx, 0, 0, wrong); err != nil {
			t.Fatal(err)
		}
		_, err = in.Commit(ctx)
		wantReason(t, err, hash)
		in.Close()
		// The next try starts anew, and is taken.
		in = n.begin(p)
		if got := in.Offsets(); got[0] != 0 {
			t.Errorf("after wrong content, %d bytes are kept, want 0", got[0])
		}
		in.Close()
		n.mustPut(p)
	}
	for name, c := range map[string]struct {
		p    *parcel
		want exchangev1.ErrorReason
	}{
		"recipient twice":      {newParcel(7).inbox("A", "A"), invalid},
		"recipient two ways":   {newParcel(7).inbox("A").onward("nam", "A"), invalid},
		"recipient empty":      {newParcel(7).inbox(""), invalid},
		"destination twice":    {newParcel(7).onward("nam", "A").onward("nam", "B"), invalid},
		"destination itself":   {newParcel(7).onward(self, "A"), invalid},
		"no such lane":         {&parcel{Custody: envelope.Custody{ID: envelope.ID{1}, Lane: 5}}, invalid},
		"no id":                {&parcel{}, invalid},
		"header too large":     {&parcel{Custody: envelope.Custody{ID: envelope.ID{1}, Header: make([]byte, 3<<20)}}, large},
		"content too large":    {&parcel{Custody: envelope.Custody{ID: envelope.ID{1}, Parts: []envelope.PartSum{{Size: 1 << 40}}}}, large},
		"too many for a relay": {crowd(newParcel(7), 20_001), many},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := n.Begin(ctx, &c.p.Custody)
			wantReason(t, err, c.want)
		})
	}
	n.end()
	check(t, cfg)
}

func crowd(p *parcel, size int) *parcel {
	for i := range size {
		p.inbox(routing.AgencyCode(fmt.Sprintf("H%02d.%05d", i%63, i)))
	}
	return p
}

func TestADocumentIDIsForOneEnvelope(t *testing.T) {
	reused := exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED
	n := start(t, config(t))
	p := newParcel(1, 100).fromSender().inbox("A")
	n.mustPut(p)
	other := newParcel(2, 100).fromSender().inbox("A")
	other.DocumentID = p.DocumentID
	_, err := n.put(other)
	wantReason(t, err, reused)
	// Nor do the two meet at a recipient's home.
	other.FromSender = false
	_, err = n.put(other)
	wantReason(t, err, reused)
	// To a relay on the way, or one that keeps a copy, it is no business.
	transit := newParcel(2, 100).onward("nam", "A")
	transit.DocumentID, transit.Kept = p.DocumentID, []routing.AgencyCode{"C"}
	n.mustPut(transit)
	if id, found, err := n.ByDocument(p.Sender, p.DocumentID); id != p.ID || !found || err != nil {
		t.Errorf("the document is %v, %v, %v, want the first envelope", id, found, err)
	}
	if _, found, err := n.ByDocument("H27", p.DocumentID); found || err != nil {
		t.Errorf("another sender's document: %v, %v, want none", found, err)
	}

	// Many race for one id: one gets it.
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			q := newParcel(uint64(100+i), 100).fromSender().inbox("B")
			q.DocumentID = "raced"
			if _, err := n.put(q); err == nil {
				won.Add(1)
			} else {
				wantReason(t, err, reused)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || len(n.inboxOf("B")) != 1 {
		t.Errorf("%d envelopes with one document id were accepted, want 1", won.Load())
	}
}

func TestTheSameEnvelopeAgain(t *testing.T) {
	n := start(t, config(t))
	p := newParcel(1, 400<<10).onward("nam", "A", "B")
	first := n.mustPut(p)
	// A repeat needs no content and says what was said.
	in := n.begin(p)
	record, repeat := in.Repeat()
	if !repeat || !record.CommittedAt.Equal(first.CommittedAt) {
		t.Errorf("a repeat: %v, %+v, want the first record", repeat, record)
	}
	in.Close()
	// Other duties, the content is here.
	home := p.with().inbox("C", "A")
	in = n.begin(home)
	if got := in.Offsets(); got[0] != 400<<10 {
		t.Errorf("content is asked for from %d, want none of it", got[0])
	}
	if _, err := in.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if got := n.queueOf("nam"); len(got) != 1 || !slices.Equal(got[0].Onward.Agencies, []routing.AgencyCode{"B"}) {
		t.Errorf("queue: %+v, want B, for A is at home here", got)
	}
	for _, a := range []routing.AgencyCode{"A", "C"} {
		if got := n.inboxOf(a); len(got) != 1 {
			t.Errorf("inbox of %s: %v, want the envelope once", a, got)
		}
	}
	// In an inbox it does not come a second time, on any way.
	n.mustPut(p.with().inbox("A", "C"))
	n.mustPut(p.with().onward("trung", "A"))
	if got := n.Stats(); got.Inboxed != 2 || got.Queued != 1 {
		t.Errorf("%d in inboxes, %d queued, want 2, 1", got.Inboxed, got.Queued)
	}
	// Handed on, and offered again: the next hop may have lost it.
	n.handOn(p, "nam", "nam", "B")
	n.mustPut(p.with().onward("nam", "B"))
	if got := n.queueOf("nam"); len(got) != 1 {
		t.Errorf("queue: %+v, want B again", got)
	}
	n.handOn(p, "nam", "nam", "B")
	// Once every duty is done the content goes, and is asked for again.
	n.settle(2, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done}, envelope.Settlement{ID: p.ID, Agency: "C", Transport: done})
	eventually(t, "the release", func() bool { return n.record(p).ContentReleased })
	if _, err := n.Content(p.ID, 0, 0); !errors.Is(err, spool.ErrReleased) {
		t.Errorf("released content: %v, want ErrReleased", err)
	}
	in = n.begin(p.with().inbox("D", "A"))
	if got := in.Offsets(); got[0] != 0 {
		t.Errorf("released content is asked for from %d, want 0", got[0])
	}
	in.Close()
	n.mustPut(p.with().inbox("D", "A"))
	if got := n.inboxOf("A"); len(got) != 0 {
		t.Errorf("A confirmed it and gets it again: %v", got)
	}
	if got := n.inboxOf("D"); len(got) != 1 {
		t.Errorf("inbox of D: %v, want the envelope", got)
	}
	n.wantContent(p)
}

// The sender repeats a submission at its ingress: whatever became of it, it is
// not done again. Conservation holds all the way.
func TestIngressRemembers(t *testing.T) {
	cfg := config(t)
	cfg.Retention.Dead = time.Millisecond
	n := start(t, cfg)
	p := newParcel(1, 300<<10).fromSender().inbox("A").onward("nam", "B", "C")
	n.mustPut(p)
	n.handOn(p, "nam", "nam", "B", "C")
	n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
	n.mustPut(p)
	if got := n.Stats(); got.Queued != 0 || got.Accepted != 3 || got.Delivered != 1 || got.Pending() != 2 {
		t.Errorf("after a repeat: %+v, want 3 accepted, 1 delivered, none queued", got.Counters)
	}
	// B and C have not confirmed; another envelope is done with and goes.
	other := newParcel(2, 1000).inbox("A")
	n.mustPut(other)
	n.settle(1, envelope.Settlement{ID: other.ID, Agency: "A", Transport: done})
	eventually(t, "the release of the other", func() bool { return n.record(other).ContentReleased })
	n.wantContent(p)
	expired := exchangev1.ErrorReason_ERROR_REASON_EXPIRED
	n.settle(2, envelope.Settlement{ID: p.ID, Agency: "B", Transport: fail, Reason: expired},
		envelope.Settlement{ID: p.ID, Agency: "C", Transport: fail})
	got := n.Stats()
	if got.Accepted != 3 || got.Delivered != 1 || got.Expired != 1 || got.Refused != 1 || got.Pending() != 0 {
		t.Errorf("at the end: %+v, want 1 delivered, 1 expired, 1 refused of 3", got.Counters)
	}
	eventually(t, "the release", func() bool { return n.record(p).ContentReleased })
	if r := n.mustPut(p); len(r.Deliveries) != 3 {
		t.Errorf("a repeat after the end: %+v, want the record", r)
	}
	n.end()
	check(t, cfg)
}

func TestRetention(t *testing.T) {
	t.Parallel()
	cfg, now := config(t), newClock()
	cfg.Clock = now.Now
	cfg.Retention = spool.Retention{Ingress: 24 * time.Hour, Record: 400 * 24 * time.Hour, Transfer: time.Hour}
	n := start(t, cfg)
	p := newParcel(1, 1000).fromSender().inbox("A")
	n.mustPut(p)
	n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
	cut := newParcel(2, 1<<20).inbox("A")
	in := n.begin(cut)
	if err := in.Write(context.Background(), 0, 0, cut.content[0][:500<<10]); err != nil {
		t.Fatal(err)
	}
	in.Close()
	now.Advance(23 * time.Hour)
	eventually(t, "the end of the transfer", func() bool { return n.Stats().Transfers == 0 })
	n.wantContent(p)
	now.Advance(2 * time.Hour)
	eventually(t, "the release", func() bool { return n.record(p).ContentReleased })
	now.Advance(399 * 24 * time.Hour)
	n.record(p)
	now.Advance(2 * 24 * time.Hour)
	eventually(t, "the end of the record", func() bool {
		_, err := n.Record(p.ID)
		return errors.Is(err, spool.ErrNotFound)
	})
	if _, found, _ := n.ByDocument(p.Sender, p.DocumentID); found {
		t.Error("the document id is remembered longer than the record")
	}
	n.end()
	check(t, cfg)
}

// One envelope for as many as a relay may have to do with.
func TestCircular(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.IndexMemory, cfg.IndexOverlay = 0, 0
	n := start(t, cfg)
	const size = 20_000
	p := crowd(newParcel(1, 100_000).fromSender(), size)
	n.mustPut(p)
	if got := n.Stats(); got.Inboxed != size {
		t.Errorf("%d in inboxes, want %d", got.Inboxed, size)
	}
	var batch []envelope.Settlement
	for _, a := range p.Inboxes[:size-1] {
		batch = append(batch, envelope.Settlement{ID: p.ID, Agency: a, Transport: done})
	}
	n.settle(size-1, batch...)
	if got := n.record(p); len(got.Deliveries) != size || len(got.Inboxes) != 1 {
		t.Errorf("%d recipients, %d waiting, want %d, 1", len(got.Deliveries), len(got.Inboxes), size)
	}
	n.end()
	check(t, cfg)
}
