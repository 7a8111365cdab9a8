package journal_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/truclienthong/truc/relay/spool/journal"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a journal with its writer.
type running struct {
	*journal.Journal
	stop context.CancelFunc
	done chan error
}

func run(j *journal.Journal) *running {
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Journal: j, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- j.Run(ctx) }()
	return r
}

// end stops the writer in good order and closes.
func (r *running) end() error {
	r.stop()
	return errors.Join(<-r.done, r.Close())
}

func openOn(d *disk, segmentSize int64) (*journal.Journal, error) {
	return journal.Open(journal.Config{Dir: "/j", FS: d, SegmentSize: segmentSize, PoolSize: 2})
}

func mustOpen(t testing.TB, d *disk) *journal.Journal {
	t.Helper()
	j, err := openOn(d, 4096)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return j
}

func entry(content string) journal.Entry {
	half := len(content) / 2
	return journal.Entry{Type: 1, Payload: [][]byte{[]byte(content[:half]), []byte(content[half:])}}
}

// content is different for every number, and of every length.
func content(number int, rng *rand.Rand) string {
	n := rng.IntN(900)
	if rng.IntN(12) == 0 {
		n = rng.IntN(9000)
	}
	return fmt.Sprintf("%d:", number) + strings.Repeat(string(rune('a'+number%26)), n)
}

func replayAll(t testing.TB, j *journal.Journal) []journal.Record {
	t.Helper()
	var all []journal.Record
	err := j.Replay(journal.Position{}, func(r journal.Record) error {
		if n := len(all); n > 0 && (all[n-1].Sequence >= r.Sequence || all[n-1].Compare(r.Position) >= 0) {
			t.Errorf("replay: %v follows %v", r.Position, all[n-1].Position)
		}
		r.Payload = append([]byte(nil), r.Payload...)
		all = append(all, r)
		return nil
	})
	if err != nil {
		t.Fatalf("replay: %v", err)
	}
	return all
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put appends one entry and waits.
func put(t testing.TB, j *journal.Journal, sync bool, content string) journal.Position {
	t.Helper()
	ticket, err := j.Append(t.Context(), sync, entry(content))
	must(t, err)
	positions, err := ticket.Wait(t.Context())
	must(t, err)
	return positions[0]
}

func TestRoundTrip(t *testing.T) {
	for name, fs := range map[string]journal.FS{"memory": newDisk(1), "operating system": nil} {
		t.Run(name, func(t *testing.T) {
			config := journal.Config{Dir: t.TempDir() + "/a/b", FS: fs, SegmentSize: 4096}
			rng := rand.New(rand.NewPCG(1, 1))
			var want []string
			var at []journal.Position
			for round := range 3 {
				j, err := journal.Open(config)
				must(t, err)
				r := run(j)
				for range 40 {
					c := content(len(want), rng)
					at = append(at, put(t, j, rng.IntN(2) == 0, c))
					want = append(want, c)
				}
				for i, p := range at {
					got, err := j.Read(p)
					must(t, err)
					if string(got.Payload) != want[i] || got.Type != 1 {
						t.Fatalf("round %d, record %d: got %.20q, want %.20q", round, i, got.Payload, want[i])
					}
				}
				must(t, r.end())
			}
			config.ReadOnly = true
			j, err := journal.Open(config)
			must(t, err)
			got := replayAll(t, j)
			if len(got) != len(want) {
				t.Fatalf("got %d records, want %d", len(got), len(want))
			}
			for i, r := range got {
				if string(r.Payload) != want[i] || r.Position != at[i] {
					t.Fatalf("record %d: got %.20q at %v, want %.20q at %v", i, r.Payload, r.Position, want[i], at[i])
				}
			}
			if d := j.Damage(); len(d) != 0 {
				t.Errorf("damage: %v", d)
			}
			must(t, j.Close())
		})
	}
}
