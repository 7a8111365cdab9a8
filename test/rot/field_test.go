package rot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/truclienthong/truc/cmd/relayd/dev"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/test/history"
	"github.com/truclienthong/truc/test/mesh"
	"github.com/truclienthong/truc/test/torture/tally"
)

// field is a mesh on which damage is done, in groups.
type field struct {
	t      *testing.T
	m      *mesh.Mesh
	ctx    context.Context
	chance *rand.Rand
	seed   uint64
	relays []string
	homes  map[string][]string
	books  *history.History
	kinds  map[string]*tally.Faults

	parcels []*parcel
	groups  map[string][]string // the directory as it was answered

	victim  string
	hits    []*hit         // of this group
	handing sync.WaitGroup // documents that are on their way from their senders
	peak    int64          // virtual memory of a relay that is well

	mu       sync.Mutex
	trace    []string
	outcomes map[string]int
	begun    time.Time
}

// hit is one damage and how long the relay took to serve after it.
type hit struct {
	*tally.Hit
	served time.Duration
}

// patience bounds every wait. A wait that long is a finding.
const patience = 100 * time.Second

func newField(t *testing.T, stream uint64) *field {
	seed := tally.Seed(t)
	f := &field{
		t: t, ctx: t.Context(), chance: rand.New(rand.NewPCG(seed, stream)), seed: seed, books: new(history.History),
		kinds: map[string]*tally.Faults{}, groups: map[string][]string{}, outcomes: map[string]int{}, begun: time.Now(),
	}
	for _, r := range dev.Relays {
		f.relays = append(f.relays, r.ID)
	}
	var csv []byte
	f.homes, csv = agencies(f.relays)
	t.Cleanup(func() {
		if t.Failed() && !testing.Verbose() {
			t.Logf("what was done:\n%s", strings.Join(f.trace, "\n"))
		}
	})
	f.m = mesh.Start(t, mesh.Config{Agencies: csv, Processes: true, Links: true, Seed: seed})
	f.m.Damaged()
	t.Cleanup(func() {
		if t.Failed() {
			f.keepLogs()
		}
	})
	for _, relay := range f.relays {
		stop := f.receive(f.homes[relay][0])
		t.Cleanup(stop)
	}
	for i := range 12 {
		f.change(f.relays[i%len(f.relays)])
	}
	f.peak = f.m.Memory("bac", "VmPeak")
	return f
}

// keepLogs puts the logs of the relays where go test -artifacts keeps them.
func (f *field) keepLogs() {
	for _, id := range f.relays {
		f.check("keep log", os.WriteFile(filepath.Join(f.t.ArtifactDir(), id+".log"), []byte(f.log(id, 0)), 0o600))
	}
}

// note writes a line of what happened, for a test that fails or is watched.
func (f *field) note(format string, args ...any) {
	line := fmt.Sprintf("%7.2fs ", time.Since(f.begun).Seconds()) + fmt.Sprintf(format, args...)
	if testing.Verbose() {
		f.t.Log(line)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trace = append(f.trace, line)
}

// wrong is a violation.
func (f *field) wrong(format string, args ...any) {
	f.t.Helper()
	f.note("VIOLATION: "+format, args...)
	f.t.Errorf("seed %d: "+format, append([]any{f.seed}, args...)...)
}

// others are the relays that are not damaged.
func (f *field) others() []string {
	return slices.DeleteFunc(slices.Clone(f.relays), func(id string) bool { return id == f.victim })
}

// await asks again until ready returns nil; a relay that ended meanwhile, as it
// may on damage that it finds, is started again, as its service manager does.
func (f *field) await(what string, ready func(context.Context) error) bool {
	f.t.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		f.revive()
		ctx, cancel := context.WithTimeout(f.ctx, 5*time.Second)
		err := ready(ctx)
		cancel()
		if err == nil {
			return true
		}
		if time.Now().After(end) {
			f.wrong("%s: still not so after %s: %v", what, patience, err)
			return false
		}
		<-tick.C
	}
}

func (f *field) health(ctx context.Context, id string) (*adminv1.HealthResponse, error) {
	return f.m.Operator(id).Custody.Health(ctx, &adminv1.HealthRequest{})
}

// fill puts documents into every state that concerns the victim: far is a relay
// that no other relay reaches meanwhile, near the third.
func (f *field) fill(near, far string) {
	v := f.victim
	h := func(relay string, i int) string { return f.homes[relay][i] }
	size := func() int { return 500 + f.chance.IntN(200_000) }
	half := f.parcel(h(near, 0), 2<<20, h(v, 1))
	at := map[*parcel]string{
		f.parcel(h(near, 0), size(), h(v, 1)):                              near, // waits in an inbox
		f.parcel(h(near, 1), size(), h(v, 1), h(v, 2)):                     near,
		f.parcel(h(v, 2), size(), h(v, 1)):                                 v,    // accepted and waiting here
		f.parcel(h(v, 0), size(), h(far, 1)):                               v,    // queued
		f.parcel(h(v, 0), 3<<20, h(far, 1), h(v, 2)):                       v,    // in chunks
		f.parcel(h(near, 0), size(), h(far, 1), h(far, 2)):                 near, // kept for near
		f.parcel(h(near, 2), size(), h(far, 1), h(v, 1)):                   near,
		f.parcel(h(v, 1), size(), h(near, 1), h(far, 2), h(v, 2), h(v, 0)): v,
		f.parcel(h(near, 0), size(), h(v, 0)):                              near, // confirmed at once
		f.parcel(h(v, 0), size(), h(near, 0)):                              v,
	}
	f.handAll(at)
	f.handHalf(half, v)
}

