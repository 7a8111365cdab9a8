package rot

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// groupPrefix begins the names of groups.
const groupPrefix = "nhóm-"

// change changes the directory by way of a relay, and knows what was answered.
func (f *field) change(by string) {
	f.t.Helper()
	name := fmt.Sprintf("%s%02d", groupPrefix, f.chance.IntN(40))
	all := allOf(f.homes)
	f.chance.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	codes := slices.Sorted(slices.Values(all[:1+f.chance.IntN(len(all))]))
	request := &adminv1.ChangeRequest{RequestId: f.noise(16), Command: &directoryv1.Command{
		Change: &directoryv1.Command_SetGroup{SetGroup: &directoryv1.SetGroup{Group: &directoryv1.Group{Name: name, AgencyCodes: codes}}},
	}}
	if f.await("the directory is changed by "+by, func(ctx context.Context) error {
		answer, err := f.m.Operator(by).Directory.Change(ctx, request)
		if err == nil && answer.GetResult().GetReason() != 0 {
			err = fmt.Errorf("refused: %v", answer.GetResult())
		}
		return err
	}) {
		f.groups[name] = codes
	}
}

// sameDirectory waits until all relays have applied the same, and compares what
// they have with each other and with what was answered.
func (f *field) sameDirectory() bool {
	f.t.Helper()
	var sums map[string][32]byte
	same := f.await("all relays have the newest directory", func(ctx context.Context) error {
		sums = map[string][32]byte{}
		versions := map[uint64]bool{}
		for _, id := range f.relays {
			status, err := f.m.Operator(id).Raft.Status(ctx, &adminv1.StatusRequest{})
			if err != nil {
				return err
			}
			versions[status.GetDirectoryVersion()] = true
			if sums[id], err = f.directoryOf(ctx, id); err != nil {
				return err
			}
		}
		if len(versions) > 1 {
			return fmt.Errorf("versions %v", versions)
		}
		return nil
	})
	if !same {
		return false
	}
	for _, id := range f.relays {
		if sums[id] != sums[f.relays[0]] {
			f.wrong("the directory of %s is not that of %s, and has the same version", id, f.relays[0])
			return false
		}
	}
	f.note("all relays have one directory")
	return f.await("the directory has what was answered", func(ctx context.Context) error {
		groups, err := f.m.Operator(f.victim).Directory.ListGroups(ctx, &adminv1.ListGroupsRequest{Consistency: adminv1.Consistency_CONSISTENCY_LOCAL})
		if err != nil {
			return err
		}
		there := map[string][]string{}
		for _, g := range groups.GetGroups() {
			there[g.GetName()] = slices.Sorted(slices.Values(g.GetAgencyCodes()))
		}
		for name, codes := range f.groups {
			if !slices.Equal(codes, there[name]) {
				return fmt.Errorf("group %s is %v, it was set to %v", name, there[name], codes)
			}
		}
		return nil
	})
}

// directoryOf is one sum over everything that a relay's copy holds.
func (f *field) directoryOf(ctx context.Context, id string) (sum [32]byte, err error) {
	const local = adminv1.Consistency_CONSISTENCY_LOCAL
	d := f.m.Operator(id).Directory
	h := sha256.New()
	var failed []error
	put := func(messages ...proto.Message) {
		for _, m := range messages {
			raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			failed = append(failed, err)
			h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(raw))))
			h.Write(raw)
		}
	}
	relays, err1 := d.ListRelays(ctx, &adminv1.ListRelaysRequest{Consistency: local})
	for _, r := range relays.GetRelays() {
		put(r.GetRelay())
	}
	agencies, err2 := d.ListAgencies(ctx, &adminv1.ListAgenciesRequest{Consistency: local, PageSize: 1000})
	groups, err3 := d.ListGroups(ctx, &adminv1.ListGroupsRequest{Consistency: local})
	rules, err4 := d.ListRules(ctx, &adminv1.ListRulesRequest{Consistency: local})
	gateways, err5 := d.ListGateways(ctx, &adminv1.ListGatewaysRequest{Consistency: local})
	trust, err6 := d.ListTrust(ctx, &adminv1.ListTrustRequest{Consistency: local})
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return sum, err
	}
	put(agencies, groups, rules, gateways, trust)
	return [32]byte(h.Sum(nil)), errors.Join(failed...)
}
