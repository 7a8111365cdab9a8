package ledger_test

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay/ledger"
)

// The check of the sums sees every count that is changed.
func TestDifferences(t *testing.T) {
	m := aMonth(t)
	honest := m.stats("bac", &adminv1.StatsRequest{By: "kind"})
	changed := 0
	var each func(proto.Message)
	each = func(msg proto.Message) {
		r := msg.ProtoReflect()
		fields := r.Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			switch {
			case f.Message() != nil:
				each(r.Mutable(f).Message().Interface())
			case f.IsList():
				list := r.Mutable(f).List()
				list.Set(0, protoreflect.ValueOfUint64(list.Get(0).Uint()+1))
				if changed++; len(ledger.Differences(honest)) == 0 {
					t.Errorf("%s: one more in the first, and nothing is said", f.FullName())
				}
				list.Set(0, protoreflect.ValueOfUint64(list.Get(0).Uint()-1))
			case f.Kind().String() == "uint64":
				r.Set(f, protoreflect.ValueOfUint64(r.Get(f).Uint()+1))
				if changed++; len(ledger.Differences(honest)) == 0 {
					t.Errorf("%s: one more, and nothing is said", f.FullName())
				}
				r.Set(f, protoreflect.ValueOfUint64(r.Get(f).Uint()-1))
			}
		}
	}
	for _, of := range []*adminv1.StatsRow{honest.GetRows()[0], honest.GetRelays()[1], honest.GetTotal()} {
		each(of)
	}
	if changed != 3*25 {
		t.Errorf("%d counts were changed, want those of three rows", changed)
	}
	// What agrees everywhere, and not in itself.
	for name, count := range map[string]func(*adminv1.StatsRow) *uint64{
		"sent": func(r *adminv1.StatsRow) *uint64 { return &r.Sent }, "priorities": func(r *adminv1.StatsRow) *uint64 { return &r.ByPriority[1] },
		"pending": func(r *adminv1.StatsRow) *uint64 { return &r.Pending }, "received": func(r *adminv1.StatsRow) *uint64 { return &r.Received },
		"addressed": func(r *adminv1.StatsRow) *uint64 { return &r.Addressed }, "phases": func(r *adminv1.StatsRow) *uint64 { return &r.ByPhase[1] },
		"deliveries of statuses": func(r *adminv1.StatsRow) *uint64 { return &r.Statuses.Deliveries },
		"statuses expired":       func(r *adminv1.StatsRow) *uint64 { return &r.Statuses.Expired },
		"statuses addressed":     func(r *adminv1.StatsRow) *uint64 { return &r.Statuses.Addressed },
		"statuses received":      func(r *adminv1.StatsRow) *uint64 { return &r.Statuses.Received },
	} {
		dishonest := proto.Clone(honest).(*adminv1.StatsResponse)
		for _, of := range []*adminv1.StatsRow{dishonest.GetRows()[0], dishonest.GetRelays()[1], dishonest.GetTotal()} {
			*count(of)++
		}
		if wrong := ledger.Differences(dishonest); len(wrong) == 0 {
			t.Errorf("%s: one more everywhere, and nothing is said", name)
		}
	}
	if wrong := ledger.Differences(new(adminv1.StatsResponse)); len(wrong) > 0 {
		t.Errorf("of nothing: %v", wrong)
	}
}
