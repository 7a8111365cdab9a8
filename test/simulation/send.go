package simulation

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/history"
)

// letter is one document and what its sender knows of it.
type letter struct {
	plan     documentPlan
	sender   *desk
	to       []string
	document agency.Document
	// lying gives other bytes now and then.
	lying []agency.Source
	hash  [32]byte
	// number is its place in the plan.
	number int

	mu   sync.Mutex // owns what follows
	id   envelope.ID
	lies int // so many are left
	// asking: its sender has begun to ask. returned: a recipient has sent it back,
	// or is about to.
	asking, askedTwice, returned bool
}

func (w *world) letter(i int, p documentPlan) *letter {
	l := &letter{plan: p, sender: w.desks[p.sender], lies: p.lies, number: i}
	header := &exchangev1.Header{
		Kind: exchangev1.Kind_KIND_DOCUMENT, Sender: &exchangev1.Organization{Code: l.sender.plan.code}, DocumentId: p.id, Priority: exchangev1.Priority(p.priority),
		Document: &exchangev1.Document{
			Code: &exchangev1.Code{Number: p.id, Notation: "CV"}, TypeName: "Công văn", Subject: "Văn bản " + p.id,
		},
	}
	for _, to := range p.to {
		code := w.plan.desks[to].code
		l.to = append(l.to, code)
		header.Recipients = append(header.Recipients, &exchangev1.Recipient{
			To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: code}}})
	}
	names, files := w.files(i, p)
	l.hash = history.SumOf(files)
	l.document.Header = header
	for _, name := range names {
		l.document.Parts = append(l.document.Parts, agency.BytesSource(name, files[name]))
		l.lying = append(l.lying, &source{l: l, name: name, content: files[name]})
	}
	return l
}

// source is one file of a sender who lies: what is sent is not what was hashed, as
// where memory is bad. An outbox would find out first, so none is used.
type source struct {
	l       *letter
	name    string
	content []byte
	opened  int
}

func (s *source) Name() string { return s.name }

func (s *source) Open() (io.ReadSeekCloser, error) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.opened++
	content := s.content
	if s.opened > 1 && s.l.lies > 0 && len(content) > 0 {
		s.l.lies--
		s.opened = 0
		content = bytes.Clone(content)
		content[len(content)/2] ^= 1
		s.l.sender.w.count("wrong bytes under a right header", s.l.sender.w.since())
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(content), io.NopCloser(nil)}, nil
}

// sendAll hands every document in at its time.
func (w *world) sendAll() {
	for i, p := range w.plan.documents {
		w.letters = append(w.letters, w.letter(i, p))
	}
	for _, l := range w.letters {
		w.sending.Go(func() {
			if w.sleep(l.plan.at) {
				w.send(l)
			}
		})
	}
}

// send hands a document in by way of the outbox, which keeps it until two relays
// have it; and sometimes once more, as software does that did not get to note the
// answer.
func (w *world) send(l *letter) {
	w.history.HandIn(history.Document{Sender: l.sender.plan.code, ID: l.plan.id, To: slices.Clone(l.to), Sum: l.hash})
	if l.plan.lies > 0 {
		w.lie(l)
	}
	w.submit(l)
	for range l.plan.again {
		if !w.sleep(time.Duration(len(l.to)) * 2 * time.Second) {
			return
		}
		w.count("document handed in again", w.since())
		w.submit(l)
	}
}

// lie hands in once without the outbox, and with wrong bytes to begin with.
func (w *world) lie(l *letter) {
	client, ctx := l.sender.software()
	if client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, l.plan.patience)
	defer cancel()
	receipt, err := client.Submit(ctx, agency.Document{Header: l.document.Header, Parts: l.lying})
	if err != nil {
		w.say("desk %s: %s is not accepted: %v", l.sender.plan.code, l.plan.id, err)
		return
	}
	w.say("desk %s: %s is accepted by %s after lies, copies %d, as %s", l.sender.plan.code, l.plan.id, receipt.Relay, receipt.Copies, receipt.ID)
	w.history.Promised(l.sender.plan.code, l.plan.id, receipt.ID, time.Now())
}

// submit hands in until the outbox has it, or a relay.
func (w *world) submit(l *letter) {
	for w.ctx.Err() == nil {
		outbox, alive := l.sender.current()
		if outbox == nil || alive.Err() != nil {
			w.sleep(100 * time.Millisecond) // the software starts
			continue
		}
		ctx, cancel := context.WithTimeout(alive, l.plan.patience)
		receipt, err := outbox.Submit(ctx, l.document)
		cancel()
		id, by := envelope.ID{}, ""
		kept := (*agency.KeptError)(nil)
		switch {
		case err == nil:
			id, by = receipt.ID, receipt.Relay
			w.say("desk %s: %s is accepted by %s, copies %d, as %s", l.sender.plan.code, l.plan.id, by, receipt.Copies, id)
		case errors.As(err, &kept):
			id = kept.ID
			w.say("desk %s: %s is kept: %v", l.sender.plan.code, l.plan.id, kept.Err)
		case alive.Err() == nil && ctx.Err() == nil && !envelope.Temporary(err):
			w.violate("refused", "document %s of %s: %v", l.plan.id, l.sender.plan.code, err)
			return
		default:
			w.say("desk %s: %s is not accepted: %v", l.sender.plan.code, l.plan.id, err)
			w.sleep(500 * time.Millisecond)
			continue
		}
		w.history.Promised(l.sender.plan.code, l.plan.id, id, time.Now())
		l.mu.Lock()
		l.id = id
		begins := w.asks() && !l.asking
		l.asking = true
		l.mu.Unlock()
		if begins {
			w.sending.Go(func() { w.ask(l) })
		}
		return
	}
}
