package directory

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/test/mesh"
	"github.com/truclienthong/truc/test/torture/tally"
)

// Operators change and read the directory at every relay while leaders die, are
// cut off and come back: what they were told is one history.
func TestDirectoryLinearizable(t *testing.T) {
	seed := tally.Seed(t)
	m := mesh.Start(t, mesh.Config{Processes: true, Links: true, Seed: seed, Profiles: []string{"G22"}})
	a := &attack{t: t, m: m, ids: []string{"bac", "trung", "nam"}, random: rand.New(rand.NewPCG(seed, 1<<32)), kinds: map[string]*tally.Faults{}}
	var order []int
	next := func() fault {
		if len(order) == 0 { // each once before any again
			order = a.random.Perm(len(plan))
		}
		f := plan[order[0]]
		order = order[1:]
		return f
	}
	long, each := 3*time.Minute+30*time.Second, tally.Pick(3, 6)
	begun := time.Now()
	for number := 1; number == 1 || tally.Long() && time.Since(begun) < long; number++ {
		e := newEpoch(t, m, number, a.ids)
		end := e.load(seed + uint64(number)<<32)
		t.Cleanup(end)
		for range each {
			a.inject(next())
		}
		end()
		e.finish()
		a.agree()
		if t.Failed() {
			return
		}
	}
}

// agree waits until every relay has the same directory.
func (a *attack) agree() {
	a.t.Helper()
	a.m.Await("all relays have the same directory", func(ctx context.Context) error {
		var first string
		for i, id := range a.ids {
			all, err := contents(ctx, a.m.Operator(id))
			if err != nil {
				return fmt.Errorf("relay %s: %w", id, err)
			}
			if i == 0 {
				first = all
			} else if all != first {
				return errors.New(id + " has another than " + a.ids[0])
			}
		}
		return nil
	})
}

// contents is everything that a relay's copy of the directory holds.
func contents(ctx context.Context, o *mesh.Operator) (string, error) {
	status, err := o.Raft.Status(ctx, &adminv1.StatusRequest{})
	if err != nil {
		return "", err
	}
	all := []byte(fmt.Sprintf("version %d\n", status.GetDirectoryVersion()))
	add := func(m proto.Message) {
		all, err = proto.MarshalOptions{Deterministic: true}.MarshalAppend(all, m)
	}
	for token, more := "", true; more && err == nil; more = token != "" {
		page, failed := o.Directory.ListAgencies(ctx, &adminv1.ListAgenciesRequest{PageSize: 1000, PageToken: token})
		if failed != nil {
			return "", failed
		}
		add(page)
		token = page.GetNextPageToken()
	}
	relays, failed := o.Directory.ListRelays(ctx, &adminv1.ListRelaysRequest{})
	err = errors.Join(err, failed)
	for _, r := range relays.GetRelays() {
		add(r.GetRelay())
	}
	groups, failed := o.Directory.ListGroups(ctx, &adminv1.ListGroupsRequest{})
	err = errors.Join(err, failed)
	add(groups)
	rules, failed := o.Directory.ListRules(ctx, &adminv1.ListRulesRequest{})
	err = errors.Join(err, failed)
	add(rules)
	return string(all), err
}
