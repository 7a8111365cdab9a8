package forward

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// crowded is how long a peer waits that found no place for a large envelope.
const crowded = time.Second

// intake is one Pass session of a peer, from the side that takes custody.
//
// Offers with content inside need nothing more from the peer: where there is
// no place for them, the session is not read on. The others hold a place until
// their last chunk, which has to be read: where there is no place, they are
// refused for the moment, because a session that waited for one could wait for
// its own chunks.
type intake struct {
	f      *Forwarder
	peer   routing.RelayID
	stream relayv1.PeerService_PassServer

	requests chan received
	quit     chan struct{} // closed when no more chunks will come
	work     sync.WaitGroup

	// sending is held for one answer, for as long as the peer makes no room for
	// it: a channel, because a clock that is not the machine's (synctest) stands
	// still while somebody waits for a mutex.
	sending chan struct{}

	last uint64 // number of the last offer; only the handler looks at it

	mu        sync.Mutex
	transfers map[uint64]*taking // guarded by mu; those that want chunks
}

type received struct {
	request *relayv1.PassRequest
	err     error
}

// Pass serves a session in which a peer hands envelopes on.
func (f *Forwarder) Pass(stream relayv1.PeerService_PassServer) error {
	peer, err := f.caller(stream.Context())
	if err != nil {
		return err
	}
	in := &intake{
		f: f, peer: peer, stream: stream,
		requests:  make(chan received),
		quit:      make(chan struct{}),
		sending:   make(chan struct{}, 1),
		transfers: make(map[uint64]*taking),
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	// Reading is interrupted only by the end of this handler, so it cannot be
	// waited for here. Run waits for both.
	if !f.session(2) {
		return f.accepting(nil)
	}
	defer f.sessions.Done()
	go func() {
		defer f.sessions.Done()
		in.receive(ctx)
	}()
	err = in.serve(ctx)
	close(in.quit)
	in.work.Wait() // what came whole is taken and answered
	return err
}

func (in *intake) receive(ctx context.Context) {
	for {
		request, err := in.stream.Recv()
		select {
		case in.requests <- received{request, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// serve reads the session to its end.
func (in *intake) serve(ctx context.Context) error {
	for first := true; ; first = false {
		var r received
		select {
		case r = <-in.requests:
		case <-in.f.stopping:
			return in.f.accepting(nil)
		}
		switch {
		case errors.Is(r.err, io.EOF):
			return nil
		case r.err != nil:
			return r.err
		}
		hello, isHello := r.request.GetMessage().(*relayv1.PassRequest_Hello)
		if isHello != first {
			return envelope.Refuse(invalidField, "hello comes first and once")
		}
		var err error
		if first {
			err = checkHello(hello.Hello)
		} else {
			err = in.message(ctx, r.request)
		}
		if err != nil {
			return err
		}
	}
}

func checkHello(hello *relayv1.PassHello) error {
	switch hello.GetStream() {
	case relayv1.Stream_STREAM_URGENT, relayv1.Stream_STREAM_BULK:
	default:
		return envelope.Refuse(invalidField, "hello.stream: %d is no session that is known here", hello.GetStream())
	}
	if hello.GetVersion() < contractVersion {
		return envelope.Refuse(invalidField, "hello.version: %d, at least %d is needed", hello.GetVersion(), contractVersion)
	}
	return nil
}

func (in *intake) message(ctx context.Context, request *relayv1.PassRequest) error {
	switch m := request.GetMessage().(type) {
	case *relayv1.PassRequest_Offer:
		return in.offer(ctx, m.Offer)
	case *relayv1.PassRequest_Chunk:
		return in.deal(ctx, m.Chunk.GetNumber(), request)
	case *relayv1.PassRequest_End:
		return in.deal(ctx, m.End.GetNumber(), request)
	case *relayv1.PassRequest_Cancel:
		return in.deal(ctx, m.Cancel.GetNumber(), request)
	}
	return nil // of a later version of the contract
}

// offer starts the taking of an offer when there is a place for it.
func (in *intake) offer(ctx context.Context, offer *relayv1.Offer) error {
	number := offer.GetNumber()
	if number <= in.last {
		return envelope.Refuse(invalidField, "offer.number: %d after %d, must ascend", number, in.last)
	}
	in.last = number
	if err := in.f.accepting(offer); err != nil {
		in.refuse(ctx, offer, err)
		return nil
	}
	t := &taking{in: in, offer: offer, done: make(chan struct{})}
	var free func()
	if offer.GetHasContent() {
		size := contentSize(offer)
		if size > InlineLimit {
			in.refuse(ctx, offer, envelope.Refuse(invalidField, "offer.content: %d bytes, at most %d ride inside an offer", size, InlineLimit))
			return nil
		}
		select {
		case in.f.offers <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := in.f.inline.Acquire(ctx, size); err != nil {
			<-in.f.offers
			return err
		}
		free = func() {
			in.f.inline.Release(size)
			<-in.f.offers
		}
	} else {
		select {
		case in.f.transfers <- struct{}{}:
		default:
			in.refuse(ctx, offer, &envelope.Refusal{
				Reason:  exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED,
				Message: "as many large envelopes as are taken at once are under way; offer it again later", RetryAfter: crowded,
			})
			return nil
		}
		t.chunks = make(chan *relayv1.PassRequest, 1)
		in.mu.Lock()
		in.transfers[number] = t
		in.mu.Unlock()
		free = func() {
			in.mu.Lock()
			delete(in.transfers, number)
			in.mu.Unlock()
			<-in.f.transfers
		}
	}
	in.work.Go(func() {
		defer free()
		t.taken(ctx)
	})
	return nil
}

func contentSize(offer *relayv1.Offer) (n int64) {
	for _, data := range offer.GetContent() {
		n += int64(len(data))
	}
	return n
}

// deal passes a message on to the offer that it belongs to. What comes for an
// offer that has ended meanwhile is dropped: it was on the way.
func (in *intake) deal(ctx context.Context, number uint64, request *relayv1.PassRequest) error {
	if number == 0 || number > in.last {
		return envelope.Refuse(invalidField, "number: %d was not offered", number)
	}
	in.mu.Lock()
	t := in.transfers[number]
	in.mu.Unlock()
	if t == nil {
		return nil
	}
	select {
	case t.chunks <- request:
	case <-t.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// send writes one answer. An error means that the session has ended, which the
// reading side learns too.
func (in *intake) send(answer *relayv1.PassResponse) {
	in.sending <- struct{}{}
	defer func() { <-in.sending }()
	_ = in.stream.Send(answer)
}

// refuse answers an offer of which nothing was taken.
func (in *intake) refuse(ctx context.Context, offer *relayv1.Offer, cause error) {
	refusal, ok := envelope.AsRefusal(cause)
	// One without a reason that names a pause is about this envelope (Reports.Ready);
	// everything else that has none is about the store.
	if !ok || refusal.Reason == exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED && refusal.RetryAfter == 0 {
		refusal = envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STORAGE_FAILED, "%v", cause)
	}
	answer := &relayv1.OfferRefused{
		Number:    offer.GetNumber(),
		Reason:    refusal.Reason,
		Message:   clip(refusal.Message),
		Temporary: envelope.Temporary(refusal),
	}
	id, _ := envelope.IDFromBytes(offer.GetEnvelopeId()) // zero in the log where it is none
	switch refusal.Reason {
	case exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH, exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH:
		// Damaged on the way, if it is the first time; else the peer's own copy is.
		answer.Temporary = in.f.damage.add(id) < damagedForGood
	case notHome, loop:
		// The directories or link tables of two relays differ, and will not.
		answer.Temporary = true
	}
	if refusal.RetryAfter > 0 {
		answer.RetryAfter = durationpb.New(refusal.RetryAfter)
	}
	in.f.telemetry.took(ctx, in.peer, "refused", refusal.Reason)
	in.f.Logger.WarnContext(ctx, "offer refused", "envelope", id.String(), "trace", traceID(ctx), "peer", in.peer,
		"reason", reasonName(refusal.Reason), "temporary", answer.Temporary, "error", cause)
	in.send(&relayv1.PassResponse{Message: &relayv1.PassResponse_Refused{Refused: answer}})
}

// damagedForGood is how many times in a row an envelope may come damaged before
// the fault is taken to be the peer's copy.
const damagedForGood = 4

// damageCount counts damaged arrivals by envelope; it forgets all rather than
// grow.
type damageCount struct {
	mu sync.Mutex
	n  map[envelope.ID]int // guarded by mu
}

func newDamageCount() *damageCount { return &damageCount{n: make(map[envelope.ID]int)} }

func (d *damageCount) add(id envelope.ID) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.n) >= 1024 {
		clear(d.n)
	}
	d.n[id]++
	return d.n[id]
}

func (d *damageCount) forget(id envelope.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.n, id)
}
