package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

var (
	errLinkDown = errors.New("the link is down")
	errSilent   = errors.New("the peer is silent")
	errProtocol = errors.New("the peer breaks the protocol")
)

type outletKey struct {
	peer   routing.RelayID
	urgent bool
}

// outlet is one of the two ways to hand on to a peer. It outlives its sessions
// and holds the windows: what may be under way at once.
type outlet struct {
	outletKey
	f      *Forwarder
	offers chan struct{}       // places for offers with content inside
	inline *semaphore.Weighted // room for that content, in bytes
	slow   slowness

	opening chan struct{} // held while a session is opened
	mu      sync.Mutex
	current *session // guarded by mu
}

func (f *Forwarder) outlet(peer routing.RelayID, urgent bool) *outlet {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := outletKey{peer, urgent}
	o := f.outlets[key]
	if o == nil {
		o = &outlet{
			outletKey: key,
			f:         f,
			offers:    make(chan struct{}, f.Window),
			inline:    semaphore.NewWeighted(f.InlineWindow),
			opening:   make(chan struct{}, 1),
		}
		f.outlets[key] = o
	}
	return o
}

// cutOutlets ends the sessions with a peer; offers under way fail with cause.
func (f *Forwarder) cutOutlets(peer routing.RelayID, cause error) {
	for _, urgent := range []bool{true, false} {
		f.mu.Lock()
		o := f.outlets[outletKey{peer, urgent}]
		f.mu.Unlock()
		if o == nil {
			continue
		}
		if s := o.live(); s != nil {
			s.end(cause)
		}
	}
}

func (o *outlet) live() *session {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.current != nil && o.current.ended() {
		o.current = nil
	}
	return o.current
}

func (o *outlet) stream() relayv1.Stream {
	if o.urgent {
		return relayv1.Stream_STREAM_URGENT
	}
	return relayv1.Stream_STREAM_BULK
}

// session returns the session that is open, or opens one.
func (o *outlet) session(ctx context.Context) (*session, error) {
	if s := o.live(); s != nil {
		return s, nil
	}
	select {
	case o.opening <- struct{}{}:
		defer func() { <-o.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s := o.live(); s != nil {
		return s, nil
	}
	s, err := o.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("session with %s: %w", o.peer, err)
	}
	o.mu.Lock()
	o.current = s
	o.mu.Unlock()
	return s, nil
}

func (o *outlet) open(ctx context.Context) (*session, error) {
	conn, err := o.f.Peers.Conn(o.peer, o.urgent)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &session{
		f: o.f, peer: o.peer, patience: o.f.AnswerTimeout, cancel: cancel,
		sending: make(chan struct{}, 1), done: make(chan struct{}),
		waiting: make(map[uint64]chan *relayv1.PassResponse),
	}
	impatient := time.AfterFunc(s.patience, func() { cancel(errSilent) })
	s.stream, err = relayv1.NewPeerServiceClient(conn).Pass(ctx)
	impatient.Stop()
	if err != nil {
		cancel(err)
		return nil, err
	}
	// gRPC would keep what is sent to try it again by itself, and have senders wait
	// for a connection behind who receives; asking for the context stops that.
	_ = s.stream.Context()
	if !o.f.session(1) {
		s.end(context.Canceled)
		return nil, context.Canceled
	}
	go func() {
		defer o.f.sessions.Done()
		s.read()
	}()
	return s, s.send(&relayv1.PassRequest{Message: &relayv1.PassRequest_Hello{
		Hello: &relayv1.PassHello{Stream: o.stream(), Version: contractVersion},
	}})
}

// session is one Pass stream to a peer, from the side that has custody.
type session struct {
	f        *Forwarder
	peer     routing.RelayID
	stream   grpc.BidiStreamingClient[relayv1.PassRequest, relayv1.PassResponse]
	patience time.Duration
	cancel   context.CancelCauseFunc

	// sending is held for one message. Those who wait for it get it in the order
	// they came, so that transfers go on chunk by chunk in turns.
	sending chan struct{}
	number  uint64 // of the last offer, ascending on the wire; guarded by sending

	mu      sync.Mutex
	waiting map[uint64]chan *relayv1.PassResponse // guarded by mu
	err     error                                 // guarded by mu; why it ended
	done    chan struct{}                         // closed at the end
}

// end ends the session; the first cause counts.
func (s *session) end(cause error) {
	s.mu.Lock()
	first := s.err == nil
	if first {
		s.err = cause
		close(s.done)
		s.cancel(cause)
	}
	s.mu.Unlock()
	if first && isBreak(cause) && s.f.links.broken(s.peer) {
		s.f.Logger.Warn("link is down: it keeps breaking sessions", "peer", s.peer, "error", cause)
		s.f.cutOutlets(s.peer, errLinkDown)
	}
}

// isBreak reports whether the connection broke under a session, or the peer
// fell silent, as opposed to either side ending it with a word.
func isBreak(cause error) bool {
	if errors.Is(cause, errSilent) {
		return true
	}
	refusal, _ := envelope.AsRefusal(cause)
	return status.Code(cause) == codes.Unavailable && refusal.Reason == exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED
}

func (s *session) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *session) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// read deals the answers out to those who wait for them, until the session
// ends.
func (s *session) read() {
	for {
		answer, err := s.stream.Recv()
		if err != nil {
			s.end(err)
			return
		}
		s.f.links.heard(s.peer)
		number, ok := numberOf(answer)
		if !ok {
			continue // of a later version of the contract
		}
		s.mu.Lock()
		waiting := s.waiting[number]
		s.mu.Unlock()
		if waiting == nil {
			continue // taken back meanwhile
		}
		select {
		case waiting <- answer:
		default:
			s.end(fmt.Errorf("%w: it answers offer %d more than twice", errProtocol, number))
			return
		}
	}
}

