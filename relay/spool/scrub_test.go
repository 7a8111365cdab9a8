package spool_test

import (
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
)

// The last record of a sealed segment has nothing behind it that would show its
// damage; nobody reads it either.
func TestScrubFindsTheLastRecordOfASegment(t *testing.T) {
	cfg := spool.Vigilant(config(t))
	other := new(holder)
	cfg.Mend = other.Mend
	cfg.ScrubEvery = time.Hour
	n := start(t, cfg)
	var all []*parcel
	for i := range uint64(12) {
		all = append(all, newParcel(i, 200_000).inbox("A"))
		other.has(all[i])
		n.mustPut(all[i])
	}
	n.end()
	// Of each segment the parcel that lies last.
	last := make(map[string]*parcel)
	ends := make(map[string]int64)
	for _, p := range all {
		file, offset, length, err := spool.Locate(cfg.Dir, p.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		if offset+length > ends[file] {
			last[file], ends[file] = p, offset+length
		}
	}
	for _, p := range last {
		hurt(t, cfg, p.content[0][len(p.content[0])-100:])
	}
	n = start(t, cfg)
	eventually(t, "all of it to be found and mended", func() bool { return n.Stats().Repaired == len(last) })
	for _, p := range all {
		n.wantContent(p)
	}
}

// A start does not read everything at once.
func TestScrubKeepsToItsRate(t *testing.T) {
	cfg := spool.Vigilant(config(t))
	cfg.ScrubRate, cfg.ScrubEvery = 1, time.Hour // a byte a second
	n := start(t, cfg)
	p := newParcel(1, 200_000).inbox("A")
	n.mustPut(p)
	n.fill(100, cfg)
	hurt(t, cfg, p.content[0][1000:1100])
	q := newParcel(2, 10).inbox("A")
	for range 50 {
		n.mustPut(q)
	}
	if got := n.Stats().Damaged; got != 0 {
		t.Errorf("found %d damaged envelopes at a byte a second", got)
	}
	// Whoever comes upon it is faster.
	if _, err := n.readAll(p, 0); err == nil {
		t.Error("damaged content was read")
	}
	eventually(t, "its segment to be known as damaged and put aside", func() bool {
		return n.Stats().Quarantined == 1 && len(putAside(t, cfg)) == 1
	})
	n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
}
