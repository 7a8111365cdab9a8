package simulation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/history"
	"github.com/truclienthong/truc/tls"
)

// desk is an agency: the real client, on a machine of its own, with books that
// outlive its software.
type desk struct {
	w    *world
	plan deskPlan
	host string

	mu     sync.Mutex // owns what follows
	chance *rand.Rand
	client *agency.Client
	outbox *agency.Outbox
	stop   context.CancelFunc // ends what the software does
	ctx    context.Context
	// books are the envelopes that are in the folder; confirmed since when the
	// mesh has said that it knows so.
	books     map[envelope.ID]bool
	confirmed map[envelope.ID]time.Time
	// gaveBack are those that were destroyed again: their senders took them back
	// before they were confirmed.
	gaveBack map[envelope.ID]bool
	working  sync.WaitGroup // what the software does
}

func (w *world) addDesk(i int, p deskPlan) {
	d := &desk{
		w: w, plan: p, host: "desk-" + p.code, chance: rand.New(rand.NewPCG(w.seed, streamDesks+uint64(i)<<32)),
		books: map[envelope.ID]bool{}, confirmed: map[envelope.ID]time.Time{}, gaveBack: map[envelope.ID]bool{},
	}
	w.net.add(d.host, tls.Identity{TrustDomain: trustDomain, Kind: tls.KindAgency, Name: p.code})
	w.desks = append(w.desks, d)
}

