package keeper_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/keeper"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// onDisk is the real spool; what is not known is refused as package relay does.
type onDisk struct{ *spool.Spool }

var _ keeper.Spool = onDisk{}

func (s onDisk) Record(id envelope.ID) (*envelope.Record, error) {
	r, err := s.Spool.Record(id)
	if errors.Is(err, spool.ErrNotFound) {
		err = envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, "not known")
	}
	return r, err
}

func openSpool(t *testing.T) onDisk {
	t.Helper()
	s, err := spool.Open(spool.Config{Dir: t.TempDir(), Self: "bac", SegmentSize: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Error(err)
		}
	})
	return onDisk{s}
}

// accept puts an envelope into the spool.
func (s onDisk) accept(ctx context.Context, n int, edit func(*envelope.Custody)) (envelope.ID, error) {
	content := []byte("content")
	c := &envelope.Custody{
		Header: fmt.Appendf(nil, "header %d", n), Sender: "H26", DocumentID: fmt.Sprint(n), Ingress: "bac", FromSender: true,
		AcceptedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
		Parts: []envelope.PartSum{{Size: uint64(len(content)), SHA256: sha256.Sum256(content)}},
	}
	c.ID = envelope.ComputeID("H26", c.DocumentID, c.Header)
	edit(c)
	in, err := s.Begin(ctx, c)
	if err != nil {
		return c.ID, err
	}
	defer in.Close()
	if err := in.Write(ctx, 0, 0, content); err != nil {
		return c.ID, err
	}
	_, err = in.Commit(ctx)
	return c.ID, err
}

// onDiskWorld is a keeper over the real spool.
func onDiskWorld(t *testing.T) (*world, onDisk) {
	t.Helper()
	w, s := newWorld(t), openSpool(t)
	var err error
	w.keeper, err = keeper.New(keeper.Config{
		Self: "bac", Spool: s, Directory: w.directory, Peers: w.others,
		Usable: func(relay routing.RelayID) (time.Duration, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return 0, w.up[relay]
		},
		ReviewEvery: 50 * time.Millisecond, ReviewPause: 5 * time.Millisecond, ExpireEvery: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w, s
}

// eventually waits until it holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	limit := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: not in time", what)
		}
	}
}

