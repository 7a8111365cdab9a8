package consensus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

type operation struct {
	write bool
	key   string
	word  string
}

// appendList is a list per key: a write appends a word and returns the list, a
// read returns it. An unknown outcome is nil: a write that may have happened at
// any time after its call.
var appendList = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range history {
			key := o.Input.(operation).key
			byKey[key] = append(byKey[key], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		list, op := state.(string), input.(operation)
		if op.write {
			if list != "" {
				list += ","
			}
			list += op.word
		}
		return output == nil || output.(string) == list, list
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprint(input, " -> ", output) },
}

// TestLinearizable: writers and barrier readers on every relay while the leader
// is cut off, stopped and asked to hand over.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := newCluster(t, 3, nil)
	c.leader()
	var mu sync.Mutex
	var history []porcupine.Operation
	start := time.Now()
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i, m := range c.others(nil) {
		for k := range 2 {
			client := 2*i + k
			random := rand.New(rand.NewPCG(seed, uint64(client)))
			clients.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					op := operation{write: random.IntN(2) == 0, key: fmt.Sprint("k", random.IntN(3)), word: fmt.Sprintf("%d.%d", client, n)}
					call := time.Since(start).Nanoseconds()
					output, certain := m.do(op)
					if !certain && !op.write {
						continue
					}
					end := time.Since(start).Nanoseconds()
					if !certain {
						end = time.Hour.Nanoseconds()
					}
					mu.Lock()
					history = append(history, porcupine.Operation{ClientId: client, Input: op, Call: call, Output: output, Return: end})
					mu.Unlock()
					if !certain {
						client += 100 // its last operation never ends, so it is somebody else now
					}
				}
			})
		}
	}
	done := func(n int) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(history) >= n
		}
	}
	random := rand.New(rand.NewPCG(seed, 1000))
	for round := range 5 {
		mu.Lock()
		n := len(history)
		mu.Unlock()
		eventually(t, "operations", done(n+40))
		leader := c.leader()
		rest := c.others(leader)
		switch round % 2 {
		case 0:
			c.net.isolate([]string{leader.id}, ids(rest))
			eventually(t, "another leader", func() bool {
				s := rest[0].Status()
				return s.LeaderID != "" && s.LeaderID != leader.id
			})
			mu.Lock()
			n := len(history)
			mu.Unlock()
			eventually(t, "operations", done(n+20))
			c.net.heal()
		case 1:
			// It may be refused or lead elsewhere: any outcome is a fault to live with.
			_, _ = leader.TransferLeader(t.Context(), rest[random.IntN(2)].id)
		}
	}
	stop()
	clients.Wait()
	// What each key holds in the end is part of the history.
	for k := range 3 {
		key := fmt.Sprint("k", k)
		for i, m := range c.others(nil) {
			call := time.Since(start).Nanoseconds()
			value := m.read(key)
			history = append(history, porcupine.Operation{
				ClientId: 10000 + i, Input: operation{key: key}, Call: call, Output: value, Return: time.Since(start).Nanoseconds(),
			})
		}
	}
	t.Logf("%d operations in %s", len(history), time.Since(start))
	if result, info := porcupine.CheckOperationsVerbose(appendList, history, 10*time.Second); result != porcupine.Ok {
		path := t.ArtifactDir() + "/history.html"
		if err := porcupine.VisualizePath(appendList, info, path); err == nil {
			t.Logf("see %s", path)
		}
		t.Fatalf("history is %s", result)
	}
}

// do runs one operation; certain is false where its outcome is unknown.
func (m *member) do(op operation) (output any, certain bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if !op.write {
		if err := m.ReadBarrier(ctx); err != nil {
			return nil, false
		}
		return m.ledger.get(op.key), true
	}
	id := newID()
	for range 2 { // the second time with the same request id
		r, err := m.Propose(ctx, id, []byte("append "+op.key+" "+op.word))
		if err == nil {
			return string(r.Value), true
		}
	}
	return nil, false
}
