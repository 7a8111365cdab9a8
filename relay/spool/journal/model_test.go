package journal_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/truclienthong/truc/relay/spool/journal"
	"pgregory.net/rapid"
)

// TestModel lets rapid choose what happens to a journal, and compares it with
// a list: what was promised is there, what is there was appended, in order,
// and what was there once after a start does not vanish.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := newDisk(rapid.Uint64().Draw(rt, "seed"))
		rng := rand.New(rand.NewPCG(d.rng.Uint64(), 1))
		h := &history{recycled: map[uint64]bool{}}
		number := 0
		var r *running
		start := func() {
			j, err := openOn(d, 4096)
			if err != nil {
				rt.Fatalf("open: %v", err)
			}
			got := h.check(t, j)
			if t.Failed() {
				rt.FailNow()
			}
			h.forget(got)
			r = run(j)
		}
		// stop ends the writer where it is; nothing more reaches the disk.
		stop := func() {
			d.mu.Lock()
			d.stopped = true
			d.mu.Unlock()
			r.end()
			h.wait()
		}
		start()
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				sync := rapid.Bool().Draw(rt, "sync")
				var contents []string
				for range rapid.IntRange(1, 4).Draw(rt, "entries") {
					number++
					contents = append(contents, content(number, rng))
				}
				if err := h.append(r.Journal, sync, contents...); err != nil {
					rt.Fatal(err)
				}
			},
			"wait": func(rt *rapid.T) {
				if err := h.wait(); err != nil {
					rt.Fatal(err)
				}
			},
			"sync": func(rt *rapid.T) {
				if err := r.Sync(t.Context()); err != nil {
					rt.Fatal(err)
				}
				for _, a := range h.attempts {
					a.acked = true
				}
			},
			"recycle": func(rt *rapid.T) {
				if err := h.wait(); err != nil {
					rt.Fatal(err)
				}
				if err := h.recycle(r.Journal); err != nil {
					rt.Fatal(err)
				}
			},
			"read": func(rt *rapid.T) {
				if err := h.wait(); err != nil {
					rt.Fatal(err)
				}
				for i, a := range h.attempts {
					rec, err := r.Read(a.at)
					if h.recycled[a.at.Segment] {
						if err == nil {
							rt.Fatalf("record %d of a recycled segment was read", i)
						}
					} else if err != nil || string(rec.Payload) != a.content {
						rt.Fatalf("record %d: got %.20q, %v, want %.20q", i, rec.Payload, err, a.content)
					}
				}
			},
			"replay from the middle": func(rt *rapid.T) {
				if err := h.wait(); err != nil || len(h.attempts) == 0 {
					return
				}
				from := rapid.IntRange(0, len(h.attempts)-1).Draw(rt, "from")
				var want, got []string
				for _, a := range h.attempts[from:] {
					if !h.recycled[a.at.Segment] {
						want = append(want, a.content)
					}
				}
				err := r.Replay(h.attempts[from].at, func(rec journal.Record) error {
					got = append(got, string(rec.Payload))
					return nil
				})
				if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
					rt.Fatalf("got %d records, %v, want %d", len(got), err, len(want))
				}
			},
			"end and start": func(rt *rapid.T) {
				if err := r.end(); err != nil {
					rt.Fatal(err)
				}
				h.wait()
				for _, a := range h.attempts {
					a.acked = true
				}
				start()
			},
			"kill": func(rt *rapid.T) {
				stop()
				d.kill()
				start()
			},
			"power cut": func(rt *rapid.T) {
				stop()
				d.powerCut(rapid.SampledFrom([]float64{0, 0.2, 0.5, 0.9}).Draw(rt, "survive"))
				start()
			},
		})
		if err := r.end(); err != nil {
			rt.Fatal(err)
		}
	})
}
