package mesh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// Settle waits until every recipient that receives has confirmed every
// document, and the sender's track says so.
func (m *Mesh) Settle() {
	m.t.Helper()
	m.mu.Lock()
	agencies := slices.Collect(maps.Values(m.agencies))
	m.mu.Unlock()
	for _, a := range agencies {
		a.emptyOutbox()
	}
	for _, sent := range m.allSent() {
		for _, code := range sent.To {
			if a, ok := m.receiver(code); ok && !m.isGivenUp(sent, code) {
				a.AwaitArrival(sent.ID())
			}
		}
		m.Await(fmt.Sprintf("track of %s says done", sent.ID()), func(ctx context.Context) error {
			track, err := sent.Sender.Client.Track(ctx, sent.ID())
			if err != nil {
				return err
			}
			return m.tracked(sent, track)
		})
	}
}

// GivenUp says that a document is not to reach some of its recipients, and for
// what reason its sender is to see.
func (m *Mesh) GivenUp(sent *Sent, reason exchangev1.ErrorReason, codes ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if sent.givenUp == nil {
		sent.givenUp = map[string]exchangev1.ErrorReason{}
	}
	for _, code := range codes {
		sent.givenUp[code] = reason
	}
}

// Revived takes GivenUp back.
func (m *Mesh) Revived(sent *Sent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	sent.givenUp = nil
}

func (m *Mesh) isGivenUp(sent *Sent, code string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := sent.givenUp[code]
	return ok
}

// Delivered says that the test itself has received a document for all of its
// recipients.
func (m *Mesh) Delivered(sent *Sent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	sent.delivered = true
}

// traceOf is what the relays say of an envelope, for a test that failed.
func (m *Mesh) traceOf(id envelope.ID) string {
	ctx, cancel := context.WithTimeout(m.ctx, 5*time.Second)
	defer cancel()
	trace, err := m.Operator("").Custody.Trace(ctx, &adminv1.TraceRequest{EnvelopeId: id[:]})
	if err != nil {
		return fmt.Sprintf("no trace: %v", err)
	}
	var b strings.Builder
	for _, d := range trace.GetDeliveries() {
		fmt.Fprintf(&b, "delivery %s at %s: %s\n", d.GetAgencyCode(), d.GetHomeRelayId(), d.GetTransport())
	}
	for _, e := range trace.GetEvents() {
		fmt.Fprintf(&b, "%s %s %s %s %s %s\n", e.GetAt().AsTime().Format(time.StampMilli), e.GetRelayId(), e.GetAction(),
			e.GetPeerRelayId(), e.GetAgencyCode(), e.GetNote())
	}
	return b.String()
}

// tracked compares a track with who has received.
func (m *Mesh) tracked(sent *Sent, track *exchangev1.TrackResponse) error {
	state := map[string]exchangev1.TransportStatus{}
	reasons := map[string]exchangev1.ErrorReason{}
	for _, d := range track.GetDeliveries() {
		state[d.GetAgencyCode()], reasons[d.GetAgencyCode()] = d.GetTransport(), d.GetReason()
	}
	if len(state) != len(sent.To) {
		return fmt.Errorf("%d deliveries, want %d", len(state), len(sent.To))
	}
	for _, code := range sent.To {
		m.mu.Lock()
		reason, givenUp := sent.givenUp[code]
		m.mu.Unlock()
		if givenUp {
			if state[code] != exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL || reasons[code] != reason {
				return fmt.Errorf("delivery to %s is %s, %s; want it to have failed for %s", code, state[code], reasons[code], reason)
			}
			continue
		}
		_, receives := m.receiver(code)
		if done := state[code] == exchangev1.TransportStatus_TRANSPORT_STATUS_DONE; done != (receives || sent.delivered) {
			return fmt.Errorf("delivery to %s is %s", code, state[code])
		}
	}
	return nil
}

// receiver returns the agency of the code if it receives.
func (m *Mesh) receiver(code string) (*Agency, bool) {
	m.mu.Lock()
	a, ok := m.agencies[code]
	m.mu.Unlock()
	if !ok {
		return nil, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a, a.receives
}

func (m *Mesh) allSent() []*Sent {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.sent)
}

// Verify checks the books: each accepted document is in each recipient's folder
// exactly once, with the bytes that were sent, and nothing else is there.
func (m *Mesh) Verify() {
	m.t.Helper()
	due := map[string]map[envelope.ID]*Sent{}
	for _, sent := range m.allSent() {
		for _, code := range sent.To {
			if m.isGivenUp(sent, code) {
				continue
			}
			if due[code] == nil {
				due[code] = map[envelope.ID]*Sent{}
			}
			due[code][sent.ID()] = sent
		}
	}
	m.mu.Lock()
	agencies := make([]*Agency, 0, len(m.agencies))
	for _, a := range m.agencies {
		agencies = append(agencies, a)
	}
	m.mu.Unlock()
	for _, a := range agencies {
		a.verify(due[a.Code])
	}
}

func (a *Agency) verify(due map[envelope.ID]*Sent) {
	a.m.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed != nil {
		a.m.t.Errorf("%s: receiving failed: %v", a.Code, a.failed)
	}
	if !a.receives {
		return
	}
	for id, times := range a.arrived {
		if times != 1 {
			a.m.t.Errorf("%s: envelope %s was new %d times", a.Code, id, times)
		}
		if due[id] == nil {
			a.m.t.Errorf("%s: envelope %s was never accepted for it", a.Code, id)
		}
	}
	entries, err := os.ReadDir(a.Folder)
	if err != nil {
		a.m.t.Errorf("%s: %v", a.Code, err)
	}
	there := 0
	for _, e := range entries {
		if id, err := envelope.ParseID(e.Name()); err == nil {
			there++
			if due[id] == nil {
				a.m.t.Errorf("%s: folder %s was never accepted for it", a.Code, id)
			}
		}
	}
	if there != len(due) {
		a.m.t.Errorf("%s: %d envelopes in the folder, want %d", a.Code, there, len(due))
	}
	for id, sent := range due {
		if err := checkFiles(filepath.Join(a.Folder, id.String()), sent.Sums); err != nil {
			a.m.t.Errorf("%s: envelope %s: %v", a.Code, id, err)
		}
	}
}

func checkFiles(dir string, sums map[string][32]byte) error {
	for name, want := range sums {
		got, err := sumOf(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if !bytes.Equal(got[:], want[:]) {
			return fmt.Errorf("file %s has SHA-256 %x, want %x", name, got, want)
		}
	}
	return nil
}

func sumOf(file string) (sum [32]byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return [32]byte(h.Sum(nil)), nil
}
