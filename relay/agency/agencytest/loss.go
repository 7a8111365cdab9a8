package agencytest

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/tls"
)

// Start starts a relay that is stopped.
func (m *Mesh) Start(relay string) error {
	file := func(ending string) string { return filepath.Join(m.config.Dir, relay+ending) }
	endpoint, err := tls.New(tls.Config{CertificateFile: file(".crt"), KeyFile: file(".key"), TrustFile: filepath.Join(m.config.Dir, "trust.pem")})
	if err != nil {
		return err
	}
	address := m.Address(relay)
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	mux := endpoint.Mux(listener)
	server := grpc.NewServer(grpc.Creds(endpoint.ServerCredentials()), grpc.MaxRecvMsgSize(8<<20))
	exchangev1.RegisterExchangeServiceServer(server, &service{mesh: m, relay: relay})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = mux.Run(ctx) })
	running.Go(func() { _ = server.Serve(mux.GRPC()) })

	m.mu.Lock()
	defer m.mu.Unlock()
	m.addresses[relay] = listener.Addr().String()
	m.running[relay] = func() {
		cancel()
		server.Stop()
		running.Wait()
	}
	return nil
}

// Stop cuts every connection of a relay and closes its port. What it accepted
// stays in the mesh.
func (m *Mesh) Stop(relay string) {
	m.mu.Lock()
	stop := m.running[relay]
	delete(m.running, relay)
	m.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// Lose is Stop, and what the relay alone had is gone: envelopes that no other
// relay accepted or copied, and submits that were cut. Start brings it back
// empty.
func (m *Mesh) Lose(relay string) {
	m.Stop(relay)
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, e := range m.envelopes {
		if e.copied || e.settled() {
			continue
		}
		e.receipts = slices.DeleteFunc(e.receipts, func(r *exchangev1.Receipt) bool { return r.GetRelayId() == relay })
		if len(e.receipts) == 0 {
			m.drop(id, e)
		}
	}
	for key := range m.partial {
		if strings.HasPrefix(key, relay+"\x00") {
			delete(m.partial, key)
		}
	}
}

// drop forgets an envelope. Requires mu.
func (m *Mesh) drop(id envelope.ID, e *stored) {
	delete(m.envelopes, id)
	delete(m.documents, documentKey(e.envelope.GetHeader()))
	for code := range e.confirmed {
		m.inboxes[code] = slices.DeleteFunc(m.inboxes[code], func(other envelope.ID) bool { return other == id })
	}
}

// LoseAfterReceipt has a relay lost as soon as the sender has its next receipt.
// The channel is closed when it is.
func (m *Mesh) LoseAfterReceipt(relay string) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	lost := make(chan struct{})
	m.doomed[relay] = lost
	return lost
}

// receipted ends a relay that is to be lost now. The sender has the receipt when
// it ends the call, which is waited for.
func (m *Mesh) receipted(ctx context.Context, relay string) {
	m.mu.Lock()
	lost, doomed := m.doomed[relay]
	delete(m.doomed, relay)
	m.mu.Unlock()
	if !doomed {
		return
	}
	<-ctx.Done()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		close(lost)
		return
	}
	m.ends.Go(func() {
		m.Lose(relay)
		close(lost)
	})
}

// Copies says on how many relays an envelope is that is accepted from now on: 2,
// as at the beginning, or 1. One that is at one relay is out of reach while that
// relay is stopped, lost with it, and accepted again by another.
func (m *Mesh) Copies(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sole = n < 2
}

// Copy has a second relay take a copy of an envelope.
func (m *Mesh) Copy(id envelope.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.envelopes[id].copied = true
}

// CopyAll is Copy of every envelope there is.
func (m *Mesh) CopyAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.envelopes {
		e.copied = true
	}
}

// Fail has the mesh give up one delivery of an envelope.
func (m *Mesh) Fail(id envelope.ID, agency string, reason exchangev1.ErrorReason, note string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.envelopes[id]
	e.failed[agency] = &exchangev1.Delivery{
		AgencyCode: agency, HomeRelayId: m.config.Relays[0].ID, UpdatedAt: e.envelope.GetAcceptedAt(),
		Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL, Reason: reason, Note: note,
	}
	m.inboxes[agency] = slices.DeleteFunc(m.inboxes[agency], func(other envelope.ID) bool { return other == id })
}

// HandOn has a relay be the home of one recipient of an envelope that another
// accepted: while no relay that accepted it runs, it answers for that recipient.
func (m *Mesh) HandOn(id envelope.ID, home, agency string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.envelopes[id]
	e.home, e.homeAgency = home, agency
}
