package spool_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
)

// diskUse is what the journal takes, the spare file with it.
func diskUse(t testing.TB, cfg spool.Config) (bytes int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "journal", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

// Much is written and most of it settled, in an order that leaves something
// alive in every segment. Space comes back by itself, the rest is whole, and
// only what is gone is gone after a rebuild.
func TestSpaceComesBack(t *testing.T) {
	t.Parallel()
	cfg, now := spool.Hurried(config(t)), newClock()
	cfg.Clock = now.Now
	n := start(t, cfg)
	var mu sync.Mutex
	var kept []*parcel
	var wg sync.WaitGroup
	const writers, each = 4, 120
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				seed := w*each + i
				sizes := [][]int{{30_000}, {120_000}, {270_000, 10}, {2000}}[seed%4]
				p := newParcel(uint64(seed), sizes...).inbox("A").onward("nam", "B")
				n.mustPut(p)
				if seed%13 == 0 {
					mu.Lock()
					kept = append(kept, p)
					mu.Unlock()
					if seed%2 == 0 {
						continue
					}
				} else {
					n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
				}
				n.handOn(p, "nam", "nam", "B")
			}
		})
	}
	wg.Wait()
	limit := func() int64 { return int64(1.3*float64(n.Stats().LiveBytes)) + 2*cfg.SegmentSize }
	eventually(t, "the space", func() bool { return diskUse(t, cfg) <= limit() })
	if got := n.Stats(); int(got.Envelopes) != len(kept) || got.LiveBytes < got.Bytes {
		t.Errorf("%d envelopes, %d bytes, %d alive; want %d envelopes", got.Envelopes, got.Bytes, got.LiveBytes, len(kept))
	}
	t.Logf("%d bytes on disk, %d alive, %d segments", diskUse(t, cfg), n.Stats().LiveBytes, n.Stats().Segments)
	for range 2 {
		for _, p := range kept {
			n.wantContent(p)
		}
		if got := n.inboxOf("A"); len(got) != len(kept) {
			t.Errorf("inbox holds %d, want %d", len(got), len(kept))
		}
		n.end()
		check(t, cfg)
		if err := os.RemoveAll(filepath.Join(cfg.Dir, "index")); err != nil {
			t.Fatal(err)
		}
		check(t, cfg)
		n = start(t, cfg)
	}
	// When all is done nothing is left but the segment that is written to.
	for _, p := range kept {
		n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
		n.handOn(p, "nam", "nam", "B")
	}
	// Chunks whose commit was recycled look like a transfer after a rebuild,
	// which nobody resumes.
	now.Advance(25 * time.Hour)
	eventually(t, "the rest of the space", func() bool { return diskUse(t, cfg) <= 2*cfg.SegmentSize && n.Stats().LiveBytes == 0 })
}

// A release outlives the records that it makes void, wherever they are: what
// was settled does not come back from a journal without its index.
func TestReleasedStaysReleased(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.SegmentSize = 256 << 10
	cfg = spool.Hurried(cfg)
	cfg.CopyAfter = time.Hour // cold segments stay where they are
	n := start(t, cfg)
	// Segments with much that stays, and something that is released much later.
	var gone, cold []*parcel
	for i := range 12 {
		cold = append(cold, newParcel(uint64(1000+i), 60_000).inbox("COLD"))
		gone = append(gone, newParcel(uint64(2000+i), 1000).inbox("GONE"))
		n.mustPut(cold[i])
		n.mustPut(gone[i])
	}
	churn := func(seed uint64) {
		for i := range uint64(12) {
			p := newParcel(seed+i, 100_000).inbox("CHURN")
			n.mustPut(p)
			n.settle(1, envelope.Settlement{ID: p.ID, Agency: "CHURN", Transport: done})
		}
	}
	before := n.Stats().Segments
	for i, p := range gone {
		n.settle(1, envelope.Settlement{ID: p.ID, Agency: "GONE", Transport: done})
		churn(uint64(10_000 + 100*i))
	}
	// The segments of the releases are recycled, those of the records are not.
	eventually(t, "the space of what was churned", func() bool { return n.Stats().Segments <= before+2 })
	n.end()
	check(t, cfg)
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "index")); err != nil {
		t.Fatal(err)
	}
	check(t, cfg)
	n = start(t, cfg)
	if got := n.inboxOf("GONE"); len(got) != 0 {
		t.Errorf("%d envelopes that were settled wait again", len(got))
	}
	if got := n.inboxOf("COLD"); len(got) != len(cold) {
		t.Errorf("%d envelopes wait, want %d", len(got), len(cold))
	}
}

// A reader does not notice that what it reads is moved.
func TestContentIsReadWhileItMoves(t *testing.T) {
	cfg := spool.Hurried(config(t))
	n := start(t, cfg)
	p := newParcel(1, 700<<10).inbox("A")
	n.mustPut(p)
	n.mustPut(newParcel(2, 200<<10).inbox("A"))
	r, err := n.Content(p.ID, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, 150<<10)
	if _, err := r.Read(got[:1]); err != nil {
		t.Fatal(err)
	}
	// Churn until its segments have been emptied.
	before := n.Stats().Segments
	for i := range uint64(30) {
		q := newParcel(100+i, 200_000).inbox("B")
		n.mustPut(q)
		n.settle(1, envelope.Settlement{ID: q.ID, Agency: "B", Transport: done})
	}
	eventually(t, "the space", func() bool { return n.Stats().Segments <= before+1 })
	rest := got[:1]
	buf := make([]byte, 10_000)
	for {
		k, err := r.Read(buf)
		rest = append(rest, buf[:k]...)
		if err != nil {
			break
		}
	}
	if !slices.Equal(rest, p.content[0][100:]) {
		t.Errorf("read %d bytes that are not those that were sent", len(rest))
	}
}

// A dead destination: what waits for it is deferred again and again, and does
// not fill the disk.
func TestDeferringTakesNoSpace(t *testing.T) {
	cfg := config(t)
	cfg.SegmentSize = 64 << 10
	n := start(t, spool.Hurried(cfg))
	for i := range uint64(10) {
		n.mustPut(newParcel(i, 1000).onward("nam", "A"))
	}
	var wg sync.WaitGroup
	for _, q := range n.queueOf("nam") {
		wg.Go(func() {
			for try := range uint32(500) {
				if err := n.Defer(context.Background(), q.ID, "nam", try+1, time.Now().Add(time.Hour), "unreachable"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "the space", func() bool { return n.Stats().Segments <= 3 })
	for _, q := range n.queueOf("nam") {
		if q.Tries != 500 {
			t.Errorf("%s was tried %d times, want 500", q.ID, q.Tries)
		}
	}
	n.end()
	check(t, cfg)
}
