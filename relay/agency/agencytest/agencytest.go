// Package agencytest is a small mesh in memory, with which programs that use
// the SDK are tested: real relays on the loopback as far as an agency can see
// (TLS, identities, the whole ExchangeService), but one shared store, no disk,
// no rules and no retention. Every envelope is in its recipients' inboxes at
// once, and safe from the loss of a relay, unless Mesh.Copies says otherwise.
//
// Faults are injected where a step is about to happen, see Mesh.Fault; relays
// stop, come back and are lost, see Mesh.Stop and Mesh.Lose.
package agencytest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/tls"
	"github.com/truclienthong/truc/tls/pki"
)

// Relay names one relay of the mesh.
type Relay struct{ ID, Region string }

// Config shapes a mesh.
type Config struct {
	// Dir takes certificates and profiles.
	Dir string
	// Relays of the mesh; the first is home of every agency.
	Relays []Relay
	// Agencies of the directory.
	Agencies []*exchangev1.AgencyInfo
}

// Step is a moment at which a relay can fail.
type Step string

// The steps, in the order of an envelope's way.
const (
	Attach         Step = "attach"
	SubmitStart    Step = "submit start"    // the header was read
	SubmitChunk    Step = "submit chunk"    // a chunk was read, not yet kept
	SubmitCommit   Step = "submit commit"   // commit was read, nothing is accepted
	SubmitAccepted Step = "submit accepted" // accepted, the receipt is not sent
	Receive        Step = "receive"         // the stream opens
	ReceiveSend    Step = "receive send"    // an arrival is about to be sent
	Fetch          Step = "fetch"           // the stream opens
	FetchSend      Step = "fetch send"      // a piece is about to be sent
	Confirm        Step = "confirm"         // nothing is confirmed
	Confirmed      Step = "confirmed"       // confirmed, the answer is not sent
	Track          Step = "track"
	Lookup         Step = "lookup"
)

// Mesh is a running mesh.
type Mesh struct {
	config    Config
	authority *pki.Authority
	addresses map[string]string

	mu sync.Mutex
	// Everything below is guarded by mu.
	running   map[string]func()
	fault     func(relay string, step Step) error
	damage    func(relay string, part int, data []byte) []byte
	forge     func(*exchangev1.SubmitAccepted)
	forgetful bool
	counts    map[Step]int
	envelopes map[envelope.ID]*stored
	documents map[string]envelope.ID
	inboxes   map[string][]envelope.ID
	changed   chan struct{}
	// partial is what each relay holds of submits that were cut.
	partial map[string][][]byte
	// sole: what is accepted from now on is at one relay only.
	sole bool
	// doomed are the relays that are lost after their next receipt; the channel
	// is closed when they are.
	doomed map[string]chan struct{}

	// ends are relays on their way down; none begins once closed.
	ends   sync.WaitGroup
	closed bool
}

// stored is one accepted envelope.
type stored struct {
	id       envelope.ID
	envelope *exchangev1.Envelope
	parts    [][]byte
	// receipts are those of the relays that accepted it, in that order.
	receipts []*exchangev1.Receipt
	// copied: a relay besides has it, and none is asked who that is.
	copied bool
	// confirmed has an entry per recipient, failed one per delivery given up.
	confirmed map[string]bool
	failed    map[string]*exchangev1.Delivery
	// home took the envelope from another relay for these recipients, and knows
	// of nobody else; "": there is none.
	home       string
	homeAgency string
}

