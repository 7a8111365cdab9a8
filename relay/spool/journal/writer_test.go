package journal_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/truclienthong/truc/relay/spool/journal"
)

// calls gives what changed the disk since the last time it was asked.
func (d *disk) recent() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	log := d.log
	d.log = nil
	return log
}

func appendAll(t *testing.T, j *journal.Journal, sync bool, contents ...string) (tickets []*journal.Ticket) {
	t.Helper()
	for _, c := range contents {
		ticket, err := j.Append(t.Context(), sync, entry(c))
		must(t, err)
		tickets = append(tickets, ticket)
	}
	return tickets
}

// TestOrderOfCalls pins the order of the comment at the durability point.
func TestOrderOfCalls(t *testing.T) {
	const one, two = "0000000000000001.segment", "0000000000000002.segment"
	big := strings.Repeat("x", 3000)
	for _, c := range []struct {
		name   string
		append func(*testing.T, *journal.Journal)
		want   []string // then the mark, where something was synced
	}{
		{"many appends, one write and one sync", func(t *testing.T, j *journal.Journal) {
			appendAll(t, j, true, "a", "b", "c", strings.Repeat("d", 900))
		}, []string{"write " + one, "sync " + one, "write " + one}},
		{"one that wants durability among many", func(t *testing.T, j *journal.Journal) {
			appendAll(t, j, false, "a", "b")
			appendAll(t, j, true, "c")
			appendAll(t, j, false, "d")
		}, []string{"write " + one, "sync " + one, "write " + one}},
		{"nobody wants durability", func(t *testing.T, j *journal.Journal) {
			appendAll(t, j, false, "a", "b")
		}, []string{"write " + one}},
		{"a full segment is synced before the next one is made", func(t *testing.T, j *journal.Journal) {
			appendAll(t, j, true, big, big)
		}, []string{"write " + one, "write " + one, "sync " + one,
			"create 0000000000000002.new", "allocate 0000000000000002.new",
			"write 0000000000000002.new", "write 0000000000000002.new", "sync 0000000000000002.new",
			"rename " + two, "syncdir .",
			"write " + two, "sync " + two, "write " + two}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDisk(1)
				j := mustOpen(t, d)
				c.append(t, j) // they wait: nothing runs yet
				d.recent()
				r := run(j)
				synctest.Wait()
				got := d.recent()
				if !slices.Equal(got, c.want) {
					t.Errorf("got  %v\nwant %v", got, c.want)
				}
				must(t, r.end())
			})
		})
	}
}

// TestSyncCoversWhatWasWrittenBefore: records that asked for no sync are
// durable once a later one is, and once Sync has returned.
func TestSyncCoversWhatWasWrittenBefore(t *testing.T) {
	for name, settle := range map[string]func(*testing.T, *journal.Journal){
		"a later append": func(t *testing.T, j *journal.Journal) { put(t, j, true, "last") },
		"Sync":           func(t *testing.T, j *journal.Journal) { must(t, j.Sync(t.Context())) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(1)
			r := run(mustOpen(t, d))
			for range 20 {
				put(t, r.Journal, false, strings.Repeat("x", 700))
			}
			settle(t, r.Journal)
			d.mu.Lock()
			d.stopped = true
			d.mu.Unlock()
			r.end()
			d.powerCut(0)
			j := mustOpen(t, d)
			defer j.Close()
			if n := len(replayAll(t, j)); n < 20 {
				t.Errorf("got %d records, want 20 or more", n)
			}
		})
	}
}

