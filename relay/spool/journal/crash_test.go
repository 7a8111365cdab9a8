package journal_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/truclienthong/truc/relay/spool/journal"
)

// history is what a scripted user of the journal did and was told.
type history struct {
	attempts []*attempt      // in the order of Append
	recycled map[uint64]bool // asked for: gone, or not yet
}

type attempt struct {
	content string
	sync    bool
	ticket  *journal.Ticket
	acked   bool // promised
	at      journal.Position
	placed  bool // at is known
}

func (h *history) append(j *journal.Journal, sync bool, contents ...string) error {
	var entries []journal.Entry
	for _, c := range contents {
		entries = append(entries, entry(c))
	}
	t, err := j.Append(context.Background(), sync, entries...)
	for _, c := range contents {
		h.attempts = append(h.attempts, &attempt{content: c, sync: sync, ticket: t})
	}
	return err
}

// wait collects the outcome of everything that was appended.
func (h *history) wait() error {
	durable := -1
	var failed error
	for i := 0; i < len(h.attempts); {
		a := h.attempts[i]
		n := 1
		for i+n < len(h.attempts) && a.ticket != nil && h.attempts[i+n].ticket == a.ticket {
			n++
		}
		if !a.placed && a.ticket != nil {
			positions, err := a.ticket.Wait(context.Background())
			if err != nil {
				failed = err
			}
			for k, p := range positions {
				h.attempts[i+k].at, h.attempts[i+k].placed = p, true
			}
		}
		i += n
		if a.placed && a.sync {
			durable = i - 1
		}
	}
	// One that is durable promises all before it.
	for i := 0; i <= durable; i++ {
		h.attempts[i].acked = true
	}
	return failed
}

func (h *history) recycle(j *journal.Journal) error {
	segments := j.Segments()
	if len(segments) < 4 {
		return nil
	}
	number := segments[len(segments)/3].Number
	h.recycled[number] = true
	return j.Recycle(number)
}

// check compares a journal after a crash with what was promised: a prefix of
// what was appended, as long as the promise at least, without what was
// recycled. It returns what is there.
func (h *history) check(t *testing.T, j *journal.Journal) []journal.Record {
	t.Helper()
	if d := j.Damage(); len(d) != 0 {
		t.Fatalf("a crash is taken for damage: %+v", d)
	}
	got := replayAll(t, j)
	if d := j.Damage(); len(d) != 0 {
		t.Fatalf("a crash is taken for damage: %+v", d)
	}
	live := map[uint64]bool{}
	for _, s := range j.Segments() {
		live[s.Number] = true
	}
	n := 0
	for i, a := range h.attempts {
		if a.placed && h.recycled[a.at.Segment] && !live[a.at.Segment] {
			continue
		}
		if n == len(got) {
			if a.acked {
				t.Fatalf("acknowledged record %d (%.20q at %v) is missing; %d are there", i, a.content, a.at, len(got))
			}
			continue
		}
		r := got[n]
		n++
		if string(r.Payload) != a.content {
			t.Fatalf("record %d: got %.20q at %v, want %.20q at %v", i, r.Payload, r.Position, a.content, a.at)
		}
		if a.placed && r.Position != a.at {
			t.Fatalf("record %d moved from %v to %v", i, a.at, r.Position)
		}
		if again, err := j.Read(r.Position); err != nil || string(again.Payload) != a.content {
			t.Fatalf("read record %d: got %.20q, %v", i, again.Payload, err)
		}
	}
	if n < len(got) {
		t.Fatalf("%d records that nobody appended, first %.20q at %v", len(got)-n, got[n].Payload, got[n].Position)
	}
	return got
}

// forget drops what a crash took: from here on what is there is the history.
func (h *history) forget(got []journal.Record) {
	h.attempts = nil
	for _, r := range got {
		h.attempts = append(h.attempts, &attempt{content: string(r.Payload), acked: true, at: r.Position, placed: true})
	}
}

