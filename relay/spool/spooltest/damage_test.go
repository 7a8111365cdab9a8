package spooltest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/relay/spool/spooltest"
	"github.com/truclienthong/truc/routing"
)

// The part that is named is damaged, and no other, in a spool that runs.
func TestDamage(t *testing.T) {
	for name, sizes := range map[string][]int{"in one record": {1000, 2000}, "in chunks": {700_000, 2_500_000}} {
		for part := range sizes {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				s, err := spool.Open(spool.Config{Dir: dir, Self: "bac", SegmentSize: 4 << 20, IndexMemory: 8 << 20, IndexOverlay: 256 << 10, Ballast: -1})
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- s.Run(ctx) }()
				c := &envelope.Custody{
					Header: []byte("header"), Sender: "H26", DocumentID: "1", Ingress: "bac",
					AcceptedAt: time.Unix(1_700_000_000, 0), Inboxes: []routing.AgencyCode{"A"},
				}
				var contents [][]byte
				for i, size := range sizes {
					b := bytes.Repeat([]byte{byte(i + 1), 7}, size/2)
					contents = append(contents, b)
					c.Parts = append(c.Parts, envelope.PartSum{Size: uint64(size), SHA256: sha256.Sum256(b)})
				}
				c.ID = envelope.ComputeID(string(c.Sender), c.DocumentID, c.Header)
				if err := spooltest.Damage(dir, c.ID, part); !errors.Is(err, spool.ErrNotFound) {
					t.Errorf("an envelope that is not there: %v, want ErrNotFound", err)
				}
				in, err := s.Begin(ctx, c)
				if err != nil {
					t.Fatal(err)
				}
				for i, b := range contents {
					if err := in.Write(ctx, i, 0, b); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := in.Commit(ctx); err != nil {
					t.Fatal(err)
				}
				if err := spooltest.Damage(dir, c.ID, part); err != nil {
					t.Fatal(err)
				}
				for i := range sizes {
					r, err := s.Content(c.ID, i, 0)
					if err != nil {
						t.Fatal(err)
					}
					_, err = io.Copy(io.Discard, r)
					r.Close()
					// What lies in one record is proved as one.
					if want := i == part || name == "in one record"; errors.Is(err, spool.ErrDamaged) != want {
						t.Errorf("part %d: %v, want ErrDamaged: %v", i, err, want)
					}
				}
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