// New starts a mesh; Close ends it.
func New(config Config) (*Mesh, error) {
	if len(config.Relays) == 0 {
		config.Relays = []Relay{{"bac", "north"}}
	}
	authority, err := pki.Create(filepath.Join(config.Dir, "ca"), "truc.test")
	if err != nil {
		return nil, err
	}
	m := &Mesh{
		config: config, authority: authority,
		addresses: map[string]string{}, running: map[string]func(){}, counts: map[Step]int{},
		envelopes: map[envelope.ID]*stored{}, documents: map[string]envelope.ID{},
		inboxes: map[string][]envelope.ID{}, changed: make(chan struct{}), partial: map[string][][]byte{},
		doomed: map[string]chan struct{}{},
	}
	if err := os.WriteFile(filepath.Join(config.Dir, "trust.pem"), authority.RootPEM(), 0o600); err != nil {
		return nil, err
	}
	for _, r := range config.Relays {
		if err := m.issue(tls.KindRelay, r.ID); err != nil {
			return nil, errors.Join(err, m.Close())
		}
		if err := m.Start(r.ID); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	return m, nil
}

// Close stops every relay.
func (m *Mesh) Close() error {
	for _, r := range m.config.Relays {
		m.Stop(r.ID)
	}
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.ends.Wait()
	return nil
}

func (m *Mesh) issue(kind tls.Kind, name string) error {
	certificate, key, err := m.authority.Issue(pki.Request{Kind: kind, Name: name, Hosts: []string{"127.0.0.1"}})
	if err != nil {
		return err
	}
	return pki.WriteFiles(filepath.Join(m.config.Dir, name+".crt"), certificate, filepath.Join(m.config.Dir, name+".key"), key)
}

// Profile writes a profile for an agency and returns its path. It names the
// given relays, or all.
func (m *Mesh) Profile(agency string, relays ...string) (string, error) {
	if err := m.issue(tls.KindAgency, agency); err != nil {
		return "", err
	}
	var addresses []string
	for _, r := range m.config.Relays {
		if len(relays) == 0 || strings.Contains(" "+strings.Join(relays, " ")+" ", " "+r.ID+" ") {
			addresses = append(addresses, m.Address(r.ID))
		}
	}
	path := filepath.Join(m.config.Dir, agency+".yaml")
	text := fmt.Sprintf("relays: [%s]\ncertificate: %s.crt\nkey: %s.key\ntrust: trust.pem\nagency: %s\n",
		strings.Join(addresses, ", "), agency, agency, agency)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// Dir is where certificates and profiles are; a profile is called as its agency.
func (m *Mesh) Dir() string { return m.config.Dir }

// Address of a relay, host:port; it stays the same over Stop and Start.
func (m *Mesh) Address(relay string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.addresses[relay]
}

// Fault has f decide before every step of every relay; what it returns ends the
// call. Nil: no faults.
func (m *Mesh) Fault(f func(relay string, step Step) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// Damage has f change the bytes that are sent to recipients. Nil: none.
func (m *Mesh) Damage(f func(relay string, part int, data []byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.damage = f
}

// Forge has f change what submits are answered, as a relay that is not to be
// believed would. Nil: nothing.
func (m *Mesh) Forge(f func(*exchangev1.SubmitAccepted)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forge = f
}

// Forget has confirmations answered and not kept, as if the relay were lost
// right after.
func (m *Mesh) Forget(forgetful bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgetful = forgetful
}

// Tamper changes the header of an accepted envelope behind its sender's back.
func (m *Mesh) Tamper(id envelope.ID, change func(*exchangev1.Header)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.envelopes[id]
	e.envelope = proto.CloneOf(e.envelope)
	change(e.envelope.GetHeader())
}

// Count tells how often a step was reached.
func (m *Mesh) Count(step Step) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts[step]
}

// Waiting tells how many envelopes an agency has not confirmed.
func (m *Mesh) Waiting(agency string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.inboxes[agency])
}

// Accepted tells how many envelopes the mesh accepted.
func (m *Mesh) Accepted() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.envelopes)
}

// reach counts a step and asks for its fault.
func (m *Mesh) reach(relay string, step Step) error {
	m.mu.Lock()
	m.counts[step]++
	fault := m.fault
	m.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(relay, step)
}

func (m *Mesh) forged(a *exchangev1.SubmitAccepted) *exchangev1.SubmitAccepted {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.forge != nil {
		a = proto.CloneOf(a)
		m.forge(a)
	}
	return a
}

func (m *Mesh) damaged(relay string, part int, data []byte) []byte {
	m.mu.Lock()
	damage := m.damage
	m.mu.Unlock()
	if damage == nil {
		return data
	}
	return damage(relay, part, append([]byte(nil), data...))
}
