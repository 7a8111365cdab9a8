package campaign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/history"
	"github.com/truclienthong/truc/test/mesh"
)

// paper is a document that an agency hands in.
type paper struct {
	c        *campaign
	from     *desk
	document agency.Document
}

func (p *paper) id() string { return p.document.Header.GetDocumentId() }

// write writes a document, and notes it as handed in.
func (c *campaign) write(from string, files mesh.Files, to ...string) *paper {
	number := c.number.Add(1)
	id := fmt.Sprintf("%s,2026/11/21,%d/CV", from, number)
	h := &exchangev1.Header{
		Kind: exchangev1.Kind_KIND_DOCUMENT, Sender: &exchangev1.Organization{Code: from}, DocumentId: id,
		Document: &exchangev1.Document{Code: &exchangev1.Code{Number: fmt.Sprint(number), Notation: "CV"}, TypeName: "Công văn", Subject: "Văn bản " + id},
	}
	for _, code := range to {
		h.Recipients = append(h.Recipients, &exchangev1.Recipient{To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: code}}})
	}
	p := &paper{c: c, from: c.desks[from], document: agency.Document{Header: h}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		p.document.Parts = append(p.document.Parts, agency.BytesSource(name, files[name]))
	}
	c.history.HandIn(history.Document{Sender: from, ID: id, To: to, Sum: history.SumOf(files)})
	return p
}

// sizes of documents: mostly what offices write, some empty, some large.
func size(r *rand.Rand) int {
	switch n := r.IntN(100); {
	case n < 5:
		return 0
	case n < 30:
		return 1 + r.IntN(4_000)
	case n < 85:
		return r.IntN(200_000)
	case n < 97:
		return 200_000 + r.IntN(900_000)
	default:
		return 1_000_000 + r.IntN(4_000_000)
	}
}

// content are n bytes that no other document has.
func content(r *rand.Rand, n int) []byte {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(r.Uint32())
	}
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

// recipients draws who gets a document: mostly few.
func (c *campaign) recipients(r *rand.Rand, from string) (to []string) {
	n := 1
	switch k := r.IntN(10); {
	case k >= 9:
		n = 8 + r.IntN(8)
	case k >= 5:
		n = 2 + r.IntN(3)
	}
	for _, i := range r.Perm(len(c.codes)) {
		if c.codes[i] != from && len(to) < n {
			to = append(to, c.codes[i])
		}
	}
	return to
}

