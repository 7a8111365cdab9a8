package power

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// operators change the directory at the same time, each an agency of its own.
const operators = 3

// superior of the agencies that operators write.
const superior = "H26"

// entry is an agency in the directory, as it was answered last.
type entry struct {
	code, name, home string
	version          uint64
	answered         int
}

func (s *stand) operate() {
	s.entries = map[string]*entry{}
	for i := range operators {
		e := &entry{code: fmt.Sprintf("%s.9%d", superior, i)}
		s.entries[e.code] = e
		random := rand.New(rand.NewPCG(s.seed, streamOperators+uint64(i)))
		s.running.Go(func() {
			for s.ctx.Err() == nil {
				select {
				case <-s.ctx.Done():
					return
				case <-time.After(time.Duration(random.IntN(100)) * time.Millisecond):
				}
				s.pause.RLock()
				s.change(e, random)
				s.pause.RUnlock()
			}
		})
	}
}

// change writes an entry with one request id until it is answered. It is written
// over the version that was answered last: were that one lost, or this one done
// twice, it would be refused.
func (s *stand) change(e *entry, random *rand.Rand) {
	name, home := fmt.Sprintf("change %d", e.answered+1), s.relays[random.IntN(len(s.relays))]
	put := &directoryv1.PutAgency{Agency: &directoryv1.Agency{Code: e.code, Name: name, Tier: 3, ParentCode: superior, HomeRelayId: home},
		IfVersion: e.version, CreateOnly: e.version == 0}
	request := &adminv1.ChangeRequest{RequestId: make([]byte, 16),
		Command: &directoryv1.Command{Change: &directoryv1.Command_PutAgency{PutAgency: put}}}
	binary.LittleEndian.PutUint64(request.RequestId, random.Uint64())
	binary.LittleEndian.PutUint64(request.RequestId[8:], random.Uint64())
	var last error
	for begin := time.Now(); time.Since(begin) < patience && s.ctx.Err() == nil; {
		ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
		answer, err := s.m.Operator(s.relays[random.IntN(len(s.relays))]).Directory.Change(ctx, request)
		cancel()
		if err == nil {
			if reason := answer.GetResult().GetReason(); reason != 0 {
				s.t.Errorf("change %s of %s over version %d: %s %s", name, e.code, e.version, reason, answer.GetResult().GetMessage())
			}
			e.name, e.home, e.version, e.answered = name, home, answer.GetResult().GetVersion(), e.answered+1
			return
		}
		if last = err; !envelope.Temporary(err) {
			s.t.Errorf("change %s of %s: %v", name, e.code, err)
			return
		}
		<-time.After(50 * time.Millisecond) // paces an operator whose relay is away
	}
	if s.ctx.Err() == nil {
		s.t.Errorf("change %s of %s: not answered within %s: %v", name, e.code, patience, last)
	}
}

// compareDirectory asks every relay for what was answered; nobody writes.
func (s *stand) compareDirectory() {
	s.t.Helper()
	for _, id := range s.relays {
		found := map[string]*directoryv1.Agency{}
		s.m.Await("relay "+id+" shows the directory", func(ctx context.Context) error {
			page, err := s.m.Operator(id).Directory.ListAgencies(ctx, &adminv1.ListAgenciesRequest{
				Consistency: adminv1.Consistency_CONSISTENCY_LINEARIZABLE, Under: superior, PageSize: 1000})
			for _, a := range page.GetAgencies() {
				found[a.GetCode()] = a
			}
			return err
		})
		for _, e := range s.entries {
			a := found[e.code]
			if a.GetName() != e.name || a.GetVersion() != e.version || a.GetHomeRelayId() != e.home && e.answered > 0 {
				s.t.Errorf("relay %s has %s as %q, home %s, version %d; answered was %q, home %s, version %d",
					id, e.code, a.GetName(), a.GetHomeRelayId(), a.GetVersion(), e.name, e.home, e.version)
			}
		}
	}
	if s.t.Failed() {
		s.t.FailNow()
	}
}
