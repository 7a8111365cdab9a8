package routing_test

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/routing"
)

const (
	applied      = exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED
	invalidField = exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	conflict     = exchangev1.ErrorReason_ERROR_REASON_CONFLICT
	notFound     = exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND
)

var commandTime = time.Date(2025, 10, 20, 8, 30, 0, 0, time.UTC)

// fataler is what tests, benchmarks and rapid have in common.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// command wraps a change; the oneof's field is found by its message type.
func command(change proto.Message) *directoryv1.Command {
	c := &directoryv1.Command{Version: 1, Actor: "spiffe://truc.test/operator/an", At: timestamppb.New(commandTime)}
	fields := c.ProtoReflect().Descriptor().Oneofs().ByName("change").Fields()
	for i := range fields.Len() {
		if fields.Get(i).Message().FullName() == change.ProtoReflect().Descriptor().FullName() {
			c.ProtoReflect().Set(fields.Get(i), protoreflect.ValueOfMessage(change.ProtoReflect()))
			return c
		}
	}
	panic(fmt.Sprintf("%T is no change of the directory", change))
}

func marshal(t fataler, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatalf("marshal %T: %v", m, err)
	}
	return b
}

// try applies a change and returns the answer.
func try(t fataler, d *routing.Directory, change proto.Message) *directoryv1.CommandResult {
	t.Helper()
	answer, err := d.Apply(marshal(t, command(change)))
	if err != nil {
		t.Fatalf("apply %T: %v", change, err)
	}
	result := new(directoryv1.CommandResult)
	if err := proto.Unmarshal(answer, result); err != nil {
		t.Fatalf("result of %T: %v", change, err)
	}
	return result
}

// must applies changes that have to be accepted.
func must(t fataler, d *routing.Directory, changes ...proto.Message) {
	t.Helper()
	for _, change := range changes {
		if r := try(t, d, change); r.GetReason() != applied {
			t.Fatalf("%T refused: %v: %s", change, r.GetReason(), r.GetMessage())
		}
	}
}

func snapshotOf(t fataler, d *routing.Directory) []byte {
	t.Helper()
	s, err := d.Snapshot()
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	var b bytes.Buffer
	if n, err := s.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("write snapshot: %d of %d bytes counted, error %v", n, b.Len(), err)
	}
	return b.Bytes()
}

func relay(id string) *directoryv1.PutRelay {
	return &directoryv1.PutRelay{Relay: &directoryv1.Relay{Id: id, Region: "Miền Bắc", Address: id + ".truc.test:7400"}}
}

// row is an agency with what every one needs.
func row(code string, tier routing.Tier, parent string) *directoryv1.Agency {
	return &directoryv1.Agency{Code: code, Name: "Cơ quan " + code, Tier: uint32(tier), ParentCode: parent}
}

func put(a *directoryv1.Agency) *directoryv1.PutAgency { return &directoryv1.PutAgency{Agency: a} }

func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

// small is three relays and agencies of four tiers:
//
//	G22
//	H26 ─ H26.12 ─ H26.12.05
//	    └ H26.13
//	H01
func small(t fataler) *routing.Directory {
	t.Helper()
	d := routing.NewDirectory()
	must(t, d, relay("bac"), relay("trung"), relay("nam"),
		put(row("G22", 1, "")), put(row("H26", 2, "")), put(row("H01", 2, "")),
		put(row("H26.12", 3, "H26")), put(row("H26.13", 3, "H26")), put(row("H26.12.05", 4, "H26.12")))
	return d
}

func agency(t fataler, d *routing.Directory, code routing.AgencyCode) *directoryv1.Agency {
	t.Helper()
	a, ok := d.View().Agency(code)
	if !ok {
		t.Fatalf("agency %s is not in the directory", code)
	}
	return a
}

func toAgency(code string) *exchangev1.Recipient {
	return &exchangev1.Recipient{To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: code}}}
}

func toGroup(name string) *exchangev1.Recipient {
	return &exchangev1.Recipient{To: &exchangev1.Recipient_Group{Group: name}}
}

func recipients(list ...*exchangev1.Recipient) []*exchangev1.Recipient { return list }

func restoreFrom(t fataler, d *routing.Directory, s io.WriterTo) {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		t.Fatalf("write snapshot: %v", err)
	}
	if err := d.Restore(&b); err != nil {
		t.Fatalf("restore: %v", err)
	}
}