// trickle hands in one more document, so that the next damage meets new records:
// the victim ends at some moment of that.
func (f *field) trickle(near, far string) {
	v := f.victim
	to := [][]string{{f.homes[v][1]}, {f.homes[far][1]}, {f.homes[v][2], f.homes[far][2]}, {f.homes[v][0]}, {f.homes[near][0], f.homes[v][1]}}
	at := v
	if f.chance.IntN(2) == 0 {
		at = near
	}
	p := f.parcel(f.homes[near][f.chance.IntN(3)], 200+f.chance.IntN(20_000), to[f.chance.IntN(len(to))]...)
	f.handing.Go(func() {
		if err := f.hand(f.ctx, p, at, 3*time.Second); err != nil {
			f.note("kept by its sender: %v", err)
		}
	})
	<-time.After(time.Duration(f.chance.IntN(80)) * time.Millisecond)
}

// finish ends a group: everything is delivered, mended, and proved.
func (f *field) finish() {
	f.t.Helper()
	began := time.Now()
	for one, id := range f.relays {
		for _, other := range f.relays[one+1:] {
			f.m.Between(id, other).Heal()
		}
	}
	f.handing.Wait()
	var stops []func()
	for _, relay := range f.relays {
		for _, code := range f.homes[relay][1:] {
			stops = append(stops, f.receive(code))
		}
	}
	well := f.await("what its senders kept is accepted", f.handInAgain) &&
		f.await("everything promised is delivered", func(context.Context) error {
			if lacks, _ := f.books.Missing(); len(lacks) > 0 {
				return fmt.Errorf("%d deliveries are missing, the first %+v", len(lacks), lacks[0])
			}
			return nil
		})
	for _, stop := range stops {
		stop()
	}
	well = well && f.await("the audit balances", func(ctx context.Context) error {
		audit, err := f.m.Operator(f.others()[0]).Custody.Audit(ctx, &adminv1.AuditRequest{})
		return errors.Join(err, f.m.Unbalanced(audit))
	}) && f.await("nothing is in quarantine", func(ctx context.Context) error {
		health, err := f.health(ctx, f.victim)
		if err == nil && health.GetQuarantined() > 0 {
			err = fmt.Errorf("%d envelopes", health.GetQuarantined())
		}
		return err
	}) && f.sameDirectory()
	for _, v := range f.books.Violations() {
		f.wrong("%s", v)
	}
	if well && !f.t.Failed() {
		f.fsck()
	}
	if well && !f.t.Failed() {
		end := time.Since(began)
		f.note("the group has ended well in %s", end)
		for _, h := range f.hits {
			h.SurvivedIn(h.served + end)
		}
	}
	f.hits, f.parcels = nil, nil
}

// fsck stops the victim and proves that no envelope in its spool is broken. The
// journal may say where it was damaged: such a segment is put aside once nothing
// in it is needed any more, or the register has been written again.
func (f *field) fsck() {
	f.t.Helper()
	f.halt(false)
	ran := mesh.Tool(f.t, "relayd", "fsck", "--config", f.m.Layout.RelayConfig(f.victim), "-o", "json")
	if crashed(ran.Stderr) != "" || ran.Code > 1 {
		f.wrong("relayd fsck ends with %d: %s", ran.Code, ran.Stderr)
	}
	for line := range strings.Lines(ran.Stdout) {
		var finding struct {
			Problem string `json:"problem"`
			ID      string `json:"envelope_id"`
		}
		if err := json.Unmarshal([]byte(line), &finding); err != nil {
			f.wrong("relayd fsck prints %q", line)
		}
		known := strings.HasPrefix(finding.Problem, "journal is damaged") || strings.HasPrefix(finding.Problem, "register is damaged")
		if finding.Problem != "" && !known {
			f.wrong("fsck of %s: %s %s", f.victim, finding.ID, finding.Problem)
		}
	}
	if ran.Code == 1 && ran.Stdout == "" {
		f.wrong("relayd fsck ends with %s", ran.Stderr)
	}
	f.begin(nil)
}

// report prints the figures of the run.
func (f *field) report() {
	handed, promised, taken := f.books.Counts()
	f.t.Logf("%d documents handed in, %d promised, %d deliveries taken", handed, promised, taken)
	for _, outcome := range slices.Sorted(maps.Keys(f.outcomes)) {
		f.t.Logf("%4d times: %s", f.outcomes[outcome], outcome)
	}
	if promised == 0 || taken == 0 {
		f.wrong("nothing was promised or delivered: the damage met nothing")
	}
}
