package ingress_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ingress"
)

// fakeSubmit is a Submit stream without a network, for tests of time.
type fakeSubmit struct {
	grpc.ServerStream
	ctx context.Context
	in  chan *exchangev1.SubmitRequest
	out chan *exchangev1.SubmitResponse
	// gone ends what reads, as the end of a call does.
	gone chan struct{}
}

func (f *fakeSubmit) Context() context.Context { return f.ctx }

func (f *fakeSubmit) Send(r *exchangev1.SubmitResponse) error {
	f.out <- r
	return nil
}

func (f *fakeSubmit) Recv() (*exchangev1.SubmitRequest, error) {
	select {
	case message, ok := <-f.in:
		if !ok {
			return nil, io.EOF
		}
		return proto.CloneOf(message), nil
	case <-f.ctx.Done():
		return nil, f.ctx.Err()
	case <-f.gone:
		return nil, io.EOF
	}
}

// submitting is a submit under way in a bubble.
type submitting struct {
	*fakeSubmit
	began time.Time
	ended chan error
}

// begin opens a submit at bac and sends the messages.
func (m *mesh) begin(ctx context.Context, messages ...*exchangev1.SubmitRequest) *submitting {
	ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(identityKey, "spiffe://truc.test/agency/"+
		messages[0].GetStart().GetHeader().GetSender().GetCode()))
	s := &submitting{began: time.Now(), ended: make(chan error, 1), fakeSubmit: &fakeSubmit{
		ctx: ctx, in: make(chan *exchangev1.SubmitRequest, 100), out: make(chan *exchangev1.SubmitResponse, 100), gone: make(chan struct{})}}
	for _, message := range messages {
		s.in <- message
	}
	go func() {
		defer close(s.gone)
		s.ended <- m.relays["bac"].service.Submit(s)
	}()
	return s
}

// small is a document without files, so that start and commit are all of it.
func small(id string, to ...string) []*exchangev1.SubmitRequest {
	return []*exchangev1.SubmitRequest{startOf(document("G22", id, nil, to...)), commit()}
}

// answer waits for the receipt, and tells how long it took; nil while there is
// none.
func (s *submitting) answer(t *testing.T) (*exchangev1.SubmitAccepted, time.Duration) {
	t.Helper()
	if err := <-s.ended; err != nil {
		t.Fatal(err)
	}
	took := time.Since(s.began)
	for {
		if accepted := (<-s.out).GetAccepted(); accepted != nil {
			return accepted, took
		}
	}
}

func (s *submitting) pending(t *testing.T) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-s.ended:
		t.Fatalf("answered after %s (%v), want it to wait", time.Since(s.began), err)
	default:
	}
}

// usable is the relays that can be used, with their round trips.
type usable map[routingRelay]time.Duration

func (u usable) ask(relay routingRelay) (time.Duration, bool) {
	trip, ok := u[relay]
	return trip, ok
}

// links are what a test changes of them.
type links struct {
	mu     sync.Mutex
	usable usable
}

func (l *links) ask(relay routingRelay) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.usable.ask(relay)
}

func (l *links) set(now usable) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.usable = now
}

func idOf(t *testing.T, messages []*exchangev1.SubmitRequest) envelope.ID {
	t.Helper()
	id, _, err := envelope.HeaderID(messages[0].GetStart().GetHeader())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Promise 2: while a second relay can be reached, the receipt comes when it has
// the envelope; it does not come before, and it does not wait for ever.
func TestReceiptWaitsForTheSecondCopy(t *testing.T) {
	document := small("1", "H26")
	for _, test := range []struct {
		name  string
		links usable
		do    func(t *testing.T, m *mesh, s *submitting, l *links, end context.CancelFunc)
		took  time.Duration
		want  uint32
	}{
		{"copied after a while", usable{"nam": 1}, func(t *testing.T, m *mesh, s *submitting, _ *links, _ context.CancelFunc) {
			time.Sleep(4 * time.Second)
			s.pending(t)
			m.relays["bac"].spool.copied(idOf(t, document), "nam")
		}, 4 * time.Second, 2},
		{"never copied", usable{"nam": 1}, nil, 5 * time.Second, 1},
		{"no relay can be used", usable{}, nil, 500 * time.Millisecond, 1},
		{"one can be used a moment later", usable{}, func(t *testing.T, m *mesh, s *submitting, l *links, _ context.CancelFunc) {
			time.Sleep(400 * time.Millisecond)
			l.set(usable{"nam": 1})
			time.Sleep(time.Second)
			s.pending(t)
			m.relays["bac"].spool.copied(idOf(t, document), "nam")
		}, 1400 * time.Millisecond, 2},
		{"the only neighbour dies meanwhile", usable{"nam": 1}, func(_ *testing.T, _ *mesh, _ *submitting, l *links, _ context.CancelFunc) {
			time.Sleep(1100 * time.Millisecond)
			l.set(nil)
		}, 1500 * time.Millisecond, 1},
		{"the relay stops", usable{"nam": 1}, func(t *testing.T, m *mesh, s *submitting, _ *links, end context.CancelFunc) {
			time.Sleep(time.Second)
			s.pending(t)
			end()
		}, time.Second, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ending, end := context.WithCancel(t.Context())
				l := &links{usable: test.links}
				m := newMeshWithoutNetwork(t, func(c *ingress.Config) {
					c.Usable, c.CopyWait, c.Ending = l.ask, 0, ending.Done()
				})
				s := m.begin(t.Context(), document...)
				if test.do != nil {
					test.do(t, m, s, l, end)
				}
				accepted, took := s.answer(t)
				if took != test.took || accepted.GetReceipt().GetCopies() != test.want {
					t.Errorf("after %s with %d copies, want %s and %d", took, accepted.GetReceipt().GetCopies(), test.took, test.want)
				}
				end()
			})
		})
	}
}

