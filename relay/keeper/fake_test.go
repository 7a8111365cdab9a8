package keeper_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/keeper"
	"github.com/truclienthong/truc/routing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	done = exchangev1.TransportStatus_TRANSPORT_STATUS_DONE
	fail = exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL

	expired = exchangev1.ErrorReason_ERROR_REASON_EXPIRED
)

// memory is a spool that keeps nothing. It does to records what the spool does.
type memory struct {
	self    routing.RelayID
	mu      sync.Mutex
	records map[envelope.ID]*envelope.Record
	order   []envelope.ID
	reports []*envelope.Custody
	copied  []envelope.Copy
	added   chan struct{}
	// fails is asked before each fact, by its name.
	fails func(fact string, id envelope.ID) error
	// onRead is told of each record read.
	onRead func()
}

var _ keeper.Spool = (*memory)(nil)

func newMemory(self routing.RelayID) *memory {
	return &memory{self: self, records: make(map[envelope.ID]*envelope.Record), added: make(chan struct{})}
}

func idOf(n int) envelope.ID {
	return envelope.ComputeID("H26", fmt.Sprint(n), []byte("header"))
}

// put adds an envelope; deliveries with a home and a place say the rest.
func (m *memory) put(n int, edit func(*envelope.Record)) envelope.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := idOf(n)
	now := time.Now()
	r := &envelope.Record{
		Custody: envelope.Custody{
			ID: id, Sender: "H26", DocumentID: fmt.Sprint(n), Ingress: m.self, FromSender: true,
			AcceptedAt: now, ExpiresAt: now.Add(30 * 24 * time.Hour),
		},
		CommittedAt: now,
	}
	edit(r)
	if !r.FromSender && r.Ingress == m.self {
		panic("whose envelope is it?")
	}
	for i := range r.Deliveries {
		if r.Deliveries[i].UpdatedAt.IsZero() {
			r.Deliveries[i].UpdatedAt = r.AcceptedAt
		}
	}
	m.records[id] = r
	m.order = append(m.order, id)
	close(m.added)
	m.added = make(chan struct{})
	return id
}

func at(code routing.AgencyCode, place envelope.Place, home routing.RelayID) envelope.Delivery {
	return envelope.Delivery{Agency: code, Place: place, Home: home}
}

// settled reports whether nobody waits for anything any more.
func settled(r *envelope.Record) bool {
	return !slices.ContainsFunc(r.Deliveries, func(d envelope.Delivery) bool { return d.Place != envelope.Settled })
}

func (m *memory) Record(id envelope.ID) (*envelope.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.onRead != nil {
		m.onRead()
	}
	r, ok := m.records[id]
	if !ok {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, "not known")
	}
	out := *r
	out.Deliveries, out.Holders = slices.Clone(r.Deliveries), slices.Clone(r.Holders)
	out.Onward = nil
	for _, o := range r.Onward {
		if len(o.Agencies) == 0 {
			out.Onward = append(out.Onward, o)
		}
	}
	for _, d := range r.Deliveries {
		switch d.Place {
		case envelope.InInbox:
			out.Inboxes = append(out.Inboxes, d.Agency)
		case envelope.InQueue:
			out.Onward = append(out.Onward, envelope.Onward{Relay: d.Home, Agencies: []routing.AgencyCode{d.Agency}})
		}
	}
	return &out, nil
}

func (m *memory) list(after envelope.ID, max int, wanted func(*envelope.Record) bool) (ids []envelope.ID, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, r := range m.records {
		if slices.Compare(id[:], after[:]) > 0 && !settled(r) && wanted(r) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b envelope.ID) int { return slices.Compare(a[:], b[:]) })
	return ids[:min(len(ids), max)], nil
}

func (m *memory) relays(each func(*envelope.Record) []routing.RelayID) ([]routing.RelayID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[routing.RelayID]bool)
	for _, r := range m.records {
		if !settled(r) {
			for _, relay := range each(r) {
				all[relay] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all)), nil
}

func (m *memory) Sole(after uint64, max int) (out []envelope.SoleEntry, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, id := range m.order {
		r := m.records[id]
		if seq := uint64(i + 1); seq > after && r.FromSender && !settled(r) && len(r.Holders) == 0 && len(out) < max {
			out = append(out, envelope.SoleEntry{ID: id, Sequence: seq, Since: r.AcceptedAt, Size: r.Size()})
		}
	}
	return out, nil
}

