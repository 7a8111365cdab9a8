package power

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/truclienthong/truc/cmd/relayd/dev"
	"github.com/truclienthong/truc/cmd/relayd/node"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/test/faults/disk"
	"github.com/truclienthong/truc/test/history"
	"github.com/truclienthong/truc/test/mesh"
	"github.com/truclienthong/truc/test/torture/tally"
)

// patience bounds every wait; nothing waits for it when all is well.
const patience = 100 * time.Second

// Streams of chance, so that one more sender does not change the faults.
const (
	streamFaults     = 1
	streamOperators  = 100
	streamSenders    = 200
	streamRecipients = 300
)

// stand is a mesh on disks that forget, under load.
type stand struct {
	t       *testing.T
	m       *mesh.Mesh
	seed    uint64
	random  *rand.Rand // of the faults
	relays  []string
	disks   map[string]*disk.Disk
	history history.History
	entries map[string]*entry

	ctx     context.Context
	running sync.WaitGroup
	// pause is held for reading by whoever hands something in, until it has the
	// answer; holding it for writing is quiet.
	pause sync.RWMutex
}

// open starts a mesh on disks of a kind, and the load.
func open(t *testing.T, seed uint64, config disk.Config) *stand {
	s := &stand{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, streamFaults)), disks: map[string]*disk.Disk{}}
	for i, r := range dev.Relays {
		config.Seed = seed + uint64(i)
		s.relays = append(s.relays, r.ID)
		s.disks[r.ID] = disk.Open(t, config)
	}
	s.m = mesh.Start(t, mesh.Config{Processes: true, Adjust: func(id string, c *node.Config) {
		c.Data = filepath.Join(s.disks[id].Dir(), "data")
	}})
	ctx, stop := context.WithCancel(context.Background())
	s.ctx = ctx
	t.Cleanup(func() {
		stop()
		s.running.Wait()
	})
	s.load()
	return s
}

// serving waits until relays serve, whatever faults they have to recover from,
// and have given a receipt.
func (s *stand) serving(ids []string) {
	s.t.Helper()
	for _, id := range ids {
		s.m.Await("relay "+id+" serves", func(ctx context.Context) error {
			if s.m.Ended(id) {
				s.t.Fatalf("relay %s does not start: %v", id, s.m.AwaitEnd(id))
			}
			health, err := s.m.Operator(id).Custody.Health(ctx, &adminv1.HealthRequest{})
			if err == nil && !health.GetServing() {
				err = errors.New(health.GetReason())
			}
			return err
		})
	}
	s.probe()
}

// quiet waits until nothing is on its way any more, and checks all that has to
// be so then. The load goes on afterwards.
func (s *stand) quiet() {
	s.t.Helper()
	s.pause.Lock()
	defer s.pause.Unlock()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		lacks, _ := s.history.Missing()
		if len(lacks) == 0 {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		break
	}
	s.broken()
	s.compareDirectory()
	s.m.Balance()
}

// broken fails the test with every rule that is broken.
func (s *stand) broken() {
	s.t.Helper()
	for _, v := range s.history.Violations() {
		s.t.Errorf("%v", v)
	}
	if s.t.Failed() {
		lacks, _ := s.history.Missing()
		for _, l := range lacks[:min(3, len(lacks))] {
			s.t.Logf("trace of %s:\n%s", l.ID, s.m.Trace(l.ID))
		}
		s.t.FailNow()
	}
}

// wait lets the load do its work for a random time.
func (s *stand) wait(least, most time.Duration) {
	<-time.After(least + time.Duration(s.random.Int64N(int64(most-least)+1)))
}

// some picks relays.
func (s *stand) some(n int) (ids []string) {
	for _, i := range s.random.Perm(len(s.relays))[:n] {
		ids = append(ids, s.relays[i])
	}
	return ids
}

// cut takes the power from relays at one instant, and gives it back.
func (s *stand) cut(ids []string, torn bool) {
	s.t.Helper()
	for _, id := range ids {
		s.disks[id].Freeze()
	}
	for _, id := range ids {
		s.m.StrikeRelay(id)
	}
	for _, id := range ids {
		s.disks[id].Cut(disk.Loss{Torn: torn, Seed: s.random.Uint64()})
	}
	for _, id := range ids {
		s.m.KillRelay(id)
	}
}

// fsck proves what a cut has left, before the relay looks at it.
func (s *stand) fsck(id string) {
	s.t.Helper()
	if ran := mesh.Tool(s.t, "relayd", "fsck", "--config", s.m.Layout.RelayConfig(id)); ran.Code != 0 {
		s.t.Fatalf("fsck of relay %s after a cut: exit %d\n%s%s", id, ran.Code, ran.Stdout, ran.Stderr)
	}
}

// kinds opens the rows of the table, one of each name.
func kinds(t *testing.T, measured string, names ...string) map[string]*tally.Faults {
	all := map[string]*tally.Faults{}
	for _, name := range names {
		all[name] = tally.Kind(t, name, measured)
	}
	return all
}

func (s *stand) figures() string {
	handedIn, promised, taken := s.history.Counts()
	changes := 0
	for _, e := range s.entries {
		changes += e.answered
	}
	return fmt.Sprintf("%d documents handed in, %d promised, %d deliveries taken, %d changes to the directory answered",
		handedIn, promised, taken, changes)
}
