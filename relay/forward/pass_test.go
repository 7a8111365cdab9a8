package forward_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/routing"
)

const (
	invalidField  = exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	wrongIdentity = exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY
	noIdentity    = exchangev1.ErrorReason_ERROR_REASON_NO_IDENTITY
	sizeMismatch  = exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH
	stateSecret   = exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET
	loop          = exchangev1.ErrorReason_ERROR_REASON_LOOP
	noRoute       = exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE
	notHome       = exchangev1.ErrorReason_ERROR_REASON_NOT_HOME
	notFound      = exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND
	damaged       = exchangev1.ErrorReason_ERROR_REASON_DAMAGED
)

// peer is a relay written by hand, which may break the rules.
type peer struct {
	t      *testing.T
	client relayv1.PeerServiceClient
	stream grpc.BidiStreamingClient[relayv1.PassRequest, relayv1.PassResponse]
}

// as connects to nam under a name.
func (m *mesh) as(t *testing.T, name identity) *peer {
	t.Helper()
	conn, err := m.dial("tay", nam, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	p := &peer{t: t, client: relayv1.NewPeerServiceClient(conn)}
	if p.stream, err = p.client.Pass(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// bacAtNam is bac with an open bulk session to nam.
func (m *mesh) bacAtNam(t *testing.T) *peer {
	t.Helper()
	p := m.as(t, relayIdentity(bac))
	p.send(&relayv1.PassRequest{Message: &relayv1.PassRequest_Hello{Hello: &relayv1.PassHello{Stream: relayv1.Stream_STREAM_BULK, Version: 1}}})
	return p
}

func (p *peer) send(r *relayv1.PassRequest) {
	p.t.Helper()
	if err := p.stream.Send(r); err != nil && !errors.Is(err, io.EOF) {
		p.t.Fatal(err)
	}
}

func (p *peer) offer(o *relayv1.Offer) {
	p.t.Helper()
	p.send(&relayv1.PassRequest{Message: &relayv1.PassRequest_Offer{Offer: o}})
}

func (p *peer) chunk(number uint64, part uint32, offset int, data []byte) {
	p.t.Helper()
	p.send(&relayv1.PassRequest{Message: &relayv1.PassRequest_Chunk{Chunk: &relayv1.OfferChunk{Number: number, Part: part, Offset: uint64(offset), Data: data}}})
}

func (p *peer) end(number uint64) {
	p.t.Helper()
	p.send(&relayv1.PassRequest{Message: &relayv1.PassRequest_End{End: &relayv1.OfferEnd{Number: number}}})
}

func (p *peer) answer() *relayv1.PassResponse {
	p.t.Helper()
	a, err := p.stream.Recv()
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// offered is a good offer of a document with content for the agency at nam.
func offered(t *testing.T, change func(*exchangev1.Header), content ...[]byte) *relayv1.Offer {
	t.Helper()
	h := letter("1", 0, content...)
	if change != nil {
		change(h)
	}
	id, canonical, err := envelope.HeaderID(h)
	if err != nil {
		t.Fatal(err)
	}
	return &relayv1.Offer{
		Number: 1, EnvelopeId: id[:], Header: canonical, IngressRelayId: string(bac), AcceptedAt: timestamppb.Now(),
		DestinationRelayId: string(nam), AgencyCodes: []string{string(atNam)}, VisitedRelayIds: []string{string(bac)},
		Purpose: relayv1.Purpose_PURPOSE_DELIVER, Content: content, HasContent: true,
	}
}

// What is wrong with an offer is said, nothing of it is taken, and the session
// goes on.
func TestOfferRefused(t *testing.T) {
	small := []byte("Công văn")
	type offer = relayv1.Offer
	for name, c := range map[string]struct {
		header    func(*exchangev1.Header)
		offer     func(*offer)
		want      exchangev1.ErrorReason
		temporary bool
	}{
		"id of another header":   {offer: func(o *offer) { o.EnvelopeId[0] ^= 1 }, want: invalidField},
		"id too short":           {offer: func(o *offer) { o.EnvelopeId = o.EnvelopeId[1:] }, want: invalidField},
		"header is no header":    {offer: func(o *offer) { o.Header = []byte{0xff} }, want: invalidField},
		"header not canonical":   {offer: func(o *offer) { o.Header = append(o.Header, 8, 1) }, want: invalidField},
		"hash too short":         {header: func(h *exchangev1.Header) { h.Parts[0].Sha256 = []byte{1} }, want: invalidField},
		"state secret":           {header: func(h *exchangev1.Header) { h.Secrecy = exchangev1.Secrecy_SECRECY_MAT }, want: stateSecret},
		"secrecy not known here": {header: func(h *exchangev1.Header) { h.Secrecy = -1 }, want: stateSecret},
		"report for an inbox": {header: func(h *exchangev1.Header) {
			h.Kind, h.Status = exchangev1.Kind_KIND_STATUS, &exchangev1.Status{Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_DONE}
		}, want: invalidField},
		"time that cannot be kept": {offer: func(o *offer) { o.ExpiresAt = timestamppb.New(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)) }, want: invalidField},
		"no purpose":               {offer: func(o *offer) { o.Purpose = 0 }, want: invalidField},
		"no recipients":            {offer: func(o *offer) { o.AgencyCodes = nil }, want: invalidField},
		"recipient malformed":      {offer: func(o *offer) { o.AgencyCodes = []string{"../H29"} }, want: invalidField},
		"destination malformed":    {offer: func(o *offer) { o.DestinationRelayId = "Nam" }, want: invalidField},
		"ingress missing":          {offer: func(o *offer) { o.IngressRelayId = "" }, want: invalidField},
		"visited malformed":        {offer: func(o *offer) { o.VisitedRelayIds = []string{""} }, want: invalidField},
		"no time of acceptance":    {offer: func(o *offer) { o.AcceptedAt = nil }, want: invalidField},
		"expired":                  {offer: func(o *offer) { o.ExpiresAt = timestamppb.New(time.Now().Add(-time.Second)) }, want: expired},
		"content of another count": {offer: func(o *offer) { o.Content = nil }, want: invalidField},
		"content of another size":  {offer: func(o *offer) { o.Content = [][]byte{small[1:]} }, want: sizeMismatch, temporary: true},
		"content too large inside": {
			header: func(h *exchangev1.Header) { h.Parts[0].Size = forward.InlineLimit + 1 },
			offer:  func(o *offer) { o.Content = [][]byte{make([]byte, forward.InlineLimit+1)} },
			want:   invalidField,
		},
		"other bytes":         {offer: func(o *offer) { o.Content = [][]byte{bytes.ToUpper(small)} }, want: hashMismatch, temporary: true},
		"recipient not home":  {offer: func(o *offer) { o.AgencyCodes = []string{string(atTrung)} }, want: notHome, temporary: true},
		"recipient unknown":   {offer: func(o *offer) { o.AgencyCodes = []string{"H99"} }, want: notHome, temporary: true},
		"was here on transit": {offer: func(o *offer) { o.DestinationRelayId, o.VisitedRelayIds = string(trung), []string{string(nam)} }, want: loop, temporary: true},
		"destination unknown": {offer: func(o *offer) { o.DestinationRelayId = "tay" }, want: noRoute, temporary: true},
		"destination cut off": {offer: func(o *offer) { o.DestinationRelayId = string(trung) }, want: noRoute, temporary: true},
		"copy for another relay": {offer: func(o *offer) {
			o.DestinationRelayId, o.Purpose = string(trung), relayv1.Purpose_PURPOSE_COPY
		}, want: invalidField},
		"copy for nobody":     {offer: func(o *offer) { o.Purpose, o.AgencyCodes = relayv1.Purpose_PURPOSE_COPY, nil }, want: invalidField},
		"report that is none": {offer: func(o *offer) { o.Purpose, o.AgencyCodes = relayv1.Purpose_PURPOSE_REPORT, nil }, want: invalidField},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
				m.start(nam)
				p := m.bacAtNam(t)
				o := offered(t, c.header, small)
				if c.offer != nil {
					c.offer(o)
				}
				p.offer(o)
				refused := p.answer().GetRefused()
				if refused.GetReason() != c.want || refused.GetTemporary() != c.temporary || refused.GetNumber() != 1 || refused.GetMessage() == "" {
					t.Errorf("answer %v, want %s, temporary %t", refused, c.want, c.temporary)
				}
				if got := m.nodes[nam].spool.envelopes(); len(got) > 0 {
					t.Errorf("custody of %v was taken", got)
				}
				next := offered(t, func(h *exchangev1.Header) { h.DocumentId = "2" }, small)
				next.Number = 2
				p.offer(next)
				if a := p.answer(); a.GetAccepted().GetNumber() != 2 {
					t.Errorf("the next offer was answered %v, want accepted", a)
				}
			})
		})
	}
}