func (m *memory) SoleChanged() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.added
}

func (m *memory) Holders() ([]routing.RelayID, error) {
	return m.relays(func(r *envelope.Record) []routing.RelayID {
		if r.FromSender {
			return r.Holders
		}
		return nil
	})
}

func (m *memory) Away(holder routing.RelayID, after envelope.ID, max int) ([]envelope.ID, error) {
	return m.list(after, max, func(r *envelope.Record) bool { return r.FromSender && slices.Contains(r.Holders, holder) })
}

func (m *memory) Origins() ([]routing.RelayID, error) {
	return m.relays(func(r *envelope.Record) []routing.RelayID {
		if r.FromSender {
			return nil
		}
		return []routing.RelayID{r.Ingress}
	})
}

func (m *memory) Origin(ingress routing.RelayID, after envelope.ID, max int) ([]envelope.ID, error) {
	return m.list(after, max, func(r *envelope.Record) bool { return !r.FromSender && r.Ingress == ingress })
}

func (m *memory) Expired(before time.Time, after envelope.Due, max int) (out []envelope.Due, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	compare := func(a, b envelope.Due) int {
		return cmp.Or(a.At.Compare(b.At), slices.Compare(a.ID[:], b.ID[:]))
	}
	for id, r := range m.records {
		due := envelope.Due{At: r.ExpiresAt, ID: id}
		if (!settled(r) || len(r.Onward) > 0) && !r.ExpiresAt.After(before) && compare(due, after) > 0 {
			out = append(out, due)
		}
	}
	slices.SortFunc(out, compare)
	return out[:min(len(out), max)], nil
}

// fact finds what a fact is about; nil: nothing.
func (m *memory) fact(name string, id envelope.ID) (*envelope.Record, error) {
	if m.fails != nil {
		if err := m.fails(name, id); err != nil {
			return nil, err
		}
	}
	return m.records[id], nil
}

func (m *memory) Settle(_ context.Context, batch []envelope.Settlement) (n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range batch {
		r, err := m.fact("settle", s.ID)
		if err != nil {
			return n, err
		}
		for i := range r.Deliveries {
			if d := &r.Deliveries[i]; d.Agency == s.Agency && d.Place != envelope.Settled {
				d.Place, d.Transport, d.Reason, d.Note, d.UpdatedAt = envelope.Settled, s.Transport, s.Reason, s.Note, s.At
				n++
				if s.Report != nil {
					m.reports = append(m.reports, s.Report)
				}
			}
		}
	}
	return n, nil
}

func (m *memory) Reroute(_ context.Context, f envelope.Reroute) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.fact("reroute", f.ID)
	if err != nil {
		return err
	}
	move := func(codes []routing.AgencyCode, place envelope.Place, home routing.RelayID) {
		for i := range r.Deliveries {
			d := &r.Deliveries[i]
			if slices.Contains(codes, d.Agency) && slices.Contains(f.Agencies, d.Agency) && d.Home == f.From && d.Place != envelope.Settled {
				d.Place, d.Home, d.UpdatedAt = place, home, f.At
			}
		}
	}
	for _, o := range f.Elsewhere {
		move(o.Agencies, envelope.Elsewhere, o.Relay)
		if !slices.Contains(r.Holders, o.Relay) {
			r.Holders = append(r.Holders, o.Relay)
		}
	}
	for _, o := range f.Onward {
		move(o.Agencies, envelope.InQueue, o.Relay)
	}
	move(f.Inboxes, envelope.InInbox, m.self)
	return nil
}

func (m *memory) Copy(_ context.Context, f envelope.Copy) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.fact("copy", f.ID)
	if err != nil {
		return err
	}
	m.copied = append(m.copied, f)
	r.Onward = slices.DeleteFunc(r.Onward, func(o envelope.Onward) bool {
		return len(o.Agencies) == 0 && slices.Contains(f.Instead, o.Relay)
	})
	r.Onward = append(r.Onward, envelope.Onward{Relay: f.Relay})
	return nil
}

func (m *memory) TakeOver(_ context.Context, f envelope.TakeOver) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.fact("take over", f.ID)
	if err != nil {
		return err
	}
	r.FromSender, r.Ingress = true, m.self
	close(m.added)
	m.added = make(chan struct{})
	for i := range r.Deliveries {
		d := &r.Deliveries[i]
		if d.Place != envelope.Kept {
			continue
		}
		if slices.Contains(f.Inboxes, d.Agency) {
			d.Place, d.Home = envelope.InInbox, m.self
		}
		for _, o := range f.Onward {
			if slices.Contains(o.Agencies, d.Agency) {
				d.Place, d.Home = envelope.InQueue, o.Relay
			}
		}
	}
	return nil
}