func TestPoison(t *testing.T) {
	for _, c := range []struct {
		op      string
		content int
	}{
		{"write", 10}, {"sync", 10}, {"sync", 3900}, {"create", 3900}, {"allocate", 3900},
		{"rename", 3900}, {"syncdir", 3900}, {"writeback", 5 << 20},
	} {
		t.Run(fmt.Sprintf("%s, %d bytes", c.op, c.content), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDisk(1)
				j := mustOpen(t, d)
				before := appendAll(t, j, true, "before")
				r := run(j)
				_, err := before[0].Wait(t.Context())
				must(t, err)
				synctest.Wait() // the mark is written

				d.mu.Lock()
				failed := 0
				d.fault = func(op, _ string, _ int) error {
					if op == "remove" {
						return nil // what could not be made is taken away
					}
					if op == c.op || failed > 0 {
						failed++
						return syscall.ENOSPC
					}
					return nil
				}
				d.mu.Unlock()
				var entries []journal.Entry
				for left := c.content; left > 0; left -= 3900 {
					entries = append(entries, entry(strings.Repeat("x", min(left, 3900))))
				}
				if c.op == "writeback" {
					entries = []journal.Entry{entry(strings.Repeat("x", journal.MaxPayload)), entry(strings.Repeat("x", journal.MaxPayload))}
				}
				ticket, err := j.Append(t.Context(), true, entries...)
				must(t, err)
				_, err = ticket.Wait(t.Context())
				if !errors.Is(err, journal.ErrPoisoned) || !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("waiting ticket: got %v, want ErrPoisoned and ENOSPC", err)
				}
				if err := <-r.done; !errors.Is(err, journal.ErrPoisoned) || !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("Run: got %v, want ErrPoisoned and ENOSPC", err)
				}
				if _, err := j.Append(t.Context(), false, entry("later")); !errors.Is(err, journal.ErrPoisoned) {
					t.Errorf("later append: got %v, want ErrPoisoned", err)
				}
				if err := j.Sync(t.Context()); !errors.Is(err, journal.ErrPoisoned) {
					t.Errorf("later sync: got %v, want ErrPoisoned", err)
				}
				if failed != 1 {
					t.Errorf("%d calls after the failed one", failed-1)
				}
				must(t, j.Close())
			})
		})
	}
}

// TestFailedSyncIsNotBelieved: after a failed sync the kernel holds as clean
// what is not on the disk, and a later sync succeeds without it. What the next
// start shows must be there after a power cut all the same.
func TestFailedSyncIsNotBelieved(t *testing.T) {
	d := newDisk(1)
	r := run(mustOpen(t, d))
	put(t, r.Journal, true, "durable")
	d.mu.Lock()
	d.fault = func(op, _ string, _ int) error {
		if op == "sync" {
			return syscall.EIO
		}
		return nil
	}
	d.mu.Unlock()
	ticket, err := r.Append(t.Context(), true, entry("in the kernel only"))
	must(t, err)
	if _, err := ticket.Wait(t.Context()); !errors.Is(err, journal.ErrPoisoned) {
		t.Fatalf("got %v, want ErrPoisoned", err)
	}
	r.end()
	d.kill()

	j := mustOpen(t, d)
	shown := len(replayAll(t, j))
	j.Close()
	if shown != 2 {
		t.Fatalf("%d records after the kill, want 2", shown)
	}
	d.powerCut(0)
	j = mustOpen(t, d)
	defer j.Close()
	if got := len(replayAll(t, j)); got != shown {
		t.Errorf("%d records after the power cut, but %d were shown before it", got, shown)
	}
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := journal.Open(journal.Config{Dir: "/j", FS: newDisk(1), SegmentSize: 64 << 10, QueueBytes: 10_000})
		must(t, err)
		appendAll(t, j, true, strings.Repeat("a", 6000))

		ctx, cancel := context.WithCancel(t.Context())
		refused := make(chan error)
		go func() {
			_, err := j.Append(ctx, true, entry(strings.Repeat("b", 6000)))
			refused <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-refused; !errors.Is(err, context.Canceled) {
			t.Errorf("append to the full queue: got %v, want canceled", err)
		}

		// One larger than the queue waits for its turn, and gets it.
		large := make(chan error)
		go func() {
			ticket, err := j.Append(t.Context(), true, entry(strings.Repeat("c", 50_000)))
			if err == nil {
				_, err = ticket.Wait(t.Context())
			}
			large <- err
		}()
		synctest.Wait()
		r := run(j)
		must(t, <-large)
		var got []string
		for _, rec := range replayAll(t, j) {
			got = append(got, string(rec.Payload[:1]))
		}
		if want := "[a c]"; fmt.Sprint(got) != want {
			t.Errorf("got %v, want %s", got, want)
		}
		must(t, r.end())
	})
}