// A call that ends does not wait on.
func TestWaitForTheCopyEndsWithTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeshWithoutNetwork(t, func(c *ingress.Config) { c.Usable, c.CopyWait = usable{"nam": 1}.ask, 0 })
		ctx, cancel := context.WithCancel(t.Context())
		s := m.begin(ctx, small("1", "H26")...)
		time.Sleep(time.Second)
		s.pending(t)
		cancel()
		<-s.ended
		if took := time.Since(s.began); took != time.Second {
			t.Errorf("ended after %s, want it to end with the call", took)
		}
	})
}

// In a mesh of one there is nothing to wait for.
func TestAloneInTheMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeshWithoutNetwork(t, func(c *ingress.Config) { c.CopyWait = 0 })
		m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: "nam", Lost: true}}})
		if _, took := m.begin(t.Context(), small("1", "H26")...).answer(t); took != 0 {
			t.Errorf("waited %s", took)
		}
	})
}

// A relay that was given up as lost has nobody who takes copies from it.
func TestLostRelayWaitsForNoCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeshWithoutNetwork(t, func(c *ingress.Config) { c.Usable, c.CopyWait = usable{"nam": 1}.ask, 0 })
		document := small("1", "H26")
		m.begin(t.Context(), document...).answer(t)
		m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: "bac", Lost: true}}})
		if repeat, took := m.begin(t.Context(), document...).answer(t); took != 0 || !repeat.GetRepeat() {
			t.Errorf("after %s: %v, want the receipt at once", took, repeat)
		}
	})
}

// A repeat waits as the first time did, while the envelope matters.
func TestRepeatWaitsForTheSecondCopyToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeshWithoutNetwork(t, func(c *ingress.Config) { c.Usable, c.CopyWait = usable{"nam": 1}.ask, 0 })
		document := small("1", "H26")
		first, _ := m.begin(t.Context(), document...).answer(t)
		again := m.begin(t.Context(), document...)
		time.Sleep(time.Second)
		again.pending(t)
		m.relays["bac"].spool.copied(idOf(t, document), "nam")
		repeat, took := again.answer(t)
		if !repeat.GetRepeat() || took != time.Second || repeat.GetReceipt().GetCopies() != 2 {
			t.Errorf("after %s: got %v, want the repeat with two copies after 1s", took, repeat)
		}
		if !repeat.GetReceipt().GetAcceptedAt().AsTime().Equal(first.GetReceipt().GetAcceptedAt().AsTime()) {
			t.Error("it is not the original receipt")
		}

		settled := small("2", "H26")
		m.begin(t.Context(), settled...).answer(t)
		m.relays["bac"].spool.end(idOf(t, settled))
		if repeat, took := m.begin(t.Context(), settled...).answer(t); took != 0 || repeat.GetReceipt().GetCopies() != 1 {
			t.Errorf("all confirmed: after %s, %v; want it at once", took, repeat)
		}
	})
}

// The duty of a second copy is given where no other duty makes one.
func TestDutyOfTheSecondCopy(t *testing.T) {
	bare := func(relay routingRelay) envelope.Onward { return envelope.Onward{Relay: relay} }
	toNam := envelope.Onward{Relay: "nam", Agencies: []routingCode{"H29"}}
	for _, test := range []struct {
		name  string
		links usable
		to    []string
		want  []envelope.Onward
	}{
		{"all at home here", usable{"nam": 2, "trung": 1}, []string{"H26"}, []envelope.Onward{bare("trung")}},
		{"the standby of a recipient first", usable{"nam": 2, "trung": 1}, []string{"G99"}, []envelope.Onward{bare("nam")}},
		{"no relay can be used", usable{}, []string{"H26"}, nil},
		{"the destination makes one", usable{"nam": 2, "trung": 1}, []string{"H26", "H29"}, []envelope.Onward{toNam}},
		{"the destination cannot be used", usable{"trung": 1}, []string{"H29"}, []envelope.Onward{toNam, bare("trung")}},
		{"nor any other", usable{}, []string{"H29"}, []envelope.Onward{toNam}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMeshWithoutNetwork(t, func(c *ingress.Config) { c.Usable = test.links.ask })
				m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
					Relay: &directoryv1.Relay{Id: "trung", Region: "trung", Address: "trung:7400"}}}})
				for _, code := range []string{"H26", "G99"} {
					standby := map[string]string{"H26": "trung", "G99": "nam"}[code]
					m.change(&directoryv1.Command{Change: &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{
						Agency: &directoryv1.Agency{Code: code, Name: code, Tier: 1, HomeRelayId: "bac", StandbyRelayId: standby}}}})
				}
				document := small("1", test.to...)
				m.begin(t.Context(), document...).answer(t)
				if diff := cmp.Diff(test.want, m.relays["bac"].spool.custody(idOf(t, document)).Onward); diff != "" {
					t.Errorf("duties (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// While receipts wait, their callers have all their memory for other submits.
func TestWaitHoldsNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeshWithoutNetwork(t, func(c *ingress.Config) {
			c.Usable, c.CopyWait, c.Limits.RoomPerCaller = usable{"nam": 1}.ask, 0, 8000
		})
		content := strings.Repeat("x", 5000)
		var waiting []*submitting
		for _, id := range []string{"1", "2", "3"} {
			waiting = append(waiting, m.begin(t.Context(), startOf(document("G22", id, []string{content}, "H26")), chunk(0, 0, content), commit()))
			waiting[len(waiting)-1].pending(t)
		}
		for _, s := range waiting {
			s.answer(t)
		}
	})
}