func (m *memory) Forget(_ context.Context, id envelope.ID, holder routing.RelayID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.fact("forget", id)
	if err != nil {
		return err
	}
	r.Holders = slices.DeleteFunc(r.Holders, func(h routing.RelayID) bool { return h == holder })
	return nil
}

func (m *memory) HandOn(_ context.Context, f envelope.HandedOn) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.fact("hand on", f.ID)
	if err != nil {
		return err
	}
	r.Onward = slices.DeleteFunc(r.Onward, func(o envelope.Onward) bool {
		return len(o.Agencies) == 0 && len(f.Agencies) == 0 && o.Relay == f.Destination
	})
	for i := range r.Deliveries {
		if d := &r.Deliveries[i]; slices.Contains(f.Agencies, d.Agency) && d.Home == f.Destination {
			d.Place, d.UpdatedAt = envelope.Elsewhere, f.At
		}
	}
	if f.Peer != m.self && !slices.Contains(r.Holders, f.Peer) {
		r.Holders = append(r.Holders, f.Peer)
	}
	return nil
}

// edit changes the spool while the keeper runs.
func (m *memory) edit(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// copies returns what was asked to be copied.
func (m *memory) copies() []envelope.Copy {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.copied)
}

// others are the relays that can be asked.
type others struct {
	mu sync.Mutex
	// knows is what each relay says; nil: it is silent.
	knows map[routing.RelayID]map[envelope.ID]*relayv1.ReconcileAnswer
	calls map[routing.RelayID]int
	asked map[routing.RelayID]int // envelopes
	// spoils changes an answer.
	spoils func(*relayv1.ReconcileResponse)
}

var errDown = errors.New("connection refused")

func newOthers() *others {
	return &others{
		knows: make(map[routing.RelayID]map[envelope.ID]*relayv1.ReconcileAnswer),
		calls: make(map[routing.RelayID]int), asked: make(map[routing.RelayID]int),
	}
}

func (o *others) Peer(relay routing.RelayID) (relayv1.PeerServiceClient, error) {
	return peer{others: o, relay: relay}, nil
}

type peer struct {
	relayv1.PeerServiceClient
	others *others
	relay  routing.RelayID
}

func (p peer) Reconcile(_ context.Context, req *relayv1.ReconcileRequest, _ ...grpc.CallOption) (*relayv1.ReconcileResponse, error) {
	o := p.others
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls[p.relay]++
	o.asked[p.relay] += len(req.GetItems())
	knows, up := o.knows[p.relay]
	if !up {
		return nil, errDown
	}
	if len(req.GetItems()) == 0 || len(req.GetItems()) > 1000 {
		return nil, fmt.Errorf("%d items", len(req.GetItems()))
	}
	response := new(relayv1.ReconcileResponse)
	for _, item := range req.GetItems() {
		answer := &relayv1.ReconcileAnswer{EnvelopeId: item.GetEnvelopeId()}
		said := knows[envelope.ID(item.GetEnvelopeId())]
		if said != nil {
			answer = proto.CloneOf(said)
			answer.EnvelopeId, answer.Known, answer.Standings = item.GetEnvelopeId(), true, nil
		}
		for _, code := range item.GetAgencyCodes() {
			standing := &relayv1.Standing{AgencyCode: code}
			for _, s := range said.GetStandings() {
				if s.GetAgencyCode() == code {
					standing = s
				}
			}
			answer.Standings = append(answer.Standings, standing)
		}
		response.Answers = append(response.Answers, answer)
	}
	if o.spoils != nil {
		o.spoils(response)
	}
	return response, nil
}

// up has a relay answer, with what it knows of one envelope, if anything.
func (o *others) up(relay routing.RelayID, id envelope.ID, answer *relayv1.ReconcileAnswer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.knows[relay] == nil {
		o.knows[relay] = make(map[envelope.ID]*relayv1.ReconcileAnswer)
	}
	if answer != nil {
		o.knows[relay][id] = answer
	}
}

func (o *others) count(relay routing.RelayID) (calls, asked int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.calls[relay], o.asked[relay]
}

