package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/truclienthong/truc/cmd/relayd/node"
	"github.com/truclienthong/truc/cmd/relayd/sample"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/spooltest"
	"github.com/truclienthong/truc/test/faults"
	"github.com/truclienthong/truc/test/mesh"
)

// A relay whose disk is at its watermark takes nothing new and says so in a way
// that senders and other relays understand: senders go elsewhere, what is for its
// agencies waits, and what it has goes on to be delivered.
func TestDiskAtItsWatermark(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Links: true})
	for _, code := range []string{"H17", "H41"} { // at home at trung
		m.Agency(code)
	}
	there := send(m, 3, "G22", "H17", "H41") // in inboxes at trung
	for _, s := range there {
		m.Await("it is at trung", func(ctx context.Context) error { return arrived(ctx, m, "nam", s.ID(), "trung") })
	}
	m.StopRelay("trung")
	free, err := faults.Free(m.Data("trung", ""))
	if err != nil {
		t.Fatal(err)
	}
	m.Reconfigure("trung", func(c *node.Config) { c.Limits.DiskReserve = node.Size(free + 1<<30) })
	m.StartRelay("trung")
	m.Await("trung answers", func(ctx context.Context) error {
		health, err := m.Operator("trung").Custody.Health(ctx, &adminv1.HealthRequest{})
		if err == nil && health.GetDiskReserve() <= health.GetDiskFree() {
			err = fmt.Errorf("%d of %d bytes are free", health.GetDiskFree(), health.GetDiskReserve())
		}
		return err
	})

	// An agency that reaches no other relay has nothing accepted.
	m.AgencyLink("bac").Cut()
	m.AgencyLink("nam").Cut()
	files := mesh.Files{"a.pdf": sample.PDF("watermark", 10_000)}
	only := clientOf(t, m, "H17", func(c *agency.Config) { c.Relays, c.Patience = []string{m.Address("trung")}, 2*time.Second })
	if receipt, err := only.Submit(t.Context(), m.Agency("H17").Document(files, "G22")); err == nil {
		t.Errorf("accepted by %s though its disk is at its watermark", receipt.Relay)
	}
	m.AgencyLink("bac").Heal()
	m.AgencyLink("nam").Heal()

	sent := m.Agency("H17").Send(files, "G22", "H41")
	if sent.Receipt.Relay == "trung" {
		t.Errorf("accepted by trung, whose disk is at its watermark")
	}
	m.Agency("G22").Receive()
	m.Agency("H17").Receive()
	m.Agency("H41").Receive()
	m.Agency("G22").AwaitArrival(sent.ID())
	for _, s := range there {
		m.Agency("H17").AwaitArrival(s.ID())
		m.Agency("H41").AwaitArrival(s.ID())
	}
	m.StopRelay("trung")
	m.Reconfigure("trung", func(c *node.Config) { c.Limits.DiskReserve = 0 })
	m.StartRelay("trung")
	m.Agency("H41").AwaitArrival(sent.ID())
}

// A disk that is full to the last byte stops the relay or makes it refuse, but
// nothing that was accepted is lost: with space again everything is delivered.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := faults.SmallDisk(t, 768<<20)
	m := mesh.Start(t, mesh.Config{Links: true, Adjust: func(id string, c *node.Config) {
		if id == "trung" {
			c.Data = filepath.Join(disk, "data")
		}
	}})
	m.Agency("H17").KeepCopies()
	sent := append(send(m, 5, "H17", "G22", "H41"), send(m, 5, "G22", "H17")...)
	fill, err := faults.Fill(disk, 0)
	if err != nil {
		t.Fatal(err)
	}
	sent = append(sent, send(m, 5, "H17", "G22", "H41")...) // accepted somewhere, or kept in the outbox
	m.Agency("G22").Receive()
	sent = append(sent, send(m, 5, "G22", "H17")...)
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	m.Agency("H17").Receive()
	m.Agency("H41").Receive()
	m.Await("everything has arrived, also where trung ends late for lack of space, as it may", func(ctx context.Context) error {
		if m.Ended("trung") {
			if err := m.AwaitEnd("trung"); err == nil || !strings.Contains(err.Error(), "space") {
				t.Errorf("trung ended with %v, want a word about space", err)
			}
			m.StartRelay("trung")
		}
		for _, s := range sent {
			for _, to := range s.To {
				if !m.Agency(to).Has(s.ID()) {
					return fmt.Errorf("%s lacks %s", to, s.ID())
				}
			}
		}
		health, err := m.Operator("trung").Custody.Health(ctx, &adminv1.HealthRequest{})
		if err == nil && !health.GetServing() {
			err = errors.New(health.GetReason())
		}
		return err
	})
}

