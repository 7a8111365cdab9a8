package isolation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/history"
	"github.com/truclienthong/truc/test/mesh"
	"github.com/truclienthong/truc/tls"
)

// desk is an agency at one site, with books.
type desk struct {
	code   string
	site   int
	client *agency.Client
	// elsewhere is a second connector of it, at the next site, through which it
	// hands documents in a second time.
	elsewhere *agency.Client
	folder    string

	mu sync.Mutex
	// arrived is when its home had an envelope. One that comes again, because its
	// confirmation was lost, has arrived then too; else its home took it twice.
	arrived map[envelope.ID]time.Time
}

// office is all desks and what they did.
type office struct {
	t       *testing.T
	m       *mesh.Mesh
	history history.History
	desks   []*desk
	// away are desks that take nothing until the end, one at each site.
	away    []*desk
	ctx     context.Context
	running sync.WaitGroup
	again   sync.WaitGroup // second submissions

	mu       sync.Mutex // owns what follows
	number   int
	promises []promise
	broken   int
	taken    chan struct{} // closed and made anew at each arrival
}

// promise is a receipt.
type promise struct {
	relay  string
	copies uint32
	begun  time.Time
}

func newOffice(t *testing.T, m *mesh.Mesh, f *fabric, codes [][]string, away []string) *office {
	ctx, cancel := context.WithCancel(context.Background())
	o := &office{t: t, m: m, ctx: ctx, taken: make(chan struct{})}
	for site, all := range codes {
		for _, code := range all {
			o.desks = append(o.desks, o.open(f, code, site))
		}
		o.away = append(o.away, o.open(f, away[site], site))
	}
	t.Cleanup(func() {
		cancel()
		for _, d := range slices.Concat(o.desks, o.away) {
			_ = d.client.Close()
			_ = d.elsewhere.Close()
		}
		o.running.Wait()
	})
	for _, d := range o.desks {
		o.running.Go(func() { o.receive(d) })
	}
	return o
}

// open makes an agency that lives in a namespace of its site.
func (o *office) open(f *fabric, code string, site int) *desk {
	o.t.Helper()
	d := &desk{code: code, site: site, folder: filepath.Join(o.m.Layout.Dir, "folders", code), arrived: map[envelope.ID]time.Time{},
		client: o.connect(f, code, site), elsewhere: o.connect(f, code, (site+1)%len(f.relays))}
	if err := os.MkdirAll(d.folder, 0o755); err != nil {
		o.t.Fatal(err)
	}
	return d
}

// connect makes a client of an agency at a site. It is told of the relay there,
// and finds the others by itself.
func (o *office) connect(f *fabric, code string, site int) *agency.Client {
	o.t.Helper()
	config, err := agency.LoadProfile(o.m.Layout.Profile(code))
	if err != nil {
		o.t.Fatal(err)
	}
	endpoint, err := tls.New(tls.Config{CertificateFile: config.Certificate, KeyFile: config.Key, TrustFile: config.Trust})
	if err != nil {
		o.t.Fatal(err)
	}
	config.Agency, config.Relays = code, []string{f.relay(site)}
	config.Logger = slog.New(slog.DiscardHandler)
	config.Dial = func(expect func(tls.Identity) error) []grpc.DialOption {
		return []grpc.DialOption{
			grpc.WithTransportCredentials(endpoint.ClientCredentials(expect)),
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				return f.agencies[site].dial(ctx, address)
			}),
		}
	}
	client, err := agency.New(config)
	if err != nil {
		o.t.Fatal(err)
	}
	return client
}

// receive takes what comes into the books until the test ends.
func (o *office) receive(d *desk) {
	for arrival, err := range d.client.Receive(o.ctx, agency.ReceiveOptions{}) {
		if err == nil {
			err = o.take(d, arrival)
		}
		if err != nil && o.ctx.Err() == nil && !envelope.Temporary(err) {
			o.violation("%s: receiving failed: %v", d.code, err)
		}
	}
}

func (o *office) take(d *desk, arrival *agency.Arrival) error {
	d.mu.Lock()
	before, ok := d.arrived[arrival.ID]
	d.arrived[arrival.ID] = arrival.ArrivedAt
	d.mu.Unlock()
	if ok && !before.Equal(arrival.ArrivedAt) {
		o.violation("doubled: the home of %s took envelope %s at %s and again at %s", d.code, arrival.ID,
			before.Format(time.StampMilli), arrival.ArrivedAt.Format(time.StampMilli))
	}
	saved, err := arrival.Save(o.ctx, d.folder)
	if err != nil {
		arrival.Release()
		return err
	}
	if !saved.Repeat {
		files := map[string][]byte{}
		for _, file := range saved.Files {
			if files[file.Name], err = os.ReadFile(file.Path); err != nil {
				return err
			}
		}
		header := arrival.Envelope.GetHeader()
		o.history.Took(d.code, arrival.ID, header.GetSender().GetCode(), header.GetDocumentId(), history.SumOf(files), time.Now())
		o.mu.Lock()
		close(o.taken)
		o.taken = make(chan struct{})
		o.mu.Unlock()
	}
	if err := arrival.Confirm(o.ctx); err != nil {
		arrival.Release()
		return err
	}
	return nil
}

