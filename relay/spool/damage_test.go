package spool_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
)

// hurt changes one byte of the first place in the journal that holds what.
func hurt(t testing.TB, cfg spool.Config, what []byte) {
	t.Helper()
	hurtIn(t, cfg, "journal", what)
}

// hurtIn is hurt for the journal or the register.
func hurtIn(t testing.TB, cfg spool.Config, log string, what []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(cfg.Dir, log, "*.segment"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(b, what); at >= 0 {
			b[at] ^= 1
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(b[at:at+1], int64(at)); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("the %s does not hold it", log)
}

func TestDamagedContentIsSaid(t *testing.T) {
	for name, sizes := range map[string][]int{"in one record": {50_000}, "in chunks": {100, 2 << 20}} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			var told []envelope.ID
			cfg.OnDamage = func(id envelope.ID, _ int, err error) {
				if !errors.Is(err, spool.ErrDamaged) {
					t.Errorf("told of %v", err)
				}
				told = append(told, id)
			}
			n := start(t, cfg)
			bad, good := newParcel(1, sizes...).inbox("A"), newParcel(2, sizes...).inbox("A")
			n.mustPut(good)
			n.mustPut(bad)
			last := len(sizes) - 1
			hurt(t, cfg, bad.content[last][30_000:30_100])
			for range 2 {
				r, err := n.Content(bad.ID, last, 0)
				if err != nil {
					t.Fatal(err)
				}
				if _, err = io.Copy(io.Discard, r); !errors.Is(err, spool.ErrDamaged) {
					t.Errorf("reading damaged content: %v, want ErrDamaged", err)
				}
				r.Close()
			}
			n.wantContent(good)
			if got := n.Stats().Damaged; got != 1 || len(told) != 1 || told[0] != bad.ID {
				t.Errorf("%d envelopes damaged, told of %v, want the one", got, told)
			}
			n.end()
			var findings []spool.Finding
			if err := spool.Check(cfg, func(f spool.Finding) { findings = append(findings, f) }); err != nil {
				t.Fatal(err)
			}
			// The journal may report the place as well.
			found := slices.ContainsFunc(findings, func(f spool.Finding) bool { return f.ID == bad.ID })
			other := slices.ContainsFunc(findings, func(f spool.Finding) bool { return f.ID == good.ID })
			if !found || other {
				t.Errorf("check finds %v, want the one envelope", findings)
			}
		})
	}
}

// What a rebuild cannot know any more is counted and said; the rest is there.
func TestRebuildFromADamagedJournal(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	lost, bad, good := newParcel(1, 1000).inbox("A"), newParcel(2, 600<<10).inbox("A"), newParcel(3, 1000).inbox("A")
	for _, p := range []*parcel{lost, bad, good} {
		n.mustPut(p)
	}
	n.end()
	hurt(t, cfg, lost.content[0][:100])
	hurt(t, cfg, bad.content[0][:100])
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "index")); err != nil {
		t.Fatal(err)
	}
	n = start(t, cfg)
	if got := n.Stats(); got.LostRecords != 2 || got.Damaged != 1 {
		t.Errorf("%d records lost, %d envelopes damaged, want 2, 1", got.LostRecords, got.Damaged)
	}
	n.wantContent(good)
	if _, err := n.Record(lost.ID); !errors.Is(err, spool.ErrNotFound) {
		t.Errorf("the envelope whose commit is damaged: %v, want ErrNotFound", err)
	}
	r, err := n.Content(bad.ID, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, spool.ErrDamaged) {
		t.Errorf("content that lacks a chunk: %v, want ErrDamaged", err)
	}
	n.mustPut(lost) // whoever has a copy sends it again
	n.wantContent(lost)
}

func TestAnIndexThatCannotBeReadIsRebuilt(t *testing.T) {
	cfg := config(t)
	p := newParcel(1, 300<<10).fromSender().inbox("A").onward("nam", "B")
	n := start(t, cfg)
	n.mustPut(p)
	for name, ruin := range map[string]func(dir string) error{
		"manifest overwritten": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "MANIFEST"), []byte("this is no manifest at all"), 0o600)
		},
		"directory gone": os.RemoveAll,
		"tables gone": func(dir string) error {
			files, err := filepath.Glob(filepath.Join(dir, "*.sst"))
			if err != nil || len(files) == 0 {
				return errors.New("no tables")
			}
			for _, f := range files {
				err = errors.Join(err, os.Remove(f))
			}
			return err
		},
		"table damaged": func(dir string) error {
			files, err := filepath.Glob(filepath.Join(dir, "*.sst"))
			if err != nil || len(files) == 0 {
				return errors.New("no tables")
			}
			b, err := os.ReadFile(files[0])
			if err != nil {
				return err
			}
			for i := range 200 {
				b[i] ^= 0x55
			}
			return os.WriteFile(files[0], b, 0o600)
		},
	} {
		n.end()
		if err := ruin(filepath.Join(cfg.Dir, "index")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n = start(t, cfg)
		t.Run(name, func(t *testing.T) {
			n.t = t
			n.wantContent(p)
			if len(n.inboxOf("A")) != 1 || len(n.queueOf("nam")) != 1 {
				t.Error("a duty is missing")
			}
			n.t = t
		})
		n.end()
		check(t, cfg)
		n = start(t, cfg)
	}
	n.end()
}

