package forward_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/routing"
)

// Content in chunks: from where it was cut off, in order, or refused.
func TestChunks(t *testing.T) {
	content := bulk(1000)
	sum := sha256.Sum256(content)
	for name, c := range map[string]struct {
		send func(*peer)
		want exchangev1.ErrorReason
	}{
		"whole":            {send: func(p *peer) { p.chunk(1, 0, 0, content[:600]); p.chunk(1, 0, 600, content[600:]); p.end(1) }},
		"gap":              {send: func(p *peer) { p.chunk(1, 0, 100, content[100:]) }, want: invalidField},
		"no such part":     {send: func(p *peer) { p.chunk(1, 1, 0, content) }, want: invalidField},
		"empty":            {send: func(p *peer) { p.chunk(1, 0, 0, nil) }, want: invalidField},
		"too large":        {send: func(p *peer) { p.chunk(1, 0, 0, make([]byte, 1<<20+1)) }, want: invalidField},
		"end too early":    {send: func(p *peer) { p.chunk(1, 0, 0, content[:600]); p.end(1) }, want: sizeMismatch},
		"other bytes":      {send: func(p *peer) { p.chunk(1, 0, 0, make([]byte, 1000)); p.end(1) }, want: hashMismatch},
		"refused, more on": {send: func(p *peer) { p.chunk(1, 0, 9, content); p.chunk(1, 0, 9, content); p.end(1) }, want: invalidField},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				m.start(nam)
				p := m.bacAtNam(t)
				o := offered(t, nil, content)
				o.Content, o.HasContent = nil, false
				p.offer(o)
				if got := p.answer().GetResume().GetOffsets(); !slices.Equal(got, []uint64{0}) {
					t.Fatalf("resume at %v, want the beginning", got)
				}
				c.send(p)
				a := p.answer()
				if a.GetRefused().GetReason() != c.want {
					t.Errorf("answer %v, want %s", a, c.want)
				}
				if c.want == 0 {
					if got := m.nodes[nam].spool.bytesOf(envelope.ID(o.GetEnvelopeId())); sha256.Sum256(got[0]) != sum {
						t.Error("content differs")
					}
				}
				until(t, "nothing is left open", func() bool {
					m.nodes[nam].spool.mu.Lock()
					defer m.nodes[nam].spool.mu.Unlock()
					return m.nodes[nam].spool.begun == 0
				})
			})
		})
	}
}

// Large offers beyond the places are refused for the moment; the session is
// read on, so those that have a place can end.
func TestTooManyTransfers(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.nodes[nam].tune = func(c *forward.Config) { c.MaxTransfers = 1 }
		m.start(nam)
		p := m.bacAtNam(t)
		content := bulk(1000)
		first, second := offered(t, nil, content), offered(t, func(h *exchangev1.Header) { h.DocumentId = "2" }, content)
		first.Content, first.HasContent, second.Content, second.HasContent, second.Number = nil, false, nil, false, 2
		p.offer(first)
		p.answer()
		p.offer(second)
		if r := p.answer().GetRefused(); r.GetNumber() != 2 || r.GetReason() != rateLimited || !r.GetTemporary() || r.GetRetryAfter().AsDuration() <= 0 {
			t.Errorf("answer %v, want refused for the moment", r)
		}
		p.send(&relayv1.PassRequest{Message: &relayv1.PassRequest_Cancel{Cancel: &relayv1.OfferCancel{Number: 1}}})
		synctest.Wait()
		second.Number = 3
		p.offer(second)
		if a := p.answer(); a.GetResume().GetNumber() != 3 {
			t.Errorf("answer %v, want resume: the place is free", a)
		}
	})
}

// Stopping: what came whole is taken and answered, what needs more is left for
// a resume, and the peer is told to go elsewhere.
func TestSessionEndsCleanly(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.start(nam)
		p := m.bacAtNam(t)
		content := bulk(1000)
		o := offered(t, nil, content)
		o.Content, o.HasContent = nil, false
		p.offer(o)
		p.answer()
		p.chunk(1, 0, 0, content[:400])
		synctest.Wait()
		m.nodes[nam].stop()
		if _, err := p.stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("session ended with %v, want unavailable", err)
		}
		m.nodes[nam].spool.mu.Lock()
		defer m.nodes[nam].spool.mu.Unlock()
		if got := m.nodes[nam].spool.begun; got != 0 {
			t.Errorf("%d takings left open", got)
		}
		if got := len(m.nodes[nam].spool.partial[envelope.ID(o.GetEnvelopeId())][0]); got != 400 {
			t.Errorf("%d bytes left for a resume, want 400", got)
		}
	})
}

func TestRead(t *testing.T) {
	content := bulk(700 << 10)
	for name, c := range map[string]struct {
		request func(*relayv1.ReadRequest)
		broken  bool
		want    []byte
		reason  exchangev1.ErrorReason
	}{
		"whole":        {want: content},
		"range":        {request: func(r *relayv1.ReadRequest) { r.Offset, r.Length = 300<<10, 1000 }, want: content[300<<10 : 300<<10+1000]},
		"to the end":   {request: func(r *relayv1.ReadRequest) { r.Offset = 600 << 10 }, want: content[600<<10:]},
		"nothing left": {request: func(r *relayv1.ReadRequest) { r.Offset = 700 << 10 }},
		"past the end": {request: func(r *relayv1.ReadRequest) { r.Offset = 700<<10 + 1 }, reason: invalidField},
		"no such part": {request: func(r *relayv1.ReadRequest) { r.Part = 1 }, reason: invalidField},
		"not held":     {request: func(r *relayv1.ReadRequest) { r.EnvelopeId[0] ^= 1 }, reason: notFound},
		"no id":        {request: func(r *relayv1.ReadRequest) { r.EnvelopeId = nil }, reason: invalidField},
		"damaged":      {broken: true, reason: damaged},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				id := m.nodes[nam].accept(letter("1", 0, content), [][]byte{content}, atNam)
				if c.broken {
					m.nodes[nam].spool.onRead = func(envelope.ID) error { return errors.New("checksum differs") }
				}
				m.start(nam)
				p := m.as(t, relayIdentity(bac))
				req := &relayv1.ReadRequest{EnvelopeId: id[:]}
				if c.request != nil {
					c.request(req)
				}
				stream, err := p.client.Read(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				var got []byte
				for {
					piece, err := stream.Recv()
					if errors.Is(err, io.EOF) {
						err = nil
					} else if err == nil {
						if piece.GetOffset() != req.GetOffset()+uint64(len(got)) {
							t.Fatalf("piece at %d after %d bytes", piece.GetOffset(), len(got))
						}
						got = append(got, piece.GetData()...)
						continue
					}
					refusal, _ := envelope.AsRefusal(err)
					if (refusal == nil) != (c.reason == 0) || (refusal != nil && refusal.Reason != c.reason) {
						t.Errorf("ended with %v, want %s", err, c.reason)
					}
					break
				}
				if !bytes.Equal(got, c.want) {
					t.Errorf("%d bytes, want %d", len(got), len(c.want))
				}
			})
		})
	}
}