// script is what a spool does in small: appends of all sizes with and without
// sync, many at once, recycling, an end in good order and a new start.
func script(d *disk, h *history, rng *rand.Rand) (err error) {
	for round := range 2 {
		j, err := openOn(d, 4096)
		if err != nil {
			return err
		}
		r := run(j)
		err = func() error {
			for step := range 8 {
				for range 1 + rng.IntN(4) {
					var contents []string
					for range 1 + rng.IntN(3) {
						contents = append(contents, content(len(h.attempts)+len(contents), rng))
					}
					if err := h.append(j, rng.IntN(3) > 0, contents...); err != nil {
						return err
					}
				}
				if err := h.wait(); err != nil {
					return err
				}
				if step%3 == 2 {
					if err := h.recycle(j); err != nil {
						return err
					}
				}
			}
			return nil
		}()
		ended := r.end()
		h.wait()
		if err != nil {
			return err
		}
		if ended != nil {
			return fmt.Errorf("round %d: %w", round, ended)
		}
	}
	return nil
}

// TestCrash stops the machine at every call of the script in turn.
func TestCrash(t *testing.T) {
	crashes := []struct {
		name string
		ends func(*disk)
	}{
		{"process killed", func(d *disk) { d.kill() }},
		{"power cut, all unsynced lost", func(d *disk) { d.powerCut(0) }},
		{"power cut, half of the sectors lost", func(d *disk) { d.powerCut(0.5) }},
		{"power cut, few sectors lost", func(d *disk) { d.powerCut(0.9) }},
	}
	for n, crash := range crashes {
		t.Run(crash.name, func(t *testing.T) {
			t.Parallel()
			for k := 1; ; k++ {
				d := newDisk(uint64(k*10 + n))
				rng := rand.New(rand.NewPCG(uint64(k), uint64(n)))
				d.stopAt = k
				h := &history{recycled: map[uint64]bool{}}
				err := script(d, h, rng)
				if err == nil {
					t.Logf("%d calls", k-1)
					return
				}
				log := d.log
				crash.ends(d)
				func() {
					defer func() {
						if t.Failed() {
							t.Logf("stopped at call %d, the last of:\n%v", k, log)
						}
					}()
					survives(t, d, h, rng)
				}()
			}
		})
	}
}

// survives checks the journal after one crash, after another one in the middle
// of the recovery, perhaps a third right behind it, and after more was appended.
func survives(t *testing.T, d *disk, h *history, rng *rand.Rand) {
	t.Helper()
	d.mu.Lock()
	d.stopAt = d.calls + 1 + rng.IntN(8)
	d.mu.Unlock()
	if j, err := openOn(d, 4096); err == nil {
		h.forget(h.check(t, j)) // what was shown once must not vanish later
		j.Close()
	}
	if rng.IntN(2) == 0 {
		d.kill()
	} else {
		d.powerCut(rng.Float64())
	}

	j := mustOpen(t, d)
	shown := h.check(t, j)
	h.forget(shown)
	if rng.IntN(2) == 0 {
		j.Close()
		d.powerCut(0)
		j = mustOpen(t, d)
		h.check(t, j)
	}
	r := run(j)
	for range 6 {
		must(t, h.append(j, rng.IntN(2) == 0, content(len(h.attempts), rng)))
	}
	must(t, h.wait())
	if rng.IntN(2) == 0 {
		must(t, r.end())
	} else {
		must(t, j.Sync(t.Context()))
		must(t, r.end())
	}
	for _, a := range h.attempts {
		a.acked = true
	}
	d.powerCut(0)

	j = mustOpen(t, d)
	shown = h.check(t, j)
	must(t, j.Close())
	if !slices.ContainsFunc(shown, func(r journal.Record) bool {
		return string(r.Payload) == h.attempts[len(h.attempts)-1].content
	}) {
		t.Fatal("the last record is missing")
	}
}

// TestInterruptedRecovery cuts the power at every call of a start that found
// records which only the kernel had.
func TestInterruptedRecovery(t *testing.T) {
	for call := 1; call <= 9; call++ {
		for seed := range uint64(30) {
			d := newDisk(seed)
			h := &history{recycled: map[uint64]bool{}}
			r := run(mustOpen(t, d))
			must(t, h.append(r.Journal, true, "durable"))
			must(t, h.wait())
			for n := range 4 {
				must(t, h.append(r.Journal, false, content(n, d.rng)))
			}
			must(t, h.wait())
			d.mu.Lock()
			d.stopped = true
			d.mu.Unlock()
			r.end()
			d.kill()

			d.stopAt = d.calls + call
			if j, err := openOn(d, 4096); err == nil {
				h.forget(h.check(t, j))
				j.Close()
			}
			d.powerCut(0.5)
			j := mustOpen(t, d)
			h.check(t, j)
			j.Close()
		}
	}
}