// A breach of the protocol ends the session.
func TestSessionBreaches(t *testing.T) {
	hello := func(stream relayv1.Stream, version uint32) *relayv1.PassRequest {
		return &relayv1.PassRequest{Message: &relayv1.PassRequest_Hello{Hello: &relayv1.PassHello{Stream: stream, Version: version}}}
	}
	good := hello(relayv1.Stream_STREAM_URGENT, 1)
	end := &relayv1.PassRequest{Message: &relayv1.PassRequest_End{End: &relayv1.OfferEnd{Number: 7}}}
	offer := &relayv1.PassRequest{Message: &relayv1.PassRequest_Offer{Offer: new(relayv1.Offer)}}
	for name, c := range map[string]struct {
		as       identity
		requests []*relayv1.PassRequest
		want     exchangev1.ErrorReason
	}{
		"no name":                   {as: "", requests: []*relayv1.PassRequest{good}, want: noIdentity},
		"an agency":                 {as: "spiffe://truc.test/agency/bac", requests: []*relayv1.PassRequest{good}, want: wrongIdentity},
		"a relay not known yet":     {as: relayIdentity("tay"), requests: []*relayv1.PassRequest{good}, want: notServing},
		"no hello":                  {as: relayIdentity(bac), requests: []*relayv1.PassRequest{offer}, want: invalidField},
		"hello twice":               {as: relayIdentity(bac), requests: []*relayv1.PassRequest{good, good}, want: invalidField},
		"hello without stream":      {as: relayIdentity(bac), requests: []*relayv1.PassRequest{hello(0, 1)}, want: invalidField},
		"hello without version":     {as: relayIdentity(bac), requests: []*relayv1.PassRequest{hello(relayv1.Stream_STREAM_BULK, 0)}, want: invalidField},
		"end of what was not begun": {as: relayIdentity(bac), requests: []*relayv1.PassRequest{good, end}, want: invalidField},
		"numbers do not ascend":     {as: relayIdentity(bac), requests: []*relayv1.PassRequest{good, offer}, want: invalidField},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				m.start(nam)
				p := m.as(t, c.as)
				for _, r := range c.requests {
					p.send(r)
				}
				_, err := p.stream.Recv()
				if refusal, ok := envelope.AsRefusal(err); !ok || refusal.Reason != c.want {
					t.Errorf("session ended with %v, want %s", err, c.want)
				}
			})
		})
	}
}