// Thousands that a lost relay had wait again for their recipients' new home
// within seconds, in the real spool.
func TestThousandsAreSentAgainSoon(t *testing.T) {
	w, s := onDiskWorld(t)
	const n = 1000
	ids := make([]envelope.ID, n)
	var group errgroup.Group
	group.SetLimit(256)
	for i := range n {
		group.Go(func() (err error) {
			ids[i], err = s.accept(t.Context(), i, func(c *envelope.Custody) {
				c.Onward = []envelope.Onward{{Relay: "nam", Agencies: []routing.AgencyCode{"H29"}}}
			})
			if err != nil {
				return err
			}
			return s.HandOn(t.Context(), envelope.HandedOn{ID: ids[i], Destination: "nam", Peer: "nam", Agencies: []routing.AgencyCode{"H29"}})
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	stop := w.run()
	defer stop()
	start := time.Now()
	w.lose("nam")
	eventually(t, "sent again", func() bool {
		away, err := s.Away("nam", envelope.ID{}, 1)
		return err == nil && len(away) == 0
	})
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("%d sent again after %s", n, took)
	}
	for _, id := range ids {
		r, err := s.Record(id)
		if err != nil || len(r.Onward) == 0 || r.Onward[0].Relay != "trung" || len(r.Holders) > 0 {
			t.Fatalf("%s: got %+v, %v", id, r, err)
		}
	}
}

// Facts of the keeper, as the real spool takes them.
func TestOnDisk(t *testing.T) {
	w, s := onDiskWorld(t)
	ctx := t.Context()
	accept := func(n int, edit func(*envelope.Custody)) envelope.ID {
		t.Helper()
		id, err := s.accept(ctx, n, edit)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	handOn := func(id envelope.ID, destination, peer routing.RelayID, agencies ...routing.AgencyCode) {
		t.Helper()
		if err := s.HandOn(ctx, envelope.HandedOn{ID: id, Destination: destination, Peer: peer, Agencies: agencies}); err != nil {
			t.Fatal(err)
		}
	}
	onward := func(relay routing.RelayID, agencies ...routing.AgencyCode) func(*envelope.Custody) {
		return func(c *envelope.Custody) {
			c.Onward = append(c.Onward, envelope.Onward{Relay: relay, Agencies: agencies})
		}
	}
	kept := func(c *envelope.Custody) {
		c.FromSender, c.Ingress, c.Kept = false, "tay", []routing.AgencyCode{"H26", "H29", "H99"}
	}

	reported := accept(1, onward("nam", "H29"))
	handOn(reported, "nam", "nam", "H29")
	w.others.up("nam", reported, without(ended("H29", done, 0)))

	passed := accept(2, onward("nam", "H29"))
	handOn(passed, "nam", "tay", "H29")
	w.others.up("tay", passed, without(stands("H29", away)))
	w.others.up("nam", passed, says(stands("H29", inbox)))

	wiped := accept(3, onward("trung", "G22"))
	handOn(wiped, "trung", "trung", "G22")
	w.others.up("trung", wiped, nil)

	lostIngress := accept(4, kept)
	w.others.up("tay", lostIngress, &relayv1.ReconcileAnswer{HoldsContent: true, Ingress: true})

	over := accept(5, func(c *envelope.Custody) {
		c.FromSender, c.Ingress = false, "nam"
		c.Inboxes, c.ExpiresAt = []routing.AgencyCode{"H26"}, time.Now().Add(50*time.Millisecond)
	})

	stop := w.run()
	defer stop()
	find := func(id envelope.ID, code routing.AgencyCode) envelope.Delivery {
		t.Helper()
		r, err := s.Record(id)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(r.Deliveries, func(d envelope.Delivery) bool { return d.Agency == code })
		return r.Deliveries[i]
	}
	eventually(t, "settled", func() bool {
		d := find(reported, "H29")
		return d.Place == envelope.Settled && d.Transport == done && d.UpdatedAt.Equal(endedAt)
	})
	eventually(t, "found at its home", func() bool {
		r, err := s.Record(passed)
		return err == nil && slices.Equal(r.Holders, []routing.RelayID{"nam"}) && find(passed, "H29").Place == envelope.Elsewhere
	})
	eventually(t, "sent again", func() bool {
		r, err := s.Record(wiped)
		return err == nil && len(r.Holders) == 0 && find(wiped, "G22").Place == envelope.InQueue
	})
	eventually(t, "expired, with a report", func() bool {
		d := find(over, "H26")
		queue, err := s.Queue("nam", envelope.Position{}, 10)
		return err == nil && d.Place == envelope.Settled && d.Reason == expired && len(queue) == 1 && len(queue[0].Onward.Agencies) == 0
	})
	w.lose("tay")
	eventually(t, "taken over", func() bool {
		r, err := s.Record(lostIngress)
		return err == nil && r.FromSender && r.Ingress == "bac"
	})
	for code, want := range map[routing.AgencyCode]envelope.Delivery{
		"H26": at("H26", envelope.InInbox, "bac"), "H29": at("H29", envelope.InQueue, "nam"),
		"H99": at("H99", envelope.Kept, ""), // the directory does not know it
	} {
		if d := find(lostIngress, code); d.Place != want.Place || d.Home != want.Home {
			t.Errorf("%s: got place %d at %s, want %d at %s", code, d.Place, d.Home, want.Place, want.Home)
		}
	}
	w.mu.Lock()
	w.up["nam"] = true // so that copies can be made, and are considered
	w.mu.Unlock()
	w.agency("H99", "trung", "nam")
	eventually(t, "sent to a recipient that the directory knows again", func() bool {
		d := find(lostIngress, "H99")
		return d.Place == envelope.InQueue && d.Home == "trung"
	})
	content, err := s.Content(lostIngress, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if b, err := io.ReadAll(content); err != nil || string(b) != "content" {
		t.Errorf("content: got %q, %v", b, err)
	}
}
