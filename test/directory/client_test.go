package directory

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// client is one operator's program at one relay: it does one thing at a time.
type client struct {
	*epoch
	id     int
	relay  string
	random *rand.Rand
	writes int
}

// patience bounds a write with all of its tries.
const patience = 100 * time.Second

// run does operations until stop is closed.
func (c *client) run(stop <-chan struct{}) {
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for {
		select {
		case <-stop:
			return
		case <-pace.C:
		}
		if c.random.IntN(3) == 0 {
			c.look()
			continue
		}
		op := c.choose()
		begun := c.now()
		a := c.write(op)
		c.record(c.id, op, a, begun)
		if a == nil {
			c.id += 1000 // that operation has no end, so this is somebody else now
		}
	}
}

// look reads a whole table with a barrier.
func (c *client) look() {
	in := table(c.random.IntN(int(tables)))
	begun := c.now()
	rows, err := c.read(c.relay, in, adminv1.Consistency_CONSISTENCY_LINEARIZABLE, 3*time.Second)
	if err != nil {
		return
	}
	for _, k := range c.keys {
		if k.table == in {
			c.record(c.id, call{k, read, row{}}, &answer{row: rows[k]}, begun)
		}
	}
}

// choose draws the next write.
func (c *client) choose() call {
	c.writes++
	op := call{key: c.keys[c.random.IntN(len(c.keys))], verb: put}
	op.row.value = fmt.Sprintf("%d.%d", c.id, c.writes)
	p := c.random.IntN(100)
	if op.table == agencies {
		i := c.random.IntN(len(c.relays))
		op.row.home, op.row.standby = c.relays[i], c.relays[(i+1)%len(c.relays)]
		switch {
		case p < 20:
			op.verb = create
		case p < 40:
			op.verb, op.row.version = replace, c.lastVersion(op.key)
		case p < 60:
			op.verb = move
		}
		op.row.flag = c.random.IntN(4) == 0
	}
	switch {
	case p >= 90:
		op.verb = remove
	case p >= 75 && (op.table == agencies || op.table == relays):
		op.verb, op.row.flag = flag, c.random.IntN(2) == 0
	}
	if op.table == groups {
		op.row.value = strings.Join(slices.DeleteFunc(slices.Clone(members), func(string) bool { return c.random.IntN(2) == 0 }), " ")
	}
	if op.verb != replace {
		op.row.version = 0
	} else if op.row.version == 0 {
		op.verb = put
	}
	return op
}

// members are agencies that may be in a group; they stay what they are.
var members = []string{"G12", "G17", "G22", "H13", "H17", "H26"}

// write hands an operation in until it has an answer, with one request id; nil:
// it was given up.
func (c *client) write(op call) *answer {
	request := &adminv1.ChangeRequest{RequestId: make([]byte, 16), Command: command(op)}
	binary.LittleEndian.PutUint64(request.RequestId, c.random.Uint64())
	binary.LittleEndian.PutUint64(request.RequestId[8:], c.random.Uint64())
	begin, gives := time.Now(), c.random.IntN(12) == 0
	for at := c.relay; time.Since(begin) < patience; at = c.relays[c.random.IntN(len(c.relays))] {
		within := time.Duration(300+c.random.IntN(2000)) * time.Millisecond
		if c.random.IntN(5) == 0 {
			within = time.Duration(1+c.random.IntN(15)) * time.Millisecond // the answer comes too late
		}
		also := ""
		if c.random.IntN(8) == 0 {
			also = c.relays[c.random.IntN(len(c.relays))]
		}
		first, err := c.change(at, also, request, within)
		if err == nil {
			if c.random.IntN(8) == 0 { // as one that forgot that it was answered
				_, _ = c.change(c.relays[c.random.IntN(len(c.relays))], "", request, time.Second)
			}
			return &answer{reason: first.GetResult().GetReason(), version: first.GetResult().GetVersion()}
		}
		if !envelope.Temporary(err) {
			c.t.Errorf("%s %s at %s: %v", op.verb, op.key, at, err)
			return nil
		}
		if gives {
			return nil
		}
	}
	return nil
}

// change hands a request in at one relay, or at two at the same time.
func (c *client) change(at, also string, request *adminv1.ChangeRequest, within time.Duration) (response *adminv1.ChangeResponse, err error) {
	ask := func(relay string) (*adminv1.ChangeResponse, error) {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		got, err := c.m.Operator(relay).Directory.Change(ctx, request)
		if err == nil {
			c.answered([16]byte(request.GetRequestId()), relay, got)
		}
		return got, err
	}
	if also == "" {
		response, err = ask(at)
	} else {
		var both sync.WaitGroup
		var second *adminv1.ChangeResponse
		var failed error
		both.Go(func() { second, failed = ask(also) })
		response, err = ask(at)
		both.Wait()
		if err != nil && failed == nil {
			response, err = second, nil
		}
	}
	if err != nil && within > 100*time.Millisecond {
		<-time.After(time.Duration(20+c.random.IntN(100)) * time.Millisecond) // paces a client whose relay is away
	}
	return response, err
}

