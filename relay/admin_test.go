package relay_test

import (
	"context"
	"net"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/tls"
	"github.com/truclienthong/truc/tls/pki"
)

// raw sends bytes as they are, under the name of the usual codec.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}
func (raw) Name() string { return "proto" }

// nothing is a listener that is never asked.
type nothing struct{ net.Listener }

func asRefusal(err error) (*envelope.Refusal, bool) { return envelope.AsRefusal(err) }

func serialOf(t *testing.T, issued pki.Issued) []byte {
	t.Helper()
	serial, err := pki.ParseSerial(issued.Serial)
	if err != nil {
		t.Fatal(err)
	}
	return serial
}

// Who asked, and when, is for the relay to say.
func TestChangeFillsInActorAndTime(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.serving("bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	operator := adminv1.NewDirectoryServiceClient(m.dial("bac", tls.KindOperator, "an"))
	req := &adminv1.ChangeRequest{RequestId: []byte("0123456789abcdef"), Command: &directoryv1.Command{
		Actor: "spiffe://truc.test/operator/other", At: timestamppb.Now(),
		Change: &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{Agency: &directoryv1.Agency{Code: "G22", Name: "VPCP", Tier: 1}}},
	}}
	req.Command.At.Seconds -= 1_000_000
	first, err := operator.Change(ctx, req)
	if err != nil || first.GetResult().GetReason() != 0 || first.GetRepeat() {
		t.Fatalf("change: got %v, %v", first, err)
	}
	again, err := operator.Change(ctx, req)
	if err != nil || !again.GetRepeat() {
		t.Errorf("repeat: got %v, %v, want repeat", again, err)
	}
	m.directory.mu.Lock()
	last := m.directory.commands[len(m.directory.commands)-1]
	m.directory.mu.Unlock()
	if last.GetActor() != "spiffe://truc.test/operator/an" || last.GetAt().GetSeconds() <= req.Command.At.GetSeconds()+1000 {
		t.Errorf("command: got actor %s at %s", last.GetActor(), last.GetAt().AsTime())
	}
	agencies, err := operator.ListAgencies(ctx, &adminv1.ListAgenciesRequest{Code: "G22", Consistency: adminv1.Consistency_CONSISTENCY_LINEARIZABLE})
	if err != nil || len(agencies.GetAgencies()) != 1 || agencies.GetAgencies()[0].GetHomeRelayId() != "bac" {
		t.Errorf("list agencies: got %v, %v", agencies, err)
	}
	relays, err := operator.ListRelays(ctx, &adminv1.ListRelaysRequest{})
	if err != nil || len(relays.GetRelays()) != 1 || relays.GetRelays()[0].GetHomes() != 1 || !relays.GetRelays()[0].GetReachable() {
		t.Errorf("list relays: got %v, %v", relays, err)
	}
	rules, err := operator.ListRules(ctx, &adminv1.ListRulesRequest{})
	if err != nil || len(rules.GetRules()) == 0 {
		t.Errorf("list rules: got %v, %v", rules, err)
	}

	// Without a leader only what needs one fails, and says so.
	m.directory.leader(false)
	if _, err := operator.Change(ctx, &adminv1.ChangeRequest{RequestId: make([]byte, 16), Command: req.GetCommand()}); !has(err, exchangev1.ErrorReason_ERROR_REASON_NO_LEADER) {
		t.Errorf("change without a leader: got %v, want NO_LEADER", err)
	}
	if _, err := operator.ListGroups(ctx, &adminv1.ListGroupsRequest{Consistency: adminv1.Consistency_CONSISTENCY_LINEARIZABLE}); !has(err, exchangev1.ErrorReason_ERROR_REASON_NO_LEADER) {
		t.Errorf("linearizable read without a leader: got %v, want NO_LEADER", err)
	}
	if _, err := operator.ListGroups(ctx, &adminv1.ListGroupsRequest{}); err != nil {
		t.Errorf("local read without a leader: got %v", err)
	}
	if _, err := submit(ctx, m.agency("bac", "G22"), document("G22", "1", "x", "G22"), "x"); err != nil {
		t.Errorf("a document without a leader: got %v, want it accepted", err)
	}
}

func TestBadAdminRequests(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.serving("bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	operator := adminv1.NewDirectoryServiceClient(m.dial("bac", tls.KindOperator, "an"))
	put := &directoryv1.Command{Change: &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{Agency: &directoryv1.Agency{Code: "G22"}}}}
	for _, test := range []struct {
		name, field string
		call        func() error
	}{
		{"request id", "request_id", func() error {
			_, err := operator.Change(ctx, &adminv1.ChangeRequest{Command: put})
			return err
		}},
		{"no command", "command", func() error {
			_, err := operator.Change(ctx, &adminv1.ChangeRequest{RequestId: make([]byte, 16)})
			return err
		}},
		{"no change", "command", func() error {
			_, err := operator.Change(ctx, &adminv1.ChangeRequest{RequestId: make([]byte, 16), Command: &directoryv1.Command{}})
			return err
		}},
		// It would stop every relay that meets it in the log.
		{"version of the future", "command", func() error {
			_, err := operator.Change(ctx, &adminv1.ChangeRequest{RequestId: make([]byte, 16), Command: &directoryv1.Command{Version: 99, Change: put.GetChange()}})
			return err
		}},
		{"consistency", "consistency", func() error {
			_, err := operator.ListRules(ctx, &adminv1.ListRulesRequest{Consistency: 9})
			return err
		}},
		{"page size", "page_size", func() error {
			_, err := operator.ListAgencies(ctx, &adminv1.ListAgenciesRequest{PageSize: 1001})
			return err
		}},
		{"tier", "tier", func() error {
			_, err := operator.ListAgencies(ctx, &adminv1.ListAgenciesRequest{Tier: 5})
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.call()
			r, ok := asRefusal(err)
			if !ok || r.Reason != exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD || len(r.Problems) != 1 || r.Problems[0].Field != test.field {
				t.Errorf("got %v, want INVALID_FIELD at %s", err, test.field)
			}
		})
	}
}