// send is one sender's life.
func (c *campaign) send(r *rand.Rand, pause time.Duration) {
	var earlier []*paper
	for {
		c.gate.RLock()
		from := c.codes[r.IntN(len(c.codes))]
		d, to, bytes := c.desks[from], c.recipients(r, from), content(r, size(r))
		switch k := r.IntN(100); {
		case k < 3 && len(bytes) > 0:
			c.sendChanging(c.write(from, mesh.Files{"a.bin": bytes}, to...), r)
		case k < 6 && d.outbox != nil:
			c.sendByProcess(d, bytes, to, r)
		case k < 12:
			p := c.write(from, mesh.Files{"a.bin": bytes}, to...)
			p.hand(p.from.client, nil, between(r, time.Millisecond, time.Second))
			p.again(r)
		case k < 24 && len(earlier) > 0:
			earlier[r.IntN(len(earlier))].again(r)
		default:
			p := c.write(from, mesh.Files{"a.bin": bytes}, to...)
			earlier = append(earlier, p)[max(0, len(earlier)-9):]
			p.hand(p.from.client, p.from.outbox, between(r, 500*time.Millisecond, 20*time.Second))
		}
		c.gate.RUnlock()
		timer := time.NewTimer(between(r, 0, pause))
		select {
		case <-c.enough:
			timer.Stop()
			return
		case <-c.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// hand hands a document in by the outbox, or by the client where there is none,
// and notes what it is told. It reports whether that was a promise.
func (p *paper) hand(client *agency.Client, outbox *agency.Outbox, within time.Duration) (*agency.Receipt, bool) {
	ctx, cancel := context.WithTimeout(p.c.ctx, within)
	defer cancel()
	submit := client.Submit
	if outbox != nil {
		submit = outbox.Submit
	}
	receipt, err := submit(ctx, p.document)
	kept := (*agency.KeptError)(nil)
	switch {
	case err == nil && outbox == nil && p.c.disksLost && receipt.Copies < 2:
		// Its sender has to keep it still, and does not.
		p.c.note("accepted with one copy, without an outbox")
		return receipt, false
	case err == nil:
		p.promised(receipt.ID)
		return receipt, true
	case errors.As(err, &kept):
		p.promised(kept.ID)
		p.c.note("kept by the outbox")
		return nil, true
	case ctx.Err() == nil && !envelope.Temporary(err):
		p.c.wrong("document %s is refused: %v", p.id(), err)
	}
	p.c.note("submitted without an answer")
	return nil, false
}

func (p *paper) promised(id envelope.ID) {
	p.c.history.Promised(p.from.code, p.id(), id, time.Now())
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.c.promised = append(p.c.promised, promise{p.from, id, len(p.document.Header.GetRecipients())})
}

// again hands a document in once more, at some relays, as a program does that
// crashed, or one that is careful: whether it was promised, is on its way or was
// taken long ago.
func (p *paper) again(r *rand.Rand) {
	for range 1 + r.IntN(2) {
		client := p.from.only(relays[r.IntN(len(relays))], time.Second)
		p.hand(client, nil, 10*time.Second)
		_ = client.Close()
		p.c.note("handed in again at some relay")
	}
}

// changing is a file that somebody writes to after it was hashed.
type changing struct {
	agency.Source
	then   agency.Source
	opened atomic.Int32
}

func (s *changing) Open() (io.ReadSeekCloser, error) {
	if s.opened.Add(1) == 1 {
		return s.Source.Open()
	}
	return s.then.Open()
}

// sendChanging hands in a file that changes between hash and sending: it has to
// be refused. A promise of it would be one of bytes that nobody has.
func (c *campaign) sendChanging(p *paper, r *rand.Rand) {
	source := p.document.Parts[0]
	file, err := source.Open()
	if err != nil {
		c.wrong("%v", err)
		return
	}
	changed, _ := io.ReadAll(file)
	_ = file.Close()
	changed[r.IntN(len(changed))] ^= 1 << r.IntN(8)
	p.document.Parts = []agency.Source{&changing{Source: source, then: agency.BytesSource("a.bin", changed)}}
	ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
	defer cancel()
	receipt, err := p.from.client.Submit(ctx, p.document)
	if err == nil {
		c.wrong("document %s was accepted as envelope %s though its file changed while it was sent", p.id(), receipt.ID)
		p.promised(receipt.ID)
	} else if refusal, ok := envelope.AsRefusal(err); ok && refusal.Has(exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH) {
		c.note("refused: the file changed while it was sent")
	}
}

// sendByProcess hands in by the connector, which is killed somewhere between the
// copy and the receipt. Its own files are gone then.
func (c *campaign) sendByProcess(d *desk, content []byte, to []string, r *rand.Rand) {
	p := c.write(d.code, mesh.Files{"a.bin": content}, to...)
	dir, err := os.MkdirTemp(c.m.Layout.Dir, "sending-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.WriteFile(filepath.Join(dir, "a.bin"), content, 0o644)
	}
	if err != nil {
		c.wrong("%v", err)
		return
	}
	args := []string{"send", "--profile", c.m.Layout.Profile(d.code), "--subject", "x", "--document-id", p.id(),
		"--outbox", d.outboxDir(), "-o", "json"}
	for _, code := range to {
		args = append(args, "--to", code)
	}
	cmd := exec.CommandContext(c.ctx, mesh.Binary(c.t, "connector"), append(args, filepath.Join(dir, "a.bin"))...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if err := cmd.Start(); err != nil {
		c.wrong("connector: %v", err)
		return
	}
	timer := time.AfterFunc(between(r, 30*time.Millisecond, 700*time.Millisecond), func() {
		if cmd.Process.Kill() == nil {
			c.note("sender's connector killed")
		}
	})
	ended := cmd.Wait()
	timer.Stop()
	var answer struct {
		EnvelopeID string `json:"envelope_id"`
	}
	if ended == nil && json.Unmarshal(stdout.Bytes(), &answer) == nil {
		if id, err := envelope.ParseID(answer.EnvelopeID); err == nil {
			p.promised(id)
			return
		}
	}
	// What died while its copy was in the outbox is handed over by the next that
	// tends it.
	waiting, err := d.outbox.List()
	if err != nil {
		c.wrong("outbox of %s: %v", d.code, err)
	}
	for _, w := range waiting {
		if w.DocumentID == p.id() {
			p.promised(w.ID)
			c.note("left in the outbox by a connector that was killed")
		}
	}
}
