package mesh

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
)

// Files are the parts of a document by name.
type Files map[string][]byte

// Sent is one document that a relay accepted.
type Sent struct {
	Receipt *agency.Receipt
	Sender  *Agency
	// To are the recipients by code, groups resolved by the test.
	To []string
	// Sums are the SHA-256 of the files by name.
	Sums map[string][32]byte

	givenUp map[string]exchangev1.ErrorReason // recipients that are not to have it, and why

	delivered bool // whether the recipients do not receive by the harness, and have it
}

// ID of the envelope.
func (s *Sent) ID() envelope.ID { return s.Receipt.ID }

// Agency is a sender and a recipient with books.
type Agency struct {
	m      *Mesh
	Code   string
	Client *agency.Client
	// Folder is where arrivals are saved.
	Folder string

	running sync.WaitGroup

	mu       sync.Mutex // owns what follows
	stops    []context.CancelFunc
	outbox   *agency.Outbox
	receives bool
	number   int
	arrived  map[envelope.ID]int // times an arrival was new to the folder
	received chan struct{}       // closed and made anew at each arrival
	failed   error
}

// Agency returns the agency of the code, with a client that knows all relays.
func (m *Mesh) Agency(code string) *Agency {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if a, ok := m.agencies[code]; ok {
		return a
	}
	config, err := agency.LoadProfile(m.Layout.Profile(code))
	m.check("profile of "+code, err)
	config.Logger = slog.New(slog.DiscardHandler)
	client, err := agency.New(config)
	m.check("client of "+code, err)
	a := &Agency{m: m, Code: code, Client: client, Folder: filepath.Join(m.Layout.Dir, "folders", code),
		arrived: map[envelope.ID]int{}, received: make(chan struct{})}
	m.check("folder of "+code, os.MkdirAll(a.Folder, 0o755))
	m.agencies[code] = a
	return a
}

func (a *Agency) close() {
	a.mu.Lock()
	stops := a.stops
	a.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	a.running.Wait()
	_ = a.Client.Close()
}

func (a *Agency) onClose(stop context.CancelFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stops = append(a.stops, stop)
}

// Document is a document ready to be sent; change its header before Submit.
func (a *Agency) Document(files Files, to ...string) agency.Document {
	a.mu.Lock()
	a.number++
	number := a.number
	a.mu.Unlock()
	header := &exchangev1.Header{
		Kind:       exchangev1.Kind_KIND_DOCUMENT,
		Sender:     &exchangev1.Organization{Code: a.Code},
		DocumentId: fmt.Sprintf("%s,2026/11/21,%d/CV", a.Code, number),
		Document: &exchangev1.Document{
			Code: &exchangev1.Code{Number: fmt.Sprint(number), Notation: "CV"}, TypeName: "Công văn",
			Subject: fmt.Sprintf("Văn bản số %d của %s", number, a.Code),
		},
	}
	for _, code := range to {
		header.Recipients = append(header.Recipients, recipient(code))
	}
	d := agency.Document{Header: header}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		d.Parts = append(d.Parts, agency.BytesSource(name, files[name]))
	}
	return d
}

func recipient(to string) *exchangev1.Recipient {
	if group, ok := cutGroup(to); ok {
		return &exchangev1.Recipient{To: &exchangev1.Recipient_Group{Group: group}}
	}
	return &exchangev1.Recipient{To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: to}}}
}

func cutGroup(to string) (string, bool) {
	if len(to) > 1 && to[0] == '@' {
		return to[1:], true
	}
	return "", false
}

// Send submits files to agencies and notes the document as sent.
func (a *Agency) Send(files Files, to ...string) *Sent {
	a.m.t.Helper()
	sent, err := a.TrySend(a.m.bound(), a.Document(files, to...), files, to...)
	a.m.check(fmt.Sprintf("%s sends to %v", a.Code, to), err)
	return sent
}

// TrySend submits a document; only one that was accepted is noted as sent. To
// are the agencies that have to receive it.
func (a *Agency) TrySend(ctx context.Context, document agency.Document, files Files, to ...string) (*Sent, error) {
	receipt, err := a.submit(ctx, document)
	if err != nil {
		return nil, err
	}
	sent := &Sent{Receipt: receipt, Sender: a, To: to, Sums: map[string][32]byte{}}
	for name, content := range files {
		sent.Sums[name] = sha256.Sum256(content)
	}
	a.m.Note(sent)
	return sent, nil
}

// Note enters an accepted document into the books.
func (m *Mesh) Note(sent *Sent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent = append(m.sent, sent)
}

// Receive starts saving and confirming what arrives, until the test ends.
func (a *Agency) Receive() {
	ctx, stop := context.WithCancel(a.m.ctx)
	a.onClose(stop)
	a.mu.Lock()
	a.receives = true
	a.mu.Unlock()
	a.running.Go(func() {
		for arrival, err := range a.Client.Receive(ctx, agency.ReceiveOptions{}) {
			if err == nil {
				err = a.take(ctx, arrival)
			}
			if err != nil && ctx.Err() == nil && !envelope.Temporary(err) {
				a.mu.Lock()
				a.failed = errors.Join(a.failed, err)
				a.mu.Unlock()
			}
		}
	})
}

// take saves one arrival and confirms it. What fails comes again.
func (a *Agency) take(ctx context.Context, arrival *agency.Arrival) error {
	saved, err := arrival.Save(ctx, a.Folder)
	if err != nil {
		arrival.Release()
		return fmt.Errorf("%s saves %s: %w", a.Code, arrival.ID, err)
	}
	a.mu.Lock()
	if !saved.Repeat {
		a.arrived[arrival.ID]++
	}
	close(a.received)
	a.received = make(chan struct{})
	a.mu.Unlock()
	if err := arrival.Confirm(ctx); err != nil {
		arrival.Release()
		return fmt.Errorf("%s confirms %s: %w", a.Code, arrival.ID, err)
	}
	return nil
}

// Has says whether an envelope is in the folder.
func (a *Agency) Has(id envelope.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.arrived[id] > 0
}

// late is when an arrival is worth a line.
const late = 20 * time.Second

// AwaitArrival waits until an envelope is in the folder.
func (a *Agency) AwaitArrival(id envelope.ID) {
	a.m.t.Helper()
	timeout, began := time.After(patience), time.Now()
	for {
		a.mu.Lock()
		received, there := a.received, a.arrived[id] > 0
		a.mu.Unlock()
		if there {
			if waited := time.Since(began); waited > late {
				a.m.t.Logf("envelope %s reached %s only after %s\n%s", id, a.Code, waited.Round(time.Second), a.m.traceOf(id))
			}
			return
		}
		select {
		case <-received:
		case <-timeout:
			a.m.t.Fatalf("envelope %s did not reach %s within %s\n%s", id, a.Code, patience, a.m.traceOf(id))
		}
	}
}
