package directory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/test/mesh"
)

// epoch is a stretch of a run with keys of its own, checked by itself so that
// histories stay short.
type epoch struct {
	t      testing.TB
	m      *mesh.Mesh
	began  time.Time
	relays []string // that clients ask
	keys   []key

	mu      sync.Mutex // owns what follows
	history []porcupine.Operation
	results map[[16]byte]*adminv1.ChangeResponse // by request id
	stale   map[string][]sight                   // by relay, in order
	last    map[key]uint64                       // versions that were seen
	broken  int                                  // violations found on the way
}

// sight is one table read without a barrier.
type sight struct {
	table table
	rows  map[key]row
	at    time.Duration
}

// Keys of each table in an epoch.
var perTable = [tables]int{agencies: 6, groups: 3, rules: 3, relays: 2}

func newEpoch(t testing.TB, m *mesh.Mesh, number int, ids []string) *epoch {
	e := &epoch{t: t, m: m, began: time.Now(), relays: ids, results: map[[16]byte]*adminv1.ChangeResponse{},
		stale: map[string][]sight{}, last: map[key]uint64{}}
	for in, n := range perTable {
		for i := range n {
			name := fmt.Sprintf("epoch-%d-%d", number, i)
			if table(in) == agencies {
				name = fmt.Sprintf("%s.%02d.%02d", parent, number, i)
			}
			e.keys = append(e.keys, key{table(in), name})
		}
	}
	return e
}

// load runs clients and readers at every relay until the returned function is
// called, which waits for their last answers.
func (e *epoch) load(seed uint64) (end func()) {
	stop := make(chan struct{})
	var running sync.WaitGroup
	for i, relay := range e.relays {
		for k := range 2 {
			id := 2*i + k
			c := &client{epoch: e, id: id, relay: relay, random: rand.New(rand.NewPCG(seed, uint64(id)))}
			running.Go(func() { c.run(stop) })
		}
		running.Go(func() { e.watch(relay, stop) })
	}
	return sync.OnceFunc(func() {
		close(stop)
		running.Wait()
	})
}

// watch reads at one relay without a barrier.
func (e *epoch) watch(relay string, stop <-chan struct{}) {
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-pace.C:
		}
		in := table(n % int(tables))
		rows, err := e.read(relay, in, adminv1.Consistency_CONSISTENCY_LOCAL, time.Second)
		if err != nil {
			continue
		}
		e.mu.Lock()
		e.stale[relay] = append(e.stale[relay], sight{in, rows, time.Since(e.began)})
		e.mu.Unlock()
	}
}

func (e *epoch) now() int64 { return time.Since(e.began).Nanoseconds() }

// never is when an operation without an answer ends.
const never = int64(24 * time.Hour)

func (e *epoch) record(id int, c call, a *answer, called int64) {
	o := porcupine.Operation{ClientId: id, Input: c, Output: a, Call: called, Return: e.now()}
	if a == nil {
		o.Return = never
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.history = append(e.history, o)
	if a != nil && c.verb == read {
		e.last[c.key] = a.row.version
	}
}

// lastVersion is the version that some client has read last.
func (e *epoch) lastVersion(k key) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last[k]
}

// answered compares the answers to one request id.
func (e *epoch) answered(id [16]byte, relay string, got *adminv1.ChangeResponse) {
	e.mu.Lock()
	defer e.mu.Unlock()
	first, ok := e.results[id]
	if !ok {
		e.results[id] = got
		return
	}
	if first.GetIndex() != got.GetIndex() || first.GetResult().GetVersion() != got.GetResult().GetVersion() ||
		first.GetResult().GetReason() != got.GetResult().GetReason() {
		e.violation("request %x has two outcomes: %v, and at %s %v", id, first, relay, got)
	}
}

// violation requires mu.
func (e *epoch) violation(format string, args ...any) {
	const most = 5
	if e.broken++; e.broken <= most {
		e.t.Errorf(format, args...)
	}
}

// finish reads everything at every relay, and checks all there is.
func (e *epoch) finish() {
	e.t.Helper()
	for i, relay := range e.relays {
		for in := range tables {
			begun := e.now()
			rows, err := e.read(relay, in, adminv1.Consistency_CONSISTENCY_LINEARIZABLE, patience)
			if err != nil {
				e.t.Fatalf("read %s in the end: %v", relay, err)
			}
			for _, k := range e.keys {
				if k.table == in {
					e.record(100_000+i, call{k, read, row{}}, &answer{row: rows[k]}, begun)
				}
			}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	unknown, seen := 0, 0
	for _, o := range e.history {
		if o.Output.(*answer) == nil {
			unknown++
		}
	}
	for _, s := range e.stale {
		seen += len(s)
	}
	e.t.Logf("%d operations, %d of them without an answer, and %d reads without a barrier, in %s",
		len(e.history), unknown, seen, time.Since(e.began).Round(time.Millisecond))
	linearizable(e.t, e.history)
	e.order()
	e.prefixes()
}

// order asks that versions and indexes are nobody else's, and grow with time
// over all keys; requires mu.
func (e *epoch) order() {
	var writes []porcupine.Operation
	version := func(o porcupine.Operation) uint64 { return o.Output.(*answer).version }
	for _, o := range e.history {
		if a := o.Output.(*answer); a != nil && o.Input.(call).verb != read && a.reason == done {
			writes = append(writes, o)
		}
	}
	indexes := map[uint64][16]byte{}
	for id, r := range e.results {
		if other, ok := indexes[r.GetIndex()]; ok {
			e.violation("requests %x and %x both have index %d", id, other, r.GetIndex())
		}
		indexes[r.GetIndex()] = id
	}
	byEnd := slices.Clone(writes)
	slices.SortFunc(byEnd, func(a, b porcupine.Operation) int { return int(a.Return - b.Return) })
	slices.SortFunc(writes, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	versions := map[uint64]key{}
	var before porcupine.Operation // with the highest version of those that ended
	next := 0
	for _, o := range writes {
		for ; next < len(byEnd) && byEnd[next].Return < o.Call; next++ {
			if before.Output == nil || version(byEnd[next]) > version(before) {
				before = byEnd[next]
			}
		}
		k := o.Input.(call).key
		if other, ok := versions[version(o)]; ok {
			e.violation("%s and %s were both changed by version %d", k, other, version(o))
		}
		versions[version(o)] = k
		if before.Output != nil && version(o) <= version(before) {
			e.violation("%s has version %d, begun after %s had version %d", k, version(o), before.Input.(call).key, version(before))
		}
	}
}