// parent of all agencies that are written.
const parent = "G22"

func command(op call) *directoryv1.Command {
	agency := &directoryv1.Agency{Code: op.name, Name: op.row.value, Tier: 2, ParentCode: parent,
		HomeRelayId: op.row.home, StandbyRelayId: op.row.standby, Suspended: op.row.flag}
	state := directoryv1.RelayState_RELAY_STATE_ACTIVE
	if op.row.flag {
		state = directoryv1.RelayState_RELAY_STATE_DRAINING
	}
	c := new(directoryv1.Command)
	switch {
	case op.table == agencies && op.verb == move:
		c.Change = &directoryv1.Command_MoveAgency{MoveAgency: &directoryv1.MoveAgency{AgencyCode: op.name,
			HomeRelayId: op.row.home, StandbyRelayId: op.row.standby}}
	case op.table == agencies && op.verb == flag:
		c.Change = &directoryv1.Command_SuspendAgency{SuspendAgency: &directoryv1.SuspendAgency{AgencyCode: op.name, Suspended: op.row.flag}}
	case op.table == agencies && op.verb == remove:
		c.Change = &directoryv1.Command_RemoveAgency{RemoveAgency: &directoryv1.RemoveAgency{AgencyCode: op.name}}
	case op.table == agencies:
		c.Change = &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{Agency: agency,
			CreateOnly: op.verb == create, IfVersion: op.row.version}}
	case op.table == groups && op.verb == remove:
		c.Change = &directoryv1.Command_RemoveGroup{RemoveGroup: &directoryv1.RemoveGroup{Name: op.name}}
	case op.table == groups:
		c.Change = &directoryv1.Command_SetGroup{SetGroup: &directoryv1.SetGroup{
			Group: &directoryv1.Group{Name: op.name, AgencyCodes: strings.Fields(op.row.value)}}}
	case op.table == rules && op.verb == remove:
		c.Change = &directoryv1.Command_RemoveRule{RemoveRule: &directoryv1.RemoveRule{Id: op.name}}
	case op.table == rules:
		c.Change = &directoryv1.Command_PutRule{PutRule: &directoryv1.PutRule{Rule: &directoryv1.Rule{
			Id: op.name, Effect: directoryv1.Effect_EFFECT_ALLOW, Note: op.row.value}}}
	case op.verb == remove:
		c.Change = &directoryv1.Command_RemoveRelay{RemoveRelay: &directoryv1.RemoveRelay{RelayId: op.name}}
	case op.verb == flag:
		c.Change = &directoryv1.Command_SetRelayState{SetRelayState: &directoryv1.SetRelayState{RelayId: op.name, State: state}}
	default:
		// Nobody listens there.
		c.Change = &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{Relay: &directoryv1.Relay{
			Id: op.name, Region: op.row.value, Address: "127.0.0.1:1"}}}
	}
	return c
}

// read returns a table as one relay shows it.
func (e *epoch) read(relay string, in table, how adminv1.Consistency, within time.Duration) (map[key]row, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	rows := map[key]row{}
	d := e.m.Operator(relay).Directory
	switch in {
	case agencies:
		got, err := d.ListAgencies(ctx, &adminv1.ListAgenciesRequest{Consistency: how, Under: parent, PageSize: 1000})
		if err != nil {
			return nil, err
		}
		for _, a := range got.GetAgencies() {
			rows[key{in, a.GetCode()}] = row{there: true, value: a.GetName(), home: a.GetHomeRelayId(), standby: a.GetStandbyRelayId(),
				flag: a.GetSuspended(), version: a.GetVersion()}
		}
	case groups:
		got, err := d.ListGroups(ctx, &adminv1.ListGroupsRequest{Consistency: how})
		if err != nil {
			return nil, err
		}
		for _, g := range got.GetGroups() {
			rows[key{in, g.GetName()}] = row{there: true, value: strings.Join(g.GetAgencyCodes(), " "), version: g.GetVersion()}
		}
	case rules:
		got, err := d.ListRules(ctx, &adminv1.ListRulesRequest{Consistency: how})
		if err != nil {
			return nil, err
		}
		for _, r := range got.GetRules() {
			rows[key{in, r.GetId()}] = row{there: true, value: r.GetNote(), version: r.GetVersion()}
		}
	case relays:
		got, err := d.ListRelays(ctx, &adminv1.ListRelaysRequest{Consistency: how})
		if err != nil {
			return nil, err
		}
		for _, v := range got.GetRelays() {
			r := v.GetRelay()
			rows[key{in, r.GetId()}] = row{there: true, value: r.GetRegion(),
				flag: r.GetState() == directoryv1.RelayState_RELAY_STATE_DRAINING, version: r.GetVersion()}
		}
	}
	return rows, nil
}
