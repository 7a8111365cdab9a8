package agency

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// ReceiveOptions shape one Receive.
type ReceiveOptions struct {
	// Drain ends the iteration when the inbox holds nothing more; otherwise it
	// goes on until the context ends.
	Drain bool
	// InlineLimit is up to how many bytes in all the content of an envelope
	// comes with it, without a call for each part; 0: 262,144, which is the
	// most; negative: never.
	InlineLimit int
	// MaxUnconfirmed is how many envelopes may be given out and not confirmed
	// before the relay waits, 1 to 10,000; 0: 256.
	MaxUnconfirmed int
}

// Receive gives the envelopes of the inbox: what waits, urgent lanes first, and
// then what arrives. It reconnects, at another relay where need be, until the
// context ends. An error is always the last: a refusal that no other try would
// change, with Drain the end of Config.Patience, or the end of the context.
//
// An envelope is given once within the process, until it was confirmed or
// released; a process that begins anew is given everything unconfirmed again.
// Several Receive at once share the envelopes among them.
func (c *Client) Receive(ctx context.Context, options ReceiveOptions) iter.Seq2[*Arrival, error] {
	return func(yield func(*Arrival, error) bool) {
		var limit time.Duration
		if options.Drain {
			limit = c.config.Patience
		}
		p := c.patience("receive", envelope.ID{}, limit)
		for {
			r, err := p.nearest(ctx)
			if err == nil {
				err = c.receiveFrom(ctx, r, options, p, yield)
				switch {
				case errors.Is(err, errStopped), err == nil && options.Drain:
					return
				case errors.Is(err, errNearer):
					continue
				case err == nil:
					err = errors.New("the relay ended the stream")
				}
			}
			if err := p.failed(ctx, r, err); err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

var (
	// errStopped: whoever iterates has had enough.
	errStopped = errors.New("iteration stopped")
	// errNearer: a nearer relay was found.
	errNearer = errors.New("a nearer relay was found")
)

// receiveFrom reads one stream to its end.
func (c *Client) receiveFrom(ctx context.Context, r *relay, options ReceiveOptions, p *patience, yield func(*Arrival, error) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel(nil)

	request := &exchangev1.ReceiveRequest{
		AgencyCode: c.config.Agency, MaxUnconfirmed: uint32(max(options.MaxUnconfirmed, 0)), Drain: options.Drain,
	}
	switch {
	case options.InlineLimit == 0:
		request.InlineLimit = uint32(envelope.DefaultLimits().MaxInline)
	case options.InlineLimit > 0:
		request.InlineLimit = uint32(options.InlineLimit)
	}
	stream, err := r.exchange.Receive(ctx, request)
	if err != nil {
		return err
	}
	if !options.Drain {
		watch.Go(func() { c.watchForNearer(ctx, r, cancel) })
	}
	messages := make(chan message)
	watch.Go(func() { readAll(ctx, stream, messages) })
	for {
		arrival, err := c.next(ctx, r, options, p, messages)
		if errors.Is(err, io.EOF) {
			c.mesh.worked(r)
			return nil
		}
		if err != nil {
			if cause := context.Cause(ctx); errors.Is(cause, errNearer) {
				return cause
			}
			return err
		}
		if arrival != nil && !yield(arrival, nil) {
			return errStopped
		}
	}
}

// message is what a Receive stream brought.
type message struct {
	response *exchangev1.ReceiveResponse
	err      error
}

// readAll reads a stream to its end, which is the last message.
func readAll(ctx context.Context, stream grpc.ServerStreamingClient[exchangev1.ReceiveResponse], messages chan<- message) {
	for {
		response, err := stream.Recv()
		select {
		case messages <- message{response, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// next waits for what comes first: an arrival of the stream, or one that was given
// back and is to be given out again. It returns nil where that is not given out.
func (c *Client) next(ctx context.Context, r *relay, options ReceiveOptions, p *patience, messages <-chan message) (*Arrival, error) {
	var again <-chan time.Time
	var changed <-chan struct{}
	if !options.Drain {
		arrival, wait, more := c.books.again(time.Now())
		if arrival != nil {
			return arrival, nil
		}
		if changed = more; wait > 0 {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			again = timer.C
		}
	}
	select {
	case <-again:
		return nil, nil
	case <-changed:
		return nil, nil
	case m := <-messages:
		if m.err != nil {
			return nil, m.err
		}
		c.mesh.worked(r)
		p.progressed()
		return c.take(ctx, m.response), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// watchForNearer measures the relays now and then while a stream is open, and
// ends the stream when another relay is worth moving to.
func (c *Client) watchForNearer(ctx context.Context, r *relay, cancel context.CancelCauseFunc) {
	for sleep(ctx, c.mesh.untilMeasured()+c.config.timing.backoff(1)) == nil {
		if nearer, err := c.mesh.nearest(ctx); err == nil && nearer != r {
			cancel(errNearer)
			return
		}
	}
}

// take makes an arrival of what a relay sent; nil where it is not to be given
// out.
func (c *Client) take(ctx context.Context, response *exchangev1.ReceiveResponse) *Arrival {
	header := response.GetEnvelope().GetHeader()
	id, err := envelope.IDFromBytes(response.GetEnvelope().GetId())
	if err != nil {
		c.logger.ErrorContext(ctx, "arrival without an id is not given out", "error", err)
		return nil
	}
	if computed, _, err := envelope.HeaderID(header); err != nil || computed != id {
		// It stays in the inbox, where an operator can find out who changed it.
		c.logger.ErrorContext(ctx, "arrival is not what its sender wrote, not given out", "envelope", id, "computed", computed, "error", err)
		return nil
	}
	switch c.books.take(id) {
	case takenBefore:
		return nil
	case confirmedBefore:
		// The confirmation crossed with the arrival, or was lost with a relay.
		if err := c.Confirm(ctx, id); err != nil {
			c.logger.WarnContext(ctx, "not confirmed again", "envelope", id, "error", err)
		}
		return nil
	}
	arrival := &Arrival{
		ID: id, Envelope: response.GetEnvelope(), Agency: response.GetAgencyCode(),
		ArrivedAt: response.GetArrivedAt().AsTime(), client: c,
	}
	if response.GetHasContent() && len(response.GetContent()) == len(header.GetParts()) {
		arrival.content = response.GetContent()
	}
	return arrival
}

// Confirm states that envelopes are durable on the agency's side: they leave
// the inbox, and their senders learn of it. Confirming twice is harmless. The
// error is a *RecalledError where senders took some of them back before: those are
// to be destroyed, the others are confirmed.
func (c *Client) Confirm(ctx context.Context, ids ...envelope.ID) error {
	const most = 1000 // ConfirmRequest.envelope_ids
	var recalled []envelope.ID
	for len(ids) > 0 {
		batch := ids[:min(len(ids), most)]
		ids = ids[len(batch):]
		request := &exchangev1.ConfirmRequest{AgencyCode: c.config.Agency}
		for _, id := range batch {
			request.EnvelopeIds = append(request.EnvelopeIds, id[:])
		}
		c.books.confirming(batch)
		err := c.call(ctx, "confirm", batch[0], func(ctx context.Context, r *relay) error {
			answer, err := r.exchange.Confirm(ctx, request)
			for _, b := range answer.GetRecalledIds() {
				if id, err := envelope.IDFromBytes(b); err == nil && !slices.Contains(recalled, id) {
					recalled = append(recalled, id)
				}
			}
			return err
		})
		if err != nil {
			return err
		}
		// What arrived again meanwhile may have come from a relay that did not
		// have it when it was asked: its sender would never learn of it.
		ids = append(ids[:len(ids):len(ids)], c.books.confirmed(batch)...)
	}
	if len(recalled) > 0 {
		return &RecalledError{IDs: recalled}
	}
	return nil
}

// RecalledError says that envelopes were taken back by their senders before they
// were confirmed: what was received of them is not to enter the books, and to be
// destroyed (ND30 Art. 18).
type RecalledError struct{ IDs []envelope.ID }

func (e *RecalledError) Error() string {
	if len(e.IDs) == 1 {
		return fmt.Sprintf("envelope %s was taken back by its sender before it was confirmed", e.IDs[0])
	}
	return fmt.Sprintf("%d envelopes were taken back by their senders before they were confirmed, the first %s", len(e.IDs), e.IDs[0])
}

// Arrival is one envelope given out of the inbox.
type Arrival struct {
	ID envelope.ID
	// Envelope is what the sender wrote, and where and when it was accepted.
	Envelope *exchangev1.Envelope
	// Agency is the code under which the agency was addressed.
	Agency string
	// ArrivedAt is when the home relay had it.
	ArrivedAt time.Time
	// Progress is called now and then by Save, from its goroutine; may be nil.
	// Done counts what is on disk here, of Total bytes of all parts.
	Progress func(Progress)

	client *Client
	// content of all parts, where it came along.
	content [][]byte
	// folder is what Save made, if it was called.
	folder string
	// releases is how often it was given back in this process.
	releases int
}

// Context returns ctx with the trace that the sender began.
func (a *Arrival) Context(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
		"traceparent": a.Envelope.GetTraceparent(), "tracestate": a.Envelope.GetTracestate(),
	})
}

// Confirm states that the envelope is durable on the agency's side; it leaves
// the inbox. Where its sender took it back before, the error is a *RecalledError, and
// the folder that Save made is removed; what the mesh had confirmed earlier stays.
func (a *Arrival) Confirm(ctx context.Context) error {
	ctx, span := a.client.tracer.Start(a.Context(ctx), "confirm")
	defer span.End()
	err := a.client.Confirm(ctx, a.ID)
	if recalled := (*RecalledError)(nil); errors.As(err, &recalled) && a.folder != "" {
		gone, failure := destroy(a.folder)
		if failure != nil {
			return fmt.Errorf("envelope %s: %w, and its folder is not removed: %w", a.ID, err, failure)
		}
		if !gone {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("envelope %s: %w", a.ID, err)
	}
	if a.folder != "" {
		if err := confirmed(a.folder); err != nil {
			a.client.logger.WarnContext(ctx, "folder is not marked as confirmed", "envelope", a.ID, "error", err)
		}
	}
	return nil
}

// Release gives the envelope back unconfirmed. A Receive that waits gives it out
// again after a pause, which grows with each time, up to half a minute; one that
// drains does not, but the next one does.
func (a *Arrival) Release() { a.client.books.release(a) }