// The receipt is the first one, whoever offers the envelope again.
func TestRepeatGetsOriginalReceipt(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.start(nam)
		p := m.bacAtNam(t)
		o := offered(t, nil, []byte("Công văn"))
		p.offer(o)
		first := p.answer().GetAccepted()
		if first.GetRepeat() || first.GetReceipt().GetRelayId() != string(nam) || !bytes.Equal(first.GetReceipt().GetEnvelopeId(), o.GetEnvelopeId()) {
			t.Fatalf("answer %v", first)
		}
		pass(time.Hour)
		o.Number = 2
		p.offer(o)
		again := p.answer().GetAccepted()
		if !again.GetRepeat() || !proto.Equal(again.GetReceipt(), first.GetReceipt()) {
			t.Errorf("repeat answered %v, want the receipt %v", again, first.GetReceipt())
		}
	})
}

// Some recipients are at home here and the others are named.
func TestRecipientsRefused(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.putAgency("H30", nam)
		m.suspend("H30")
		m.start(nam)
		p := m.bacAtNam(t)
		o := offered(t, nil)
		o.AgencyCodes = []string{"H30", string(atNam), string(atTrung), string(atNam)}
		p.offer(o)
		got := map[string]exchangev1.ErrorReason{}
		for _, r := range p.answer().GetAccepted().GetRefused() {
			got[r.GetAgencyCode()] = r.GetReason()
		}
		if len(got) != 2 || got["H30"] != suspended || got[string(atTrung)] != notHome {
			t.Errorf("refused %v", got)
		}
		if n := len(m.nodes[nam].spool.inbox(atNam)); n != 1 {
			t.Errorf("%d in the inbox, want 1", n)
		}
	})
}

// No receipt before the durable commit: while it is under way there is none,
// and if it fails there is a refusal.
func TestNoReceiptBeforeCommit(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		committing, free := make(chan struct{}), make(chan struct{})
		m.nodes[nam].spool.onCommit = func(envelope.ID) {
			close(committing)
			<-free
		}
		m.start(nam)
		p := m.bacAtNam(t)
		p.offer(offered(t, nil))
		<-committing
		answered := make(chan *relayv1.PassResponse, 1)
		go func() {
			a, _ := p.stream.Recv()
			answered <- a
		}()
		synctest.Wait()
		select {
		case a := <-answered:
			t.Fatalf("answered %v before the commit", a)
		default:
		}
		close(free)
		if a := <-answered; a.GetAccepted() == nil {
			t.Errorf("answer %v", a)
		}
	})
}

func TestConfig(t *testing.T) {
	for name, change := range map[string]func(*forward.Config){
		"no id":             func(c *forward.Config) { c.Self = "" },
		"no spool":          func(c *forward.Config) { c.Queues = nil },
		"no ledger":         func(c *forward.Config) { c.Reports = nil },
		"small inline":      func(c *forward.Config) { c.InlineWindow = 1000 },
		"small chunks":      func(c *forward.Config) { c.ChunkSize = 1000 },
		"large chunks":      func(c *forward.Config) { c.ChunkSize = 2 << 20 },
		"negative window":   func(c *forward.Config) { c.Window = -1 },
		"back-off reversed": func(c *forward.Config) { c.BackoffBase, c.BackoffCap = time.Hour, time.Second },
		"negative timeout":  func(c *forward.Config) { c.AnswerTimeout = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			n := &node{spool: newMemory(bac), directory: routing.NewDirectory(), reports: new(reports)}
			c := forward.Config{
				Self: bac, Directory: n.directory, Peers: n, Queues: n.spool, Inboxes: n.spool, Holdings: n.spool,
				Facts: n.spool, Reports: n.reports, Begin: n.spool.Begin,
			}
			if _, err := forward.New(c); err != nil {
				t.Fatalf("a good configuration: %v", err)
			}
			change(&c)
			if _, err := forward.New(c); err == nil {
				t.Error("no error")
			}
		})
	}
}