func numberOf(answer *relayv1.PassResponse) (uint64, bool) {
	switch m := answer.GetMessage().(type) {
	case *relayv1.PassResponse_Accepted:
		return m.Accepted.GetNumber(), true
	case *relayv1.PassResponse_Refused:
		return m.Refused.GetNumber(), true
	case *relayv1.PassResponse_Resume:
		return m.Resume.GetNumber(), true
	}
	return 0, false
}

// turn waits until it is the caller's turn to write.
func (s *session) turn() error {
	select {
	case s.sending <- struct{}{}:
		return nil
	case <-s.done:
		return s.cause()
	}
}

// send writes one message.
func (s *session) send(req *relayv1.PassRequest) error {
	if err := s.turn(); err != nil {
		return err
	}
	defer func() { <-s.sending }()
	return s.write(req)
}

// write needs s.sending held. A peer that makes no room for long ends the
// session.
func (s *session) write(req *relayv1.PassRequest) error {
	impatient := time.AfterFunc(s.patience, func() { s.end(errSilent) })
	defer impatient.Stop()
	switch err := s.stream.Send(req); {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		<-s.done // the reader learns why
	default:
		s.end(err)
	}
	return s.cause()
}

// offer sends an offer under the next number and returns where its answers
// come: at most one resume, and one accepted or refused. The number is taken
// back with forget.
func (s *session) offer(offer *relayv1.Offer) (<-chan *relayv1.PassResponse, error) {
	if err := s.turn(); err != nil {
		return nil, err
	}
	defer func() { <-s.sending }()
	s.number++
	offer.Number = s.number
	answers := make(chan *relayv1.PassResponse, 2)
	s.mu.Lock()
	s.waiting[offer.Number] = answers
	s.mu.Unlock()
	if err := s.write(&relayv1.PassRequest{Message: &relayv1.PassRequest_Offer{Offer: offer}}); err != nil {
		s.forget(offer.Number)
		return nil, err
	}
	return answers, nil
}

func (s *session) forget(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, number)
}

// answer waits for the next answer; a peer that is silent for long ends the
// session.
func (s *session) answer(answers <-chan *relayv1.PassResponse) (*relayv1.PassResponse, error) {
	impatient := time.NewTimer(s.patience)
	defer impatient.Stop()
	select {
	case a := <-answers:
		return a, nil
	case <-impatient.C:
		s.end(errSilent)
	case <-s.done:
	}
	select {
	case a := <-answers: // came before the end
		return a, nil
	default:
		return nil, s.cause()
	}
}