// The index has seen more than the journal has: nobody but an operator can say
// what is right.
func TestAJournalThatIsBehindIsRefused(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	n.mustPut(newParcel(1, 1000).inbox("A"))
	n.end()
	old := filepath.Join(t.TempDir(), "journal")
	if err := os.CopyFS(old, os.DirFS(filepath.Join(cfg.Dir, "journal"))); err != nil {
		t.Fatal(err)
	}
	n = start(t, cfg)
	for i := range uint64(20) {
		n.mustPut(newParcel(2+i, 200_000).inbox("A"))
	}
	n.end()
	journal := filepath.Join(cfg.Dir, "journal")
	if err := errors.Join(os.RemoveAll(journal), os.Rename(old, journal)); err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(cfg)
	if !errors.Is(err, spool.ErrBehind) {
		t.Errorf("open: %v, want ErrBehind", err)
	}
	if s != nil {
		s.Close()
	}
}

func TestASpoolInUseIsLocked(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	if _, err := spool.Open(cfg); !errors.Is(err, spool.ErrLocked) {
		t.Errorf("open twice: %v, want ErrLocked", err)
	}
	err := spool.Check(cfg, func(f spool.Finding) { t.Errorf("found %s", f) })
	if !errors.Is(err, spool.ErrLocked) {
		t.Errorf("check of a running relay: %v, want ErrLocked", err)
	}
	n.end()
}

// Check finds what breaks the crash rule, each by its name.
func TestCheckFinds(t *testing.T) {
	p := newParcel(1, 1000).fromSender().inbox("A").onward("nam", "B")
	for name, want := range map[string]string{
		"queue entry": "is not in the queue", "inbox entry": "is not in the inbox", "envelope": "does not exist",
		"document": "is not found by its sender's document id", "segment": "bytes alive", "counters": "counters say",
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			n := start(t, cfg)
			n.mustPut(p)
			n.end()
			if err := spool.Break(cfg, name, p.ID); err != nil {
				t.Fatal(err)
			}
			var all []string
			if err := spool.Check(cfg, func(f spool.Finding) { all = append(all, f.String()) }); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(all, "\n"), want) {
				t.Errorf("check finds %q, want something with %q", all, want)
			}
		})
	}
}

// What must be looked after is in its list, and nothing else is.
func TestCheckFindsLists(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	n := start(t, cfg)
	sole, away := newParcel(1, 10).fromSender().inbox("A"), newParcel(2, 10).fromSender().inbox("A").onward("nam", "B")
	origin := newParcel(3, 10).onward("nam", "A")
	for _, p := range []*parcel{sole, away, origin} {
		n.mustPut(p)
	}
	n.handOn(away, "nam", "nam", "B")
	n.settle(1, envelope.Settlement{ID: away.ID, Agency: "A", Transport: fail})
	must(t, n.Hold(t.Context(), envelope.Hold{ID: sole.ID, Held: true}))
	n.end()
	check(t, cfg)
	findings := func() (all []string) {
		must(t, spool.Check(cfg, func(f spool.Finding) { all = append(all, f.String()) }))
		return all
	}
	// An envelope for each list that does not belong there.
	strangers := map[string]envelope.ID{
		"away": sole.ID, "origin": sole.ID, "sole": away.ID, "dead": sole.ID, "held": away.ID, "document": origin.ID,
		"undelivered": origin.ID,
	}
	for _, list := range spool.Lists {
		before := len(findings())
		stranger := strangers[list]
		must(t, spool.Unlist(cfg, list, &stranger))
		if all := findings(); len(all) != before+1 {
			t.Errorf("a stranger in the list %s: %q, want one more finding than %d", list, all, before)
		}
		must(t, spool.Unlist(cfg, list, &envelope.ID{9}))
		if all := findings(); list != "document" && len(all) != before+2 {
			t.Errorf("nobody in the list %s: %q, want two more findings than %d", list, all, before)
		}
		must(t, spool.Unlist(cfg, list, nil))
		all := findings()
		if want := map[string]int{"document": before + 2, "undelivered": before + 2}[list]; len(all) != max(want, before+1) {
			t.Errorf("without the list %s: %q, want one more finding than %d for each that was there", list, all, before)
		}
	}
}

// A journal of an earlier program is refused, in words.
func TestAnOtherReleaseIsRefused(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	n.mustPut(newParcel(1, 10).inbox("A"))
	n.end()
	must(t, spool.Age(cfg))
	_, err := spool.Open(cfg)
	if err == nil || !strings.Contains(err.Error(), "belongs to another release") {
		t.Errorf("open: %v, want that the spool belongs to another release", err)
	}
}

// After a failure of the disk nothing is taken, and Run says why.
func TestAFailureEndsTheSpool(t *testing.T) {
	d := newDisk(1)
	cfg := config(t)
	cfg.FS = d
	s, err := spool.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.Background()) }()
	n := &node{Spool: s, t: t}
	n.mustPut(newParcel(1, 10).inbox("A"))
	d.cutAfter(1)
	_, err = n.put(newParcel(2, 10).inbox("A"))
	failed := exchangev1.ErrorReason_ERROR_REASON_STORAGE_FAILED
	wantReason(t, err, failed)
	if err := <-ran; !errors.Is(err, errPowerCut) {
		t.Errorf("Run: %v, want the failure of the disk", err)
	}
	_, err = s.Begin(context.Background(), &newParcel(3, 10).inbox("A").Custody)
	wantReason(t, err, failed)
	_, err = s.Settle(context.Background(), []envelope.Settlement{{ID: newParcel(1, 10).ID, Agency: "A", Transport: done}})
	wantReason(t, err, failed)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Record(newParcel(1, 10).ID); !errors.Is(err, spool.ErrClosed) {
		t.Errorf("a closed spool answers %v, want ErrClosed", err)
	}
}
