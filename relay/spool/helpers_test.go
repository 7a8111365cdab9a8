package spool_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

const self = routing.RelayID("bac")

// clock is a time that tests move on.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Microsecond)
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// config is a small spool in a directory of the test.
func config(t testing.TB) spool.Config {
	return spool.Config{
		Dir: t.TempDir(), Self: self, SegmentSize: 1 << 20,
		IndexMemory: 8 << 20, IndexOverlay: 256 << 10,
	}
}

// failer is what tests and checks of rapid have in common.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Fatal(args ...any)
}

// node is an open spool with Run under way.
type node struct {
	*spool.Spool
	t    failer
	stop func() error
	once sync.Once
}

func start(t failer, cfg spool.Config) *node {
	t.Helper()
	s, err := spool.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	n := &node{Spool: s, t: t}
	n.stop = func() error {
		cancel()
		err := <-done
		if closeErr := s.Close(); err == nil {
			err = closeErr
		}
		return err
	}
	if t, ok := t.(interface{ Cleanup(func()) }); ok {
		t.Cleanup(func() { n.end() })
	}
	return n
}

// end stops the spool in good order.
func (n *node) end() {
	n.once.Do(func() {
		if err := n.stop(); err != nil {
			n.t.Errorf("spool ended: %v", err)
		}
	})
}

// check wants the crash rule to hold.
func check(t failer, cfg spool.Config) {
	t.Helper()
	err := spool.Check(cfg, func(f spool.Finding) { t.Errorf("check: %s", f) })
	if err != nil {
		t.Fatal(err)
	}
}

// bytesOf are bytes that look random and are the same every time.
func bytesOf(seed uint64, size int) []byte {
	b := make([]byte, size)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	rand.NewChaCha8(key).Read(b)
	return b
}

// parcel is an envelope with its content.
type parcel struct {
	envelope.Custody
	content [][]byte
}

func newParcel(seed uint64, sizes ...int) *parcel {
	p := &parcel{Custody: envelope.Custody{
		Header: headerOf(seed), Sender: "H26", DocumentID: fmt.Sprintf("doc-%d", seed),
		Ingress: "tay", AcceptedAt: time.Unix(1_700_000_000, 0).UTC(),
	}}
	for i, size := range sizes {
		b := bytesOf(seed<<8+uint64(i), size)
		p.content = append(p.content, b)
		p.Parts = append(p.Parts, envelope.PartSum{Size: uint64(size), SHA256: sha256.Sum256(b)})
	}
	p.ID = envelope.ComputeID(string(p.Sender), p.DocumentID, p.Header)
	return p
}

// headerOf is the header of a document; of those behind one another every third has
// the same number.
func headerOf(seed uint64) []byte {
	h := &exchangev1.Header{
		Kind: exchangev1.Kind_KIND_DOCUMENT, DocumentId: fmt.Sprintf("doc-%d", seed),
		Document: &exchangev1.Document{Code: &exchangev1.Code{Number: fmt.Sprint(1 + seed%3), Notation: "BC-UBND"}, Subject: fmt.Sprintf("header %d", seed)},
	}
	b, err := envelope.Canonical(h)
	if err != nil {
		panic(err)
	}
	return b
}

func (p *parcel) inbox(agencies ...routing.AgencyCode) *parcel {
	p.Inboxes = append(p.Inboxes, agencies...)
	return p
}

func (p *parcel) onward(relay routing.RelayID, agencies ...routing.AgencyCode) *parcel {
	p.Onward = append(p.Onward, envelope.Onward{Relay: relay, Agencies: agencies})
	return p
}

func (p *parcel) fromSender() *parcel {
	p.FromSender, p.Ingress = true, self
	return p
}

// with returns the same envelope with no duties yet.
func (p *parcel) with() *parcel {
	q := *p
	q.Inboxes, q.Onward, q.Kept, q.FromSender = nil, nil, nil, false
	return &q
}

// put sends an envelope to the spool in pieces.
func (n *node) put(p *parcel) (*envelope.Record, error) {
	for {
		record, err := n.putOnce(p)
		if r, ok := envelope.AsRefusal(err); ok && r.Reason == exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT {
			continue // its content was released between Begin and Commit
		}
		return record, err
	}
}

func (n *node) putOnce(p *parcel) (*envelope.Record, error) {
	in, err := n.Begin(context.Background(), &p.Custody)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if record, repeat := in.Repeat(); repeat {
		return record, nil
	}
	if err := write(in, p, 200<<10); err != nil {
		return nil, err
	}
	return in.Commit(context.Background())
}

// write sends what is not there yet.
func write(in *spool.Incoming, p *parcel, piece int) error {
	for i, offset := range in.Offsets() {
		for offset < uint64(len(p.content[i])) {
			data := p.content[i][offset:min(int(offset)+piece, len(p.content[i]))]
			if err := in.Write(context.Background(), i, offset, data); err != nil {
				return err
			}
			offset += uint64(len(data))
		}
	}
	return nil
}

func (n *node) mustPut(p *parcel) *envelope.Record {
	n.t.Helper()
	record, err := n.put(p)
	if err != nil {
		n.t.Fatalf("put %s: %v", p.ID, err)
	}
	return record
}

// wantContent reads every part back.
func (n *node) wantContent(p *parcel) {
	n.t.Helper()
	for i, want := range p.content {
		r, err := n.Content(p.ID, i, 0)
		if err != nil {
			n.t.Fatalf("content of part %d: %v", i, err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, want) {
			n.t.Fatalf("part %d: got %d bytes, %v, want the %d that were sent", i, len(got), err, len(want))
		}
	}
}

func (n *node) inboxOf(agency routing.AgencyCode) []envelope.ID {
	n.t.Helper()
	entries, err := n.Inbox(agency, envelope.Position{}, 1000)
	if err != nil {
		n.t.Fatal(err)
	}
	var ids []envelope.ID
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	return ids
}

func (n *node) queueOf(relay routing.RelayID) []envelope.QueueEntry {
	n.t.Helper()
	entries, err := n.Queue(relay, envelope.Position{}, 1000)
	if err != nil {
		n.t.Fatal(err)
	}
	return entries
}

// eventually waits for something that happens by itself.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
