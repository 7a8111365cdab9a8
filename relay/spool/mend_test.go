package spool_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
)

// holder is another relay that has what was put there.
type holder struct {
	mu      sync.Mutex
	parcels map[envelope.ID]*parcel
	asked   int
	// spoil changes an answer; nil: it is right.
	spoil func(asked int, b []byte) ([]byte, error)
}

func (h *holder) has(parcels ...*parcel) *holder {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.parcels == nil {
		h.parcels = make(map[envelope.ID]*parcel)
	}
	for _, p := range parcels {
		h.parcels[p.ID] = p
	}
	return h
}

func (h *holder) Mend(_ context.Context, r *envelope.Record, part int, offset, length uint64) (io.ReadCloser, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	p := h.parcels[r.ID]
	if p == nil {
		return nil, errors.New("nobody has it")
	}
	b := bytes.Clone(p.content[part][offset : offset+length])
	if h.spoil != nil {
		var err error
		if b, err = h.spoil(h.asked, b); err != nil {
			return nil, err
		}
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// readAll reads one part to the end.
func (n *node) readAll(p *parcel, part int) ([]byte, error) {
	n.t.Helper()
	r, err := n.Content(p.ID, part, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (n *node) actions(p *parcel) (all []exchangev1.TraceAction) {
	n.t.Helper()
	events, err := n.Events(p.ID)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, e := range events {
		all = append(all, e.Action)
	}
	return all
}

func count[T comparable](all []T, one T) (n int) {
	for _, v := range all {
		if v == one {
			n++
		}
	}
	return n
}

const (
	quarantinedAction = exchangev1.TraceAction_TRACE_ACTION_QUARANTINED
	repairedAction    = exchangev1.TraceAction_TRACE_ACTION_REPAIRED
)

// fill has the segments so far full, and the index beyond them.
func (n *node) fill(seed uint64, cfg spool.Config) {
	n.t.Helper()
	for i := range uint64(12) {
		p := newParcel(seed+i, 200_000).inbox("FILL")
		n.mustPut(p)
		n.settle(1, envelope.Settlement{ID: p.ID, Agency: "FILL", Transport: done})
	}
}

func putAside(t testing.TB, cfg spool.Config) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(cfg.Dir, "journal", "quarantine", "*.damaged"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// However content lies and however its damage is found: it comes back from
// another holder, the trace says so, the file is put aside as it was found, and
// all of it outlives the loss of the index.
func TestDamageIsMended(t *testing.T) {
	layouts := map[string][]int{
		"in one record": {50_000}, "in one record, several parts": {10, 90_000, 0, 20_000},
		"in chunks": {3 << 20}, "in chunks, several parts": {100, 900_000, 2 << 20},
	}
	for layout, sizes := range layouts {
		for _, found := range []string{"when it is read", "by a look", "at the start"} {
			t.Run(layout+", "+found, func(t *testing.T) {
				t.Parallel()
				cfg := config(t)
				hurtful := 0
				for i, size := range sizes {
					if size > sizes[hurtful] {
						hurtful = i
					}
				}
				bad := newParcel(1, sizes...).fromSender().inbox("A").onward("nam", "B")
				good := newParcel(2, 100_000, 400_000).inbox("A")
				other := new(holder).has(bad)
				cfg.Mend = other.Mend
				if found == "by a look" {
					cfg = spool.Vigilant(cfg)
				} else {
					cfg = spool.Careless(cfg)
				}
				n := start(t, cfg)
				n.mustPut(good)
				n.mustPut(bad)
				n.fill(100, cfg)
				if found == "at the start" {
					n.end()
					// The index is of an earlier time, so the journal is read.
					if err := os.RemoveAll(filepath.Join(cfg.Dir, "index")); err != nil {
						t.Fatal(err)
					}
					if len(sizes) == 1 && sizes[0] < 1<<18 {
						t.Skip("then nobody knows of the envelope: TestRebuildFromADamagedJournal")
					}
					if layout == "in one record, several parts" {
						t.Skip("the same")
					}
				}
				middle := sizes[hurtful] / 2
				hurt(t, cfg, bad.content[hurtful][middle:middle+100])
				switch found {
				case "when it is read":
					if b, err := n.readAll(bad, hurtful); err == nil && !bytes.Equal(b, bad.content[hurtful]) {
						t.Error("damaged bytes were given out")
					}
				case "at the start":
					n = start(t, cfg)
				}
				eventually(t, "the damage to be mended", func() bool { return n.Stats().Repaired == 1 })
				n.wantContent(bad)
				n.wantContent(good)
				if st := n.Stats(); st.Damaged != 1 || st.Quarantined != 0 || st.LostRecords > 1 {
					t.Errorf("counted %d damaged, %d in quarantine, %d records lost", st.Damaged, st.Quarantined, st.LostRecords)
				}
				trace := n.actions(bad)
				if count(trace, quarantinedAction) != 1 || count(trace, repairedAction) != 1 ||
					slices.Index(trace, quarantinedAction) > slices.Index(trace, repairedAction) {
					t.Errorf("trace is %v, want quarantined and then repaired, once each", trace)
				}
				if count(n.actions(good), quarantinedAction) != 0 {
					t.Error("the trace of another envelope speaks of quarantine")
				}
				eventually(t, "the damaged segment to be put aside", func() bool { return len(putAside(t, cfg)) == 1 })
				aside, err := os.ReadFile(putAside(t, cfg)[0])
				if err != nil || !bytes.Contains(aside, bad.content[hurtful][middle+1:middle+100]) {
					t.Errorf("what is put aside does not hold the damage: %v", err)
				}
				n.end()
				check(t, cfg)
				if err := os.RemoveAll(filepath.Join(cfg.Dir, "index")); err != nil {
					t.Fatal(err)
				}
				check(t, cfg)
				n = start(t, cfg)
				n.wantContent(bad)
				n.wantContent(good)
				if len(n.inboxOf("A")) != 2 || len(n.queueOf("nam")) != 1 {
					t.Error("a duty is missing after the index was lost")
				}
				if st := n.Stats(); st.Damaged != 0 || st.LostRecords != 0 {
					t.Errorf("after all was mended a rebuild finds %d damaged, %d records lost", st.Damaged, st.LostRecords)
				}
			})
		}
	}
}

// Bytes from elsewhere count when the part they belong to has its SHA-256, and
// not before: whatever another holder gives, nobody is given anything else.
func TestMendedBytesAreProved(t *testing.T) {
	for name, spoil := range map[string]func(b []byte) ([]byte, error){
		"one bit turned":  func(b []byte) ([]byte, error) { b[len(b)/3] ^= 1; return b, nil },
		"another version": func(b []byte) ([]byte, error) { return bytes.Repeat([]byte{7}, len(b)), nil },
		"too short":       func(b []byte) ([]byte, error) { return b[:len(b)-1], nil },
		"nothing":         func([]byte) ([]byte, error) { return nil, errors.New("down") },
	} {
		for layout, size := range map[string]int{"small": 60_000, "large": 12 << 20} {
			t.Run(name+", "+layout, func(t *testing.T) {
				t.Parallel()
				cfg := spool.Careless(config(t))
				cfg.SegmentSize = 16 << 20
				p := newParcel(1, size).inbox("A")
				other := new(holder).has(p)
				const wrong = 3
				other.spoil = func(asked int, b []byte) ([]byte, error) {
					if asked <= wrong {
						return spoil(b)
					}
					return b, nil
				}
				cfg.Mend = other.Mend
				n := start(t, cfg)
				n.mustPut(p)
				// All of it is damaged: more than is kept in memory until it is proved.
				for at := 0; at < size; at += 150_000 {
					hurt(t, cfg, p.content[0][at:at+100])
				}
				for range 20 {
					if b, err := n.readAll(p, 0); err == nil && !bytes.Equal(b, p.content[0]) {
						t.Fatal("bytes that were never sent were given out")
					}
				}
				eventually(t, "the right bytes", func() bool { return n.Stats().Repaired == 1 })
				n.wantContent(p)
				other.mu.Lock()
				defer other.mu.Unlock()
				if want := wrong + 1; other.asked < want {
					t.Errorf("asked %d times, want %d at the least", other.asked, want)
				}
			})
		}
	}
}

// A holder that changes its mind between the proof and the bytes is found out.
func TestTheSecondAnswerIsProvedToo(t *testing.T) {
	cfg := spool.Careless(config(t))
	cfg.SegmentSize = 32 << 20
	p := newParcel(1, 12<<20).inbox("A")
	other := new(holder).has(p)
	other.spoil = func(asked int, b []byte) ([]byte, error) {
		if asked == 2 { // the rest, that was not kept
			b[len(b)-5] ^= 1
		}
		return b, nil
	}
	cfg.Mend = other.Mend
	n := start(t, cfg)
	n.mustPut(p)
	for at := 0; at < len(p.content[0]); at += 150_000 {
		hurt(t, cfg, p.content[0][at:at+100])
	}
	if _, err := n.readAll(p, 0); err == nil {
		t.Error("damaged content was read")
	}
	eventually(t, "the right bytes", func() bool { return n.Stats().Repaired == 1 })
	n.wantContent(p)
}

// What was on its way in begins anew.
func TestADamagedTransferBeginsAnew(t *testing.T) {
	cfg := spool.Careless(config(t))
	n := start(t, cfg)
	p := newParcel(1, 3<<20).inbox("A")
	in, err := n.Begin(t.Context(), &p.Custody)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Write(t.Context(), 0, 0, p.content[0][:2<<20]); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	n.end()
	hurt(t, cfg, p.content[0][300_000:300_100])
	n = start(t, cfg)
	if in, err = n.Begin(t.Context(), &p.Custody); err != nil {
		t.Fatal(err)
	}
	err = write(in, p, 200<<10)
	if err == nil {
		_, err = in.Commit(t.Context())
	}
	if !errors.Is(err, spool.ErrDamaged) {
		t.Errorf("going on with damaged bytes: %v, want ErrDamaged", err)
	}
	in.Close()
	eventually(t, "the transfer to be given up", func() bool { return n.Stats().Transfers == 0 })
	n.mustPut(p)
	n.wantContent(p)
}