// says is an answer of a relay that has the content.
func says(standings ...*relayv1.Standing) *relayv1.ReconcileAnswer {
	return &relayv1.ReconcileAnswer{HoldsContent: true, Standings: standings}
}

// without is the answer of one that has the record only.
func without(standings ...*relayv1.Standing) *relayv1.ReconcileAnswer {
	return &relayv1.ReconcileAnswer{Standings: standings}
}

func stands(code string, place relayv1.Place) *relayv1.Standing {
	return &relayv1.Standing{AgencyCode: code, Place: place, Delivery: &exchangev1.Delivery{AgencyCode: code}}
}

var endedAt = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func ended(code string, transport exchangev1.TransportStatus, reason exchangev1.ErrorReason) *relayv1.Standing {
	s := stands(code, relayv1.Place_PLACE_SETTLED)
	s.Delivery.Transport, s.Delivery.Reason, s.Delivery.UpdatedAt = transport, reason, timestamppb.New(endedAt)
	return s
}

// world is one relay, "bac", among others.
type world struct {
	t *testing.T
	*memory
	directory *routing.Directory
	others    *others
	mu        sync.Mutex
	down      map[routing.RelayID]bool
	keeper    *keeper.Keeper
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, memory: newMemory("bac"), directory: routing.NewDirectory(), others: newOthers(), down: make(map[routing.RelayID]bool)}
	for _, relay := range []string{"bac", "nam", "tay", "trung"} {
		w.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
			Relay: &directoryv1.Relay{Id: relay, Region: relay, Address: relay + ":7400"}}}})
	}
	w.agency("H26", "bac", "trung")
	w.agency("H29", "nam", "trung")
	w.agency("H43", "nam", "trung")
	w.agency("G22", "trung", "tay")
	var err error
	w.keeper, err = keeper.New(keeper.Config{
		Self: "bac", Spool: w.memory, Directory: w.directory, Peers: w.others,
		Usable: func(relay routing.RelayID) (time.Duration, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return time.Duration(len(relay)) * time.Millisecond, !w.down[relay]
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// run starts the keeper, to be stopped by the returned function.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.keeper.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("run: %v", err)
		}
	}
}

func (w *world) change(c *directoryv1.Command) {
	w.t.Helper()
	c.Version, c.Actor, c.At = routing.CommandVersion, "operator", timestamppb.Now()
	command, err := proto.Marshal(c)
	if err != nil {
		w.t.Fatal(err)
	}
	answer, err := w.directory.Apply(command)
	result := new(directoryv1.CommandResult)
	if err == nil {
		err = proto.Unmarshal(answer, result)
	}
	if err != nil || result.GetReason() != 0 {
		w.t.Fatalf("change %v: %v %v", c, err, result)
	}
}

func (w *world) agency(code, home, standby string) {
	w.t.Helper()
	w.change(&directoryv1.Command{Change: &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{
		Agency: &directoryv1.Agency{Code: code, Name: code, Tier: 1, HomeRelayId: home, StandbyRelayId: standby}}}})
}

func (w *world) drain(relay string) {
	w.t.Helper()
	w.change(&directoryv1.Command{Change: &directoryv1.Command_SetRelayState{SetRelayState: &directoryv1.SetRelayState{
		RelayId: relay, State: directoryv1.RelayState_RELAY_STATE_DRAINING}}})
}

// lose gives a relay up as lost; its agencies go to their standbys.
func (w *world) lose(relay string) {
	w.t.Helper()
	w.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: relay, Lost: true}}})
}

func (w *world) setDown(relay routing.RelayID, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[relay] = down
}

// want compares what is known of one delivery.
func (w *world) want(id envelope.ID, code routing.AgencyCode, place envelope.Place, home routing.RelayID) {
	w.t.Helper()
	r, err := w.Record(id)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, d := range r.Deliveries {
		if d.Agency == code {
			if d.Place != place || d.Home != home {
				w.t.Errorf("%s: got place %d at %s, want %d at %s", code, d.Place, d.Home, place, home)
			}
			return
		}
	}
	w.t.Errorf("%s is not known", code)
}

func (w *world) wantHolders(id envelope.ID, want ...routing.RelayID) {
	w.t.Helper()
	r, err := w.Record(id)
	if err != nil {
		w.t.Fatal(err)
	}
	if !slices.Equal(r.Holders, want) {
		w.t.Errorf("holders: got %v, want %v", r.Holders, want)
	}
}