// An agency that has too much under way is refused with the reason and when to
// come again; others are not concerned, and it goes on once its recipients have
// confirmed.
func TestQuotaOfAnAgency(t *testing.T) {
	t.Parallel()
	const most = 5
	m := mesh.Start(t, mesh.Config{Adjust: func(_ string, c *node.Config) { c.Limits.QuotaEnvelopes = most }})
	sender := m.Agency("H17")
	accepted := 0
	var refused error
	impatient := clientOf(t, m, "H17", func(c *agency.Config) { c.Patience = 2 * time.Second })
	for refused == nil && accepted <= 3*most {
		document := sender.Document(mesh.Files{"a.pdf": sample.PDF(fmt.Sprint(accepted), 3_000)}, "G22")
		var receipt *agency.Receipt
		if receipt, refused = impatient.Submit(t.Context(), document); refused == nil {
			m.Note(&mesh.Sent{Receipt: receipt, Sender: sender, To: []string{"G22"}})
			accepted++
		}
	}
	if refused == nil || accepted < most {
		t.Fatalf("%d accepted, then %v; want at least %d and then a refusal", accepted, refused, most)
	}
	if r, ok := envelope.AsRefusal(refused); !ok || !r.Has(exchangev1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED) || r.RetryAfter == 0 {
		t.Errorf("refused with %v, want QUOTA_EXCEEDED and when to come again", refused)
	}
	t.Logf("%d accepted by three relays, then: %v", accepted, refused)
	send(m, 2, "H41", "G22") // at the same relay
	m.Agency("G22").Receive()
	m.Settle()
	send(m, 3, "H17", "G22")
}

// One bit of a document turns on the disk of one of those that hold it: it
// arrives unchanged, and the relay says that it was damaged and mended it.
func TestOneBitTurns(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{})
	m.Damaged()
	content := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(content)
	for _, where := range []struct{ name, relay, from, to string }{
		{"at home", "bac", "H17", "G22"},
		{"at the ingress", "nam", "H13", "H41"},
		{"at both, in other places", "", "H13.16", "G12"},
	} {
		t.Run(where.name, func(t *testing.T) {
			files := mesh.Files{"a.bin": content, "b.txt": []byte(where.name), "c.bin": bytes.Repeat([]byte(where.name), 20_000)}
			sent := m.Agency(where.from).Send(files, where.to)
			home := map[string]string{"G22": "bac", "H41": "trung", "G12": "bac"}[where.to]
			m.Await("it has arrived", func(ctx context.Context) error { return arrived(ctx, m, "nam", sent.ID(), home) })
			damage := func(relay string, part int) {
				t.Helper()
				if err := spooltest.Damage(m.Data(relay, "spool"), sent.ID(), part); err != nil {
					t.Fatal(err)
				}
			}
			if where.relay != "" {
				damage(where.relay, 0)
			} else {
				damage("bac", 0)
				damage("nam", 2)
			}
			m.Agency(where.to).Receive()
			m.Agency(where.to).AwaitArrival(sent.ID())
		})
	}
	health, err := m.Operator("bac").Custody.Health(t.Context(), &adminv1.HealthRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if health.GetDamaged() < 2 {
		t.Errorf("bac says that %d places were damaged, want 2 at least", health.GetDamaged())
	}
	t.Logf("bac: %d damaged, %d mended, %d in quarantine", health.GetDamaged(), health.GetRepaired(), health.GetQuarantined())
}

// The only relay that has a document finds its copy damaged. Its sender, who kept
// it because there was one copy, hands it in at another relay.
func TestOnlyCopyIsDamaged(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Links: true})
	m.Damaged()
	between := faults.Links{m.Link("trung", "bac"), m.Link("bac", "trung"), m.Link("trung", "nam"), m.Link("nam", "trung")}
	between.Cut()
	m.Agency("H17").KeepCopies() // at trung
	content := make([]byte, 600_000)
	_, _ = rand.NewChaCha8([32]byte{11}).Read(content)
	others := faults.Links{m.AgencyLink("bac"), m.AgencyLink("nam")}
	others.Cut()
	sent := m.Agency("H17").Send(mesh.Files{"a.bin": content}, "G22")
	m.Await("trung alone has accepted it", func(ctx context.Context) error {
		track, err := m.Agency("H17").Client.Track(ctx, sent.ID())
		if err == nil && track.GetReceipt().GetCopies() != 1 {
			err = fmt.Errorf("%d copies", track.GetReceipt().GetCopies())
		}
		return err
	})
	if err := spooltest.Damage(m.Data("trung", "spool"), sent.ID(), 0); err != nil {
		t.Fatal(err)
	}
	others.Heal()
	between.Heal()
	m.Agency("G22").Receive()
	m.Agency("G22").AwaitArrival(sent.ID())
}