// submit hands a document in until there is a receipt.
func (o *office) submit(d *desk, r *rand.Rand, to ...string) (*agency.Receipt, error) {
	o.mu.Lock()
	o.number++
	number := o.number
	o.mu.Unlock()
	files := map[string][]byte{}
	for i := range 1 + r.IntN(2) {
		files[fmt.Sprintf("%d.pdf", i)] = sample.PDF(fmt.Sprint(number, i), 1000+r.IntN(12_000))
	}
	header := &exchangev1.Header{
		Kind: exchangev1.Kind_KIND_DOCUMENT, Sender: &exchangev1.Organization{Code: d.code},
		DocumentId: fmt.Sprintf("%s,2026/11/21,%d/CV", d.code, number),
		Document: &exchangev1.Document{Code: &exchangev1.Code{Number: fmt.Sprint(number), Notation: "CV"}, TypeName: "Công văn",
			Subject: fmt.Sprintf("Văn bản số %d", number)},
	}
	for _, code := range to {
		header.Recipients = append(header.Recipients, &exchangev1.Recipient{To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: code}}})
	}
	document := agency.Document{Header: header}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		document.Parts = append(document.Parts, agency.BytesSource(name, files[name]))
	}
	o.history.HandIn(history.Document{Sender: d.code, ID: header.GetDocumentId(), To: to, Sum: history.SumOf(files)})
	begun := time.Now()
	if r.IntN(6) == 0 { // as whoever lost the receipt, or never got it, would
		o.again.Go(func() {
			if _, err := o.hand(d.code, d.elsewhere, document, begun); err != nil && o.ctx.Err() == nil {
				o.violation("%s sends %s again: %v", d.code, header.GetDocumentId(), err)
			}
		})
	}
	return o.hand(d.code, d.client, document, begun)
}

// hand tries until there is a receipt; begun is when the document was first handed
// in.
func (o *office) hand(code string, client *agency.Client, document agency.Document, begun time.Time) (*agency.Receipt, error) {
	for {
		receipt, err := client.Submit(o.ctx, document)
		switch {
		case err == nil:
			o.history.Promised(code, document.Header.GetDocumentId(), receipt.ID, time.Now())
			o.mu.Lock()
			o.promises = append(o.promises, promise{receipt.Relay, receipt.Copies, begun})
			o.mu.Unlock()
			return receipt, nil
		case o.ctx.Err() != nil || !envelope.Temporary(err):
			return nil, err
		}
	}
}

// load has every desk send to others until the returned function is called, which
// waits for the last receipts.
func (o *office) load(seed uint64) (end func()) {
	stop := make(chan struct{})
	var sending sync.WaitGroup
	for i, d := range o.desks {
		for k := range 2 {
			r := rand.New(rand.NewPCG(seed, uint64(100+2*i+k)))
			sending.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(50+r.IntN(500)) * time.Millisecond):
					}
					var to []string
					for _, n := range r.Perm(len(o.desks))[:1+r.IntN(3)] {
						to = append(to, o.desks[n].code)
					}
					if _, err := o.submit(d, r, to...); err != nil && o.ctx.Err() == nil {
						o.violation("%s sends to %v: %v", d.code, to, err)
					}
				}
			})
		}
	}
	return sync.OnceFunc(func() {
		close(stop)
		sending.Wait()
		o.again.Wait()
	})
}

// comeBack has those that were away take what waits for them.
func (o *office) comeBack() {
	for _, d := range o.away {
		o.running.Go(func() { o.receive(d) })
	}
	o.desks, o.away = append(o.desks, o.away...), nil
}

func (o *office) isAway(code string) bool {
	return slices.ContainsFunc(o.away, func(d *desk) bool { return d.code == code })
}

// await waits until every delivery that was promised before a moment is made, but
// for those who are away.
func (o *office) await(promised time.Time) error {
	timeout := time.After(patience)
	for {
		o.mu.Lock()
		taken := o.taken
		o.mu.Unlock()
		lacks, _ := o.history.Missing()
		n := slices.IndexFunc(lacks, func(l history.Lack) bool { return !l.Promised.After(promised) && !o.isAway(l.Recipient) })
		if n < 0 {
			return nil
		}
		select {
		case <-taken:
		case <-timeout:
			return fmt.Errorf("%d deliveries still to come after %s, the first to %s\n%s", len(lacks), patience, lacks[n].Recipient, o.m.Trace(lacks[n].ID))
		}
	}
}

// delivers sends a document from one desk to another and waits until it is there.
func (o *office) delivers(r *rand.Rand, from, to *desk) error { return o.deliversBy(r, from, to, "") }

// deliversBy is delivers by another relay than one: a desk that an earlier fault
// had driven there finds back to its region within a minute, and sends another
// document then.
func (o *office) deliversBy(r *rand.Rand, from, to *desk, not string) error {
	timeout := time.After(patience)
	receipt, err := o.submit(from, r, to.code)
	for err == nil && receipt.Relay == not {
		select {
		case <-time.After(time.Second): // the pace of a sender, not a step
		case <-timeout:
			return fmt.Errorf("%s still sends by relay %s after %s", from.code, not, patience)
		}
		receipt, err = o.submit(from, r, to.code)
	}
	if err != nil {
		return fmt.Errorf("%s sends to %s: %w", from.code, to.code, err)
	}
	timeout = time.After(patience)
	for {
		o.mu.Lock()
		taken := o.taken
		o.mu.Unlock()
		lacks, _ := o.history.Missing()
		if !slices.ContainsFunc(lacks, func(l history.Lack) bool { return l.ID == receipt.ID }) {
			return nil
		}
		select {
		case <-taken:
		case <-timeout:
			return errors.New("from " + from.code + ", envelope " + receipt.ID.String() + " did not reach " + to.code + "\n" + o.m.Trace(receipt.ID))
		}
	}
}

func (o *office) violation(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	const most = 10
	if o.broken++; o.broken <= most {
		o.t.Errorf(format, args...)
	}
}