func TestRefusals(t *testing.T) {
	d := newDisk(1)
	j := mustOpen(t, d)
	r := run(j)
	at := put(t, j, true, "one")
	for _, c := range []struct {
		name string
		err  error
		do   func() error
	}{
		{"an entry too large", journal.ErrTooLarge, func() error {
			_, err := j.Append(t.Context(), true, journal.Entry{Type: 1, Payload: [][]byte{make([]byte, journal.MaxPayload), {1}}})
			return err
		}},
		{"a second process", journal.ErrLocked, func() error { _, err := openOn(d, 4096); return err }},
		{"a position beyond the end", journal.ErrAhead, func() error {
			_, err := j.Read(journal.Position{Segment: at.Segment, Offset: 3000})
			return err
		}},
		{"a segment that is not yet", journal.ErrAhead, func() error {
			_, err := j.Read(journal.Position{Segment: 9, Offset: 64})
			return err
		}},
		{"a position between records", journal.ErrDamaged, func() error {
			_, err := j.Read(journal.Position{Segment: at.Segment, Offset: at.Offset + 8})
			return err
		}},
		{"replay from beyond the end", journal.ErrAhead, func() error {
			return j.Replay(journal.Position{Segment: 1, Offset: 4000}, nil)
		}},
		{"replay stopped by its caller", errCrash, func() error {
			return j.Replay(journal.Position{}, func(journal.Record) error { return errCrash })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.do(); !errors.Is(err, c.err) {
				t.Errorf("got %v, want %v", err, c.err)
			}
		})
	}
	if _, err := j.Append(t.Context(), true, journal.Entry{Type: 0}); err == nil {
		t.Error("type 0 was taken")
	}
	if err := j.Recycle(at.Segment); err == nil {
		t.Error("the segment that is written to was recycled")
	}
	must(t, r.end())
	if _, err := j.Append(t.Context(), true, entry("late")); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("append after the end: got %v, want ErrClosed", err)
	}
	if _, err := j.Read(at); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("read after Close: got %v, want ErrClosed", err)
	}
	j = mustOpen(t, d) // goes on in another segment
	defer j.Close()
	if err := j.Replay(journal.Position{Segment: at.Segment, Offset: 3000}, nil); !errors.Is(err, journal.ErrAhead) {
		t.Errorf("replay from behind the end of a segment that is whole: got %v, want ErrAhead", err)
	}
}

// TestLock is about the operating system's lock: a second opening of the same
// directory is refused even within one process, until the first is closed.
func TestLock(t *testing.T) {
	config := journal.Config{Dir: t.TempDir(), SegmentSize: 4096}
	first, err := journal.Open(config)
	must(t, err)
	for _, readOnly := range []bool{false, true} {
		config.ReadOnly = readOnly
		if _, err := journal.Open(config); !errors.Is(err, journal.ErrLocked) {
			t.Errorf("read only %v: got %v, want ErrLocked", readOnly, err)
		}
	}
	must(t, first.Close())
	second, err := journal.Open(config)
	must(t, err)
	must(t, second.Close())
}

// TestEndInGoodOrder: what was in the queue when Run was told to end is
// written, synced and acknowledged.
func TestEndInGoodOrder(t *testing.T) {
	d := newDisk(1)
	j := mustOpen(t, d)
	tickets := append(appendAll(t, j, true, "a", "b"), appendAll(t, j, false, "c")...)
	must(t, run(j).end())
	for _, ticket := range tickets {
		_, err := ticket.Wait(t.Context())
		must(t, err)
	}
	d.powerCut(0)
	j = mustOpen(t, d)
	defer j.Close()
	if n := len(replayAll(t, j)); n != 3 {
		t.Errorf("got %d records, want 3", n)
	}
}
