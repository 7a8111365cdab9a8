package forward_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// change changes the directory of the given relays, or of all.
func (m *mesh) change(c *directoryv1.Command, at ...routing.RelayID) {
	m.t.Helper()
	c.Version, c.Actor, c.At = 1, "spiffe://truc.test/operator/an", timestamppb.Now()
	b, err := proto.Marshal(c)
	if err != nil {
		m.t.Fatal(err)
	}
	for id, n := range m.nodes {
		if len(at) > 0 && !slices.Contains(at, id) {
			continue
		}
		answer, err := n.directory.Apply(b)
		if err != nil {
			m.t.Fatalf("directory: %v", err)
		}
		result := new(directoryv1.CommandResult)
		if err := proto.Unmarshal(answer, result); err != nil || result.GetReason() != 0 {
			m.t.Fatalf("directory refuses: %s %v", result.GetMessage(), err)
		}
	}
}

func (m *mesh) putAgency(code routing.AgencyCode, home routing.RelayID) {
	m.t.Helper()
	m.change(&directoryv1.Command{Change: &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{
		Agency: &directoryv1.Agency{Code: string(code), Name: "Cơ quan " + string(code), Tier: 2, HomeRelayId: string(home)},
	}}})
}

func (m *mesh) move(code routing.AgencyCode, home routing.RelayID, at ...routing.RelayID) {
	m.t.Helper()
	m.change(&directoryv1.Command{Change: &directoryv1.Command_MoveAgency{MoveAgency: &directoryv1.MoveAgency{
		AgencyCode: string(code), HomeRelayId: string(home),
	}}}, at...)
}

func (m *mesh) suspend(code routing.AgencyCode, at ...routing.RelayID) {
	m.t.Helper()
	m.change(&directoryv1.Command{Change: &directoryv1.Command_SuspendAgency{SuspendAgency: &directoryv1.SuspendAgency{
		AgencyCode: string(code), Suspended: true,
	}}}, at...)
}

// letter makes a header for content and its custody at a relay.
func letter(document string, priority exchangev1.Priority, content ...[]byte) *exchangev1.Header {
	h := &exchangev1.Header{
		Kind: exchangev1.Kind_KIND_DOCUMENT, Sender: &exchangev1.Organization{Code: string(sender)},
		DocumentId: document, Priority: priority,
		Recipients: []*exchangev1.Recipient{{To: &exchangev1.Recipient_Group{Group: "provinces"}}},
	}
	for i, data := range content {
		sum := sha256.Sum256(data)
		h.Parts = append(h.Parts, &exchangev1.Part{Name: fmt.Sprintf("%d.pdf", i), Size: uint64(len(data)), Sha256: sum[:]})
	}
	return h
}

// accept puts an envelope from its sender into the spool of a relay, as its
// ingress does.
func (n *node) accept(h *exchangev1.Header, content [][]byte, to ...routing.AgencyCode) envelope.ID {
	n.mesh.t.Helper()
	canonical, err := envelope.Canonical(h)
	if err != nil {
		n.mesh.t.Fatal(err)
	}
	a := envelope.Acceptance{Ingress: n.id, AcceptedAt: time.Now(), FromSender: true}
	for home, codes := range n.directory.View().Spread(to) {
		if home == n.id {
			a.Inboxes = codes
		} else {
			a.Onward = append(a.Onward, envelope.Onward{Relay: home, Agencies: codes})
		}
	}
	c, err := envelope.NewCustody(h, canonical, a)
	if err != nil {
		n.mesh.t.Fatal(err)
	}
	in, err := n.spool.Begin(n.mesh.t.Context(), c)
	if err != nil {
		n.mesh.t.Fatal(err)
	}
	defer in.Close()
	for i, data := range content {
		n.spool.mu.Lock()
		n.spool.partial[c.ID][i] = data
		n.spool.mu.Unlock()
	}
	if _, err := in.Commit(n.mesh.t.Context()); err != nil {
		n.mesh.t.Fatal(err)
	}
	return c.ID
}

// send accepts a small ordinary document.
func (n *node) send(document string, to ...routing.AgencyCode) envelope.ID {
	n.mesh.t.Helper()
	content := []byte("Công văn " + document)
	return n.accept(letter(document, exchangev1.Priority_PRIORITY_THUONG, content), [][]byte{content}, to...)
}

// bulk is content that does not repeat.
func bulk(size int) []byte {
	data := make([]byte, size)
	r := rand.NewChaCha8([32]byte{7})
	_, _ = r.Read(data)
	return data
}

// until waits, on the fake clock, for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for range 6000 {
		synctest.Wait()
		if condition() {
			return
		}
		pass(100 * time.Millisecond)
	}
	t.Fatalf("did not happen in ten minutes: %s", what)
}

// pass lets time pass on the fake clock.
func pass(d time.Duration) { <-time.After(d) }

// reports is the ledger.
type reports struct {
	mu      sync.Mutex
	applied []envelope.Settlement
	refuse  error
}

func (r *reports) Apply(_ context.Context, report *envelope.Custody) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != nil {
		return r.refuse
	}
	s, err := envelope.ParseReport(report)
	if err == nil {
		r.applied = append(r.applied, s)
	}
	return err
}

func (r *reports) Ready(context.Context, *envelope.Custody) error { return nil }

func (r *reports) Heard(context.Context, *envelope.Record, bool) error { return nil }

func (r *reports) list() []envelope.Settlement {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.applied)
}
