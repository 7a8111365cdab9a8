package spool_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// Content that was here with another way goes when that comes to its end: whoever
// looks at it is told to send it, as by Commit, at the beginning and in between.
func TestContentIsReleasedBeforeTheCommit(t *testing.T) {
	ctx := context.Background()
	n := start(t, config(t))
	p := newParcel(7, 1<<20, 3)
	n.mustPut(p.with().inbox("B"))
	in := n.begin(p.with().inbox("A").fromSender())
	r, err := in.Content(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	n.settle(1, envelope.Settlement{ID: p.ID, Agency: "B", Transport: done})
	eventually(t, "the release", func() bool { return n.record(p).ContentReleased })
	_, err = io.Copy(io.Discard, r)
	wantReason(t, err, exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT)
	_, err = in.Content(ctx, 0)
	wantReason(t, err, exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT)
	in.Close()
	n.mustPut(p.inbox("A").fromSender())
}

// What came can be read before the commit, however it is kept: in memory, in the
// journal, from before a restart, or with an envelope that passed through here.
func TestContentBeforeTheCommit(t *testing.T) {
	for name, c := range map[string]struct {
		sizes []int
		piece int
		// restart, where set, comes after so many bytes of the first part.
		restart int
		passed  bool
	}{
		"in memory":             {sizes: []int{1000, 0, 70_000}, piece: 500},
		"in the journal":        {sizes: []int{3 << 20, 10, 1 << 20}, piece: 100_000},
		"in large pieces":       {sizes: []int{3 << 20, 700_000}, piece: 1 << 20},
		"in crumbs":             {sizes: []int{300 << 10, 5}, piece: 777},
		"after a restart":       {sizes: []int{3 << 20, 400_000}, piece: 1 << 20, restart: 2 << 20},
		"here with another way": {sizes: []int{1 << 20, 3}, piece: 1 << 20, passed: true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			cfg := config(t)
			n := start(t, cfg)
			p := newParcel(7, c.sizes...).inbox("A")
			if c.passed {
				n.mustPut(newParcel(7, c.sizes...).onward("nam", "B"))
				p = p.fromSender()
			}
			in := n.begin(p)
			if c.restart > 0 {
				for at := 0; at < c.restart; at += c.piece {
					if err := in.Write(ctx, 0, uint64(at), p.content[0][at:at+c.piece]); err != nil {
						t.Fatal(err)
					}
				}
				in.Close()
				n.end()
				n = start(t, cfg)
				in = n.begin(p)
			}
			if !c.passed {
				if err := write(in, p, c.piece); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // reading changes nothing
				for part, want := range p.content {
					r, err := in.Content(ctx, part)
					if err != nil {
						t.Fatal(err)
					}
					got, err := io.ReadAll(r)
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("part %d: %d bytes, %v; want those of the sender, %d", part, len(got), err, len(want))
					}
					r.Close()
				}
			}
			_, err := in.Content(ctx, len(c.sizes))
			wantReason(t, err, exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD)
			if _, err := in.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			in.Close()
			n.wantContent(p)
			n.end()
			check(t, cfg)
		})
	}
}

// What is given up is not there for a resume, and is taken when it comes anew.
func TestAbandon(t *testing.T) {
	for name, size := range map[string]int{"in memory": 1000, "in the journal": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			cfg := config(t)
			n := start(t, cfg)
			p := newParcel(9, size).inbox("A")
			in := n.begin(p)
			if err := write(in, p, 100_000); err != nil {
				t.Fatal(err)
			}
			if err := in.Abandon(ctx); err != nil {
				t.Fatal(err)
			}
			cut := exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT
			_, err := in.Commit(ctx)
			wantReason(t, err, cut)
			_, err = in.Content(ctx, 0)
			wantReason(t, err, cut)
			in.Close()
			if _, err := n.Record(p.ID); err == nil {
				t.Error("what was given up is there")
			}
			in = n.begin(p)
			if got := in.Offsets(); got[0] != 0 {
				t.Errorf("%d bytes of what was given up are kept, want 0", got[0])
			}
			in.Close()
			n.mustPut(p)
			n.wantContent(p)
			n.end()
			check(t, cfg)
		})
	}
}
