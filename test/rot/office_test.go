package rot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/history"
	"github.com/truclienthong/truc/test/mesh"
)

// parcel is a document that was handed in, at least in part.
type parcel struct {
	history.Document
	document agency.Document
	promised bool
}

// parcel makes a document of one or two files, and enters it into the history.
func (f *field) parcel(sender string, size int, to ...string) *parcel {
	slices.Sort(to)
	to = slices.Compact(to)
	files := mesh.Files{"công văn.pdf": f.noise(size)}
	if size > 1000 {
		files["phụ lục.xlsx"] = f.noise(size / 3)
	}
	document := f.m.Agency(sender).Document(files, to...)
	p := &parcel{document: document, Document: history.Document{
		Sender: sender, ID: document.Header.GetDocumentId(), To: to, Sum: history.SumOf(files),
	}}
	f.books.HandIn(p.Document)
	f.parcels = append(f.parcels, p)
	return p
}

func (f *field) noise(n int) []byte {
	b := make([]byte, n)
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(f.chance.Uint32())
	}
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

// client of an agency, that knows one relay to begin with.
func (f *field) client(code, relay string, patience time.Duration) (*agency.Client, error) {
	config, err := agency.LoadProfile(f.m.Layout.Profile(code))
	if err != nil {
		return nil, err
	}
	config.Logger, config.Relays, config.Patience = slog.New(slog.DiscardHandler), []string{f.m.Address(relay)}, patience
	return agency.New(config)
}

// enough is on how many relays a document is before its sender lets it go.
const enough = 2

// hand hands a parcel in at a relay. Its sender keeps it where that fails, or
// where no second relay has it: as a connector does.
func (f *field) hand(ctx context.Context, p *parcel, relay string, patience time.Duration) error {
	client, err := f.client(p.Sender, relay, patience)
	if err != nil {
		return err
	}
	defer client.Close()
	receipt, err := client.Submit(ctx, p.document)
	if err != nil {
		return fmt.Errorf("%s hands in %s at %s: %w", p.Sender, p.ID, relay, err)
	}
	if receipt.Copies < enough && !f.confirmed(ctx, client, receipt.ID) {
		return fmt.Errorf("%s handed in %s at %s: it has %d copies", p.Sender, p.ID, relay, receipt.Copies)
	}
	f.books.Promised(p.Sender, p.ID, receipt.ID, time.Now())
	p.promised = true
	return nil
}

// handAll hands parcels in beside one another, each at its relay.
func (f *field) handAll(at map[*parcel]string) {
	var all sync.WaitGroup
	for p, relay := range at {
		all.Go(func() {
			if err := f.hand(f.ctx, p, relay, 10*time.Second); err != nil {
				f.note("kept by its sender: %v", err)
			}
		})
	}
	all.Wait()
}

// confirmed says that nobody waits for the document any more.
func (f *field) confirmed(ctx context.Context, client *agency.Client, id envelope.ID) bool {
	track, err := client.Track(ctx, id)
	return err == nil && !slices.ContainsFunc(track.GetDeliveries(), func(d *exchangev1.Delivery) bool {
		return d.GetTransport() != exchangev1.TransportStatus_TRANSPORT_STATUS_DONE
	})
}

// handInAgain does what outboxes do.
func (f *field) handInAgain(context.Context) error {
	ctx, cancel := context.WithTimeout(f.ctx, 20*time.Second)
	defer cancel()
	var all sync.WaitGroup
	failed := make([]error, len(f.parcels))
	for i, p := range f.parcels {
		if !p.promised {
			at := f.relays[f.chance.IntN(len(f.relays))]
			all.Go(func() { failed[i] = f.hand(ctx, p, at, 10*time.Second) })
		}
	}
	all.Wait()
	return errors.Join(failed...)
}

// handHalf hands in a parcel, and gives up in the middle.
func (f *field) handHalf(p *parcel, relay string) {
	ctx, cancel := context.WithTimeout(f.ctx, 10*time.Second)
	defer cancel()
	client, err := f.client(p.Sender, relay, 5*time.Second)
	if err != nil {
		f.t.Error(err)
		return
	}
	defer client.Close()
	half := p.document
	half.Progress = func(done agency.Progress) {
		if done.Sending && done.Done > done.Total/2 {
			cancel()
		}
	}
	_, _ = client.Submit(ctx, half)
}

// receive has an agency save and confirm what arrives, until stop is called. It
// looks into its inbox again and again: what could not be had comes again then,
// and holds up nothing else meanwhile.
func (f *field) receive(code string) (stop func()) {
	ctx, cancel := context.WithCancel(f.ctx)
	folder := filepath.Join(f.m.Layout.Dir, "folders", code)
	client, err := f.client(code, f.home(code), 2*time.Second)
	f.check("client of "+code, err)
	var running sync.WaitGroup
	running.Go(func() {
		defer client.Close()
		for ctx.Err() == nil {
			var taking sync.WaitGroup
			for arrival, err := range client.Receive(ctx, agency.ReceiveOptions{Drain: true}) {
				if err == nil {
					taking.Go(func() { f.told(code, f.take(ctx, code, folder, arrival)) })
				}
				f.told(code, err)
			}
			taking.Wait()
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	return func() { cancel(); running.Wait() }
}

// told notes what kept an agency from receiving.
func (f *field) told(code string, err error) {
	if err != nil && f.ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		f.note("%s receives: %.300v", code, err)
	}
}

// home relay of an agency.
func (f *field) home(code string) string {
	for relay, codes := range f.homes {
		if slices.Contains(codes, code) {
			return relay
		}
	}
	panic("no home of " + code)
}

// take saves one arrival, writes down what is in the folder, and confirms it.
func (f *field) take(ctx context.Context, code, folder string, arrival *agency.Arrival) error {
	saved, err := arrival.Save(ctx, folder)
	if err != nil {
		arrival.Release()
		return fmt.Errorf("save %s: %w", arrival.ID, err)
	}
	if !saved.Repeat {
		files := mesh.Files{}
		for _, file := range saved.Files {
			if files[file.Name], err = os.ReadFile(file.Path); err != nil {
				return err
			}
		}
		header := arrival.Envelope.GetHeader()
		f.books.Took(code, arrival.ID, header.GetSender().GetCode(), header.GetDocumentId(), history.SumOf(files), time.Now())
	}
	if err := arrival.Confirm(ctx); err != nil {
		arrival.Release()
		return fmt.Errorf("confirm %s: %w", arrival.ID, err)
	}
	return nil
}

// agencies of the mesh by their home: the first of each receives all the time,
// the others only when a group ends.
func agencies(relays []string) (byHome map[string][]string, csv []byte) {
	byHome = map[string][]string{}
	rows := "code,name,tier,parent_code,home,standby\n"
	number := 10
	for i, relay := range relays {
		for range 3 {
			code := fmt.Sprintf("H%d", number)
			rows += fmt.Sprintf("%s,Ủy ban nhân dân tỉnh số %d,2,,%s,%s\n", code, number, relay, relays[(i+1)%len(relays)])
			byHome[relay] = append(byHome[relay], code)
			number++
		}
	}
	return byHome, []byte(rows)
}

func allOf(byHome map[string][]string) []string {
	return slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Values(byHome))...)))
}