// open starts the software.
func (d *desk) open() error {
	reach := d.w.net.reach(d.host)
	var relays []string
	for _, id := range d.plan.knows {
		relays = append(relays, addressOf(id))
	}
	client, err := agency.New(agency.Config{
		Relays: relays, Agency: d.plan.code, Logger: d.w.logger("desk", d.plan.code),
		Dial: func(expect func(tls.Identity) error) []grpc.DialOption {
			return append(reach(expect), grpc.WithChainStreamInterceptor(d.watch))
		},
	})
	if err != nil {
		return err
	}
	outbox, err := agency.OpenOutbox(agency.OutboxConfig{Dir: filepath.Join(d.w.dir, d.plan.code), Client: client})
	if err != nil {
		client.Close()
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.client, d.outbox = client, outbox
	d.ctx, d.stop = context.WithCancel(d.w.ctx)
	return nil
}

// current is the outbox of now, and until when it is.
func (d *desk) current() (*agency.Outbox, context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.outbox, d.ctx
}

// software is the client of now, and until when it is.
func (d *desk) software() (*agency.Client, context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.client, d.ctx
}

// run receives until the simulation ends. Restart is a kill of the software: it
// begins anew with its books.
func (d *desk) run() {
	for d.w.ctx.Err() == nil {
		if err := d.open(); err != nil {
			d.w.violate("stopped", "client of %s: %v", d.plan.code, err)
			return
		}
		client, outbox, ctx := d.client, d.outbox, d.ctx
		d.working.Go(func() { _ = outbox.Run(ctx) })
		d.receive(ctx, client)
		d.stop()
		d.working.Wait()
		d.w.net.stop(d.host, false)
		client.Close()
		d.w.net.change(func() { d.w.net.hosts[d.host].power = running })
	}
}

func (d *desk) receive(ctx context.Context, client *agency.Client) {
	for ctx.Err() == nil {
		for arrival, err := range client.Receive(ctx, agency.ReceiveOptions{InlineLimit: d.plan.inline}) {
			if err != nil {
				if ctx.Err() == nil && !envelope.Temporary(err) {
					d.w.violate("refused", "%s may not receive: %v", d.plan.code, err)
					d.w.sleep(10 * time.Second)
				}
				break
			}
			if err := d.take(ctx, arrival); err != nil {
				d.w.say("desk %s: %v", d.plan.code, err)
				arrival.Release()
			}
		}
	}
}

// roll tells whether something happens that happens in so many of a hundred.
func (d *desk) roll(percent int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.chance.IntN(100) < percent
}

// take writes one arrival into the books and confirms it.
func (d *desk) take(ctx context.Context, arrival *agency.Arrival) error {
	files := map[string][]byte{}
	for i, part := range arrival.Envelope.GetHeader().GetParts() {
		content, err := read(ctx, arrival, i)
		if err != nil {
			return fmt.Errorf("part %d of %s: %w", i, arrival.ID, err)
		}
		files[part.GetName()] = content
	}
	header := arrival.Envelope.GetHeader()
	d.mu.Lock()
	known := d.books[arrival.ID]
	d.books[arrival.ID] = true
	d.mu.Unlock()
	if !known && header.GetKind() == exchangev1.Kind_KIND_DOCUMENT && d.w.speaks() {
		d.w.unsaid.Add(1)
		d.w.running.Go(func() {
			defer d.w.unsaid.Add(-1)
			d.w.speak(d, arrival)
		})
	}
	if !known {
		d.w.history.Took(d.plan.code, arrival.ID, header.GetSender().GetCode(), header.GetDocumentId(), history.SumOf(files), time.Now())
	}
	if arrival.Agency != d.plan.code {
		d.w.violate("wrong desk", "%s was given envelope %s for %s", d.plan.code, arrival.ID, arrival.Agency)
	}
	healed := false
	select {
	case <-d.w.healed:
		healed = true
	default:
	}
	switch {
	case !healed && d.roll(d.plan.restarts):
		d.w.count("recipient killed between books and confirmation", d.w.since())
		d.stop()
		return errors.New("killed between books and confirmation")
	case !healed && d.roll(d.plan.loses):
		d.w.count("recipient cut off between books and confirmation", d.w.since())
		for _, n := range d.w.nodes {
			d.w.net.reset(d.host, n.id, 1)
		}
	}
	if healed || d.plan.late == 0 && !d.plan.stubborn {
		return d.confirm(ctx, arrival)
	}
	d.working.Go(func() {
		if d.plan.stubborn {
			select {
			case <-d.w.healed:
			case <-ctx.Done():
			}
		} else {
			d.mu.Lock()
			late := between(d.chance, 0, d.plan.late)
			d.mu.Unlock()
			select {
			case <-time.After(late):
			case <-ctx.Done():
			}
		}
		if err := d.confirm(ctx, arrival); err != nil {
			d.w.say("desk %s: %v", d.plan.code, err)
			arrival.Release()
		}
	})
	return nil
}

func read(ctx context.Context, arrival *agency.Arrival, part int) ([]byte, error) {
	r, err := arrival.Part(ctx, part)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (d *desk) confirm(ctx context.Context, arrival *agency.Arrival) error {
	if err := arrival.Confirm(ctx); err != nil {
		if recalled := (*agency.RecalledError)(nil); errors.As(err, &recalled) {
			if !d.w.asks() {
				d.w.violate("lost", "%s is told that %s was taken back, which nobody did", d.plan.code, arrival.ID)
			}
			// Unless a relay has taken a confirmation before that this one does not
			// know of, as where the agency has moved.
			d.mu.Lock()
			before := !d.confirmed[arrival.ID].IsZero()
			d.mu.Unlock()
			if !before {
				d.destroy(arrival.ID)
			}
			return nil
		}
		return err
	}
	d.mu.Lock()
	if d.confirmed[arrival.ID].IsZero() {
		d.confirmed[arrival.ID] = time.Now()
		d.w.say("desk %s: envelope %s is confirmed", d.plan.code, arrival.ID)
	}
	client := d.client
	d.mu.Unlock()
	if d.roll(d.plan.twice) {
		return client.Confirm(ctx, arrival.ID)
	}
	return nil
}

// watch looks at what the mesh gives to the client: what was confirmed must not
// come again on a stream that was opened later.
func (d *desk) watch(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil || method != exchangev1.ExchangeService_Receive_FullMethodName {
		return stream, err
	}
	return &watched{stream, d, time.Now()}, nil
}

type watched struct {
	grpc.ClientStream
	d      *desk
	opened time.Time
}

func (s *watched) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	response, ok := m.(*exchangev1.ReceiveResponse)
	if err != nil || !ok {
		return err
	}
	id, _ := envelope.IDFromBytes(response.GetEnvelope().GetId())
	d := s.d
	d.mu.Lock()
	at := d.confirmed[id]
	d.mu.Unlock()
	d.w.mu.Lock()
	clean := d.w.clean
	d.w.mu.Unlock()
	if clean && !at.IsZero() && at.Before(s.opened) {
		d.w.violate("doubled", "%s is given envelope %s again, which it confirmed %s before it began to listen",
			d.plan.code, id, s.opened.Sub(at))
	}
	return nil
}

// files are those of a document, by chance of the seed alone.
func (w *world) files(i int, d documentPlan) (names []string, files map[string][]byte) {
	r := rand.New(rand.NewPCG(w.seed, uint64(i)<<16))
	files = map[string][]byte{}
	for k, size := range d.sizes {
		content := make([]byte, size)
		for at := 0; at < size; at += 8 {
			v := r.Uint64()
			for b := range min(8, size-at) {
				content[at+b] = byte(v >> (8 * b))
			}
		}
		name := fmt.Sprintf("%d-%d.pdf", i+1, k+1)
		names, files[name] = append(names, name), content
	}
	return slices.Clip(names), files
}
