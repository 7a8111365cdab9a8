package routing_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/routing"
)

const (
	document = exchangev1.Kind_KIND_DOCUMENT
	status   = exchangev1.Kind_KIND_STATUS
)

func codes(list ...routing.AgencyCode) []routing.AgencyCode { return list }

func TestResolve(t *testing.T) {
	const (
		unknown   = exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT
		suspended = exchangev1.ErrorReason_ERROR_REASON_SUSPENDED_RECIPIENT
		none      = exchangev1.ErrorReason_ERROR_REASON_NO_RECIPIENT
	)
	d := small(t)
	under := func(code string) []*directoryv1.Selector { return []*directoryv1.Selector{{Under: code}} }
	group := func(name string, members []string, s ...*directoryv1.Selector) *directoryv1.SetGroup {
		return &directoryv1.SetGroup{Group: &directoryv1.Group{Name: name, AgencyCodes: members, Selectors: s}}
	}
	must(t, d,
		&directoryv1.SuspendAgency{AgencyCode: "H01", Suspended: true},
		group("hà-nội", nil, under("H26")...),
		group("vòng-a", []string{"G22"}),
		group("vòng-b", []string{"H26"}, &directoryv1.Selector{Group: "vòng-a"}),
		group("vòng-a", []string{"G22"}, &directoryv1.Selector{Group: "vòng-b"}), // a circle
		group("tự-nó", nil, &directoryv1.Selector{Group: "tự-nó"}),
		group("quận-hà-nội", nil, &directoryv1.Selector{Group: "hà-nội", Tier: 3}),
		group("ngừng", []string{"H01"}),
		group("tất-cả", nil, &directoryv1.Selector{}),
		group("xã", nil, &directoryv1.Selector{Group: "communes-of/H26"}, &directoryv1.Selector{Code: "G22"}))
	for _, c := range []struct {
		name   string
		to     []*exchangev1.Recipient
		want   []routing.AgencyCode
		faults map[int]exchangev1.ErrorReason
	}{
		{"one", recipients(toAgency("G22")), codes("G22"), nil},
		{"alias and repeats", recipients(toAgency("H26"), toAgency("000.00.00.G22"), toAgency(" G22 "), toAgency("H26")), codes("G22", "H26"), nil},
		{"built-in group", recipients(toGroup("districts")), codes("H26.12", "H26.13"), nil},
		{"built-in group with a suspended member", recipients(toGroup("provinces")), codes("H26"), nil},
		{"built-in group of one", recipients(toGroup("communes-of/H26")), codes("H26.12.05"), nil},
		{"built-in group of one, by alias", recipients(toGroup("districts-of/000.00.00.H26")), codes("H26.12", "H26.13"), nil},
		{"below, not the agency itself", recipients(toGroup("provinces-of/H26")), codes(), map[int]exchangev1.ErrorReason{0: none}},
		{"under", recipients(toGroup("hà-nội")), codes("H26", "H26.12", "H26.12.05", "H26.13"), nil},
		{"conditions together", recipients(toGroup("quận-hà-nội")), codes("H26.12", "H26.13"), nil},
		{"circle, one way", recipients(toGroup("vòng-a")), codes("G22", "H26"), nil},
		{"circle, other way", recipients(toGroup("vòng-b")), codes("G22", "H26"), nil},
		{"group of itself", recipients(toGroup("tự-nó")), codes(), map[int]exchangev1.ErrorReason{0: none}},
		{"selector of a built-in group", recipients(toGroup("xã")), codes("G22", "H26.12.05"), nil},
		{"without conditions", recipients(toGroup("tất-cả")), codes("G22", "H26", "H26.12", "H26.12.05", "H26.13"), nil},
		{"nobody", nil, nil, map[int]exchangev1.ErrorReason{-1: none}},
		{"every fault at once", recipients(
			toAgency("H99"), toAgency("G22"), toAgency("H01"), toAgency("a/b"), toGroup("lạ"), toGroup("ngừng"),
			toGroup("communes-of/H99"), &exchangev1.Recipient{}, toGroup(""), toGroup("@provinces"), toAgency(""), toGroup("communes-of/")),
			codes("G22"), map[int]exchangev1.ErrorReason{
				0: unknown, 2: suspended, 3: invalidField, 4: unknown, 5: none,
				6: unknown, 7: invalidField, 8: invalidField, 9: invalidField, 10: invalidField, 11: unknown,
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, faults := d.View().Resolve(c.to)
			if !slices.Equal(got, c.want) {
				t.Errorf("codes %v, want %v", got, c.want)
			}
			reasons := map[int]exchangev1.ErrorReason{}
			for _, f := range faults {
				if f.Description == "" {
					t.Errorf("fault %v is not described", f)
				}
				reasons[f.Index] = f.Reason
			}
			if len(faults) != len(c.faults) || !maps.Equal(reasons, c.faults) {
				t.Errorf("faults %v, want %v", faults, c.faults)
			}
		})
	}
}

func TestSpread(t *testing.T) {
	d := small(t)
	must(t, d, &directoryv1.MoveAgency{AgencyCode: "G22", HomeRelayId: "trung"}, &directoryv1.MoveAgency{AgencyCode: "H26.13", HomeRelayId: "trung"})
	got := d.View().Spread(codes("000.00.00.G22", "H26", "H26.13", "H99"))
	want := map[routing.RelayID][]routing.AgencyCode{
		"trung": {"G22", "H26.13"}, routing.RelayID(agency(t, d, "H26").GetHomeRelayId()): {"H26"}, "": {"H99"},
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("Spread = %v, want %v", got, want)
	}
}

func TestAllowed(t *testing.T) {
	put := func(id string, effect directoryv1.Effect, from, to *directoryv1.Selector, kinds ...exchangev1.Kind) proto.Message {
		return &directoryv1.PutRule{Rule: &directoryv1.Rule{Id: id, Effect: effect, From: from, To: to, Kinds: kinds}}
	}
	const allow, deny = directoryv1.Effect_EFFECT_ALLOW, directoryv1.Effect_EFFECT_DENY
	closed := &directoryv1.RemoveRule{Id: routing.AdministrationRule}
	for _, c := range []struct {
		name  string
		rules []proto.Message
		from  routing.AgencyCode
		to    routing.AgencyCode
		kind  exchangev1.Kind
		want  bool
	}{
		{"shipped rules", nil, "G22", "H26.12.05", document, true},
		{"shipped rules, aliases", nil, "000.00.00.G22", "000.00.00.H26", status, true},
		{"unknown sender", nil, "H99", "G22", document, false},
		{"unknown recipient", nil, "G22", "H99", document, false},
		{"no rule", []proto.Message{closed}, "G22", "H26", document, false},
		{"deny wins", []proto.Message{put("a", deny, nil, &directoryv1.Selector{Code: "H26"})}, "G22", "H26", document, false},
		{"deny wins, later id", []proto.Message{put("z", deny, nil, &directoryv1.Selector{Code: "H26"})}, "G22", "H26", document, false},
		{"deny of another", []proto.Message{put("z", deny, nil, &directoryv1.Selector{Code: "H26"})}, "G22", "H01", document, true},
		{"deny of a kind", []proto.Message{put("z", deny, nil, nil, document)}, "G22", "H01", status, true},
		{"deny of that kind", []proto.Message{put("z", deny, nil, nil, document, status)}, "G22", "H01", status, false},
		{"code by alias", []proto.Message{closed, put("a", allow, &directoryv1.Selector{Code: "000.00.00.G22"}, nil)}, "G22", "H01", document, true},
		{"under", []proto.Message{closed, put("a", allow, &directoryv1.Selector{Under: "H26"}, &directoryv1.Selector{Under: "H26"})}, "H26.12.05", "H26", document, true},
		{"not under", []proto.Message{closed, put("a", allow, &directoryv1.Selector{Under: "H26"}, &directoryv1.Selector{Under: "H26"})}, "H26.12.05", "H01", document, false},
		{"tier", []proto.Message{closed, put("a", allow, &directoryv1.Selector{Tier: 1}, &directoryv1.Selector{Tier: 2})}, "G22", "H01", document, true},
		{"other tier", []proto.Message{closed, put("a", allow, &directoryv1.Selector{Tier: 1}, &directoryv1.Selector{Tier: 2})}, "G22", "H26.12", document, false},
		{"every condition", []proto.Message{closed, put("a", allow, nil, &directoryv1.Selector{Under: "H26", Tier: 3})}, "G22", "H26", document, false},
		{"group", []proto.Message{closed, put("a", allow, nil, &directoryv1.Selector{Group: "communes-of/H26"})}, "G22", "H26.12.05", document, true},
		{"a group below an agency is without it", []proto.Message{closed, put("a", allow, nil, &directoryv1.Selector{Group: "districts-of/H26.12"})}, "G22", "H26.12", document, false},
		{"not in the group", []proto.Message{closed, put("a", allow, nil, &directoryv1.Selector{Group: "communes-of/H26"})}, "G22", "H26.12", document, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := small(t)
			must(t, d, c.rules...)
			if got := d.View().Allowed(c.from, c.to, c.kind); got != c.want {
				t.Errorf("Allowed(%s, %s, %v) = %v, want %v", c.from, c.to, c.kind, got, c.want)
			}
		})
	}
}

func TestAgenciesQuery(t *testing.T) {
	d := routing.NewDirectory()
	must(t, d, relay("bac"))
	for _, a := range []struct {
		code, name, parent string
		tier               routing.Tier
	}{
		{"H26", "Ủy ban nhân dân thành phố Hà Nội", "", 2},
		{"H26.12", "Sở Y tế", "H26", 3},
		{"H26.13", "Sở Lao động - Thương binh và Xã hội", "H26", 3},
		{"H17", "Uỷ ban nhân dân thành phố Đà Nẵng", "", 2},
		{"H15", "Tỉnh Đắk Lắk", "", 2},
		{"G18", "Bộ Y tế", "", 1},
		{"G01", "Bộ Công an", "", 1},
	} {
		x := row(a.code, a.tier, a.parent)
		x.Name = a.name
		must(t, d, put(x))
	}
	for _, c := range []struct {
		name  string
		query routing.Query
		want  []routing.AgencyCode
	}{
		{"all, by code", routing.Query{}, codes("G01", "G18", "H15", "H17", "H26", "H26.12", "H26.13")},
		{"code, the rest not used", routing.Query{Code: "000.00.00.H26", Tier: 4}, codes("H26")},
		{"no such code", routing.Query{Code: "H99"}, nil},
		{"under", routing.Query{Under: "H26"}, codes("H26", "H26.12", "H26.13")},
		{"under, by alias, of a tier", routing.Query{Under: "000.00.00.H26", Tier: 3}, codes("H26.12", "H26.13")},
		{"under none", routing.Query{Under: "H99"}, nil},
		{"tier", routing.Query{Tier: 1}, codes("G01", "G18")},
		{"words with diacritics", routing.Query{Search: "Y tế"}, codes("G18", "H26.12")},
		{"words without", routing.Query{Search: "y te"}, codes("G18", "H26.12")},
		{"any order and case", routing.Query{Search: "TE  bo"}, codes("G18")},
		{"đ", routing.Query{Search: "dak"}, codes("H15")},
		{"Đ", routing.Query{Search: "Đà Nẵng"}, codes("H17")},
		{"beginnings of words", routing.Query{Search: "th ph"}, codes("H17", "H26")},
		{"not within words", routing.Query{Search: "ong"}, nil},
		{"signs do not count", routing.Query{Search: "lao-động, thương binh"}, codes("H26.13")},
		{"decomposed", routing.Query{Search: "Ha\u0300 No\u0323\u0302i"}, codes("H26")},
		{"nothing but signs", routing.Query{Search: " - "}, nil},
		{"together", routing.Query{Search: "so", Under: "H26", Tier: 3}, codes("H26.12", "H26.13")},
	} {
		t.Run(c.name, func(t *testing.T) {
			page, next := d.View().Agencies(c.query)
			var got []routing.AgencyCode
			for _, a := range page {
				got = append(got, routing.AgencyCode(a.GetCode()))
			}
			if !slices.Equal(got, c.want) || next != "" {
				t.Errorf("got %v, next %q; want %v", got, next, c.want)
			}
		})
	}
}

func TestAgenciesPages(t *testing.T) {
	d := routing.NewDirectory()
	must(t, d, relay("bac"))
	var rows []*directoryv1.Agency
	for i := range 1203 {
		rows = append(rows, row(fmt.Sprintf("A%d", i), 2, ""))
	}
	must(t, d, &directoryv1.ImportAgencies{Agencies: rows})
	for limit, want := range map[int][]int{0: slices.Repeat([]int{100}, 12), 401: {401, 401, 401}, 5000: {1000, 203}, 1203: {1000, 203}} {
		if limit == 0 {
			want = append(want, 3)
		}
		var sizes []int
		seen := map[string]bool{}
		for after := ""; ; {
			page, next := d.View().Agencies(routing.Query{Limit: limit, After: after})
			sizes = append(sizes, len(page))
			for _, a := range page {
				seen[a.GetCode()] = true
			}
			if next == "" {
				break
			}
			after = next
		}
		if !slices.Equal(sizes, want) || len(seen) != 1203 {
			t.Errorf("limit %d: pages of %v with %d agencies, want %v with 1203", limit, sizes, len(seen), want)
		}
	}
}

func TestTrust(t *testing.T) {
	d := small(t)
	v := d.View()
	must(t, d,
		&directoryv1.RevokeCertificate{Revocation: &directoryv1.Revocation{Serial: []byte{1, 2}, IssuerKeyHash: key(1), Reason: "mất khóa"}},
		&directoryv1.RevokeCertificate{Revocation: &directoryv1.Revocation{Serial: []byte{9}}})
	for _, c := range []struct {
		name   string
		serial []byte
		issuer byte
		want   bool
	}{
		{"revoked", []byte{1, 2}, 1, true},
		{"leading zero", []byte{0, 1, 2}, 1, true},
		{"other issuer", []byte{1, 2}, 2, false},
		{"other serial", []byte{1}, 1, false},
		{"whatever the issuer", []byte{9}, 7, true},
	} {
		if got := d.View().Revoked(c.serial, [32]byte(key(c.issuer))); got != c.want {
			t.Errorf("%s: Revoked = %v, want %v", c.name, got, c.want)
		}
	}
	if v.Revoked([]byte{9}, [32]byte{}) {
		t.Error("an earlier view shows a later revocation")
	}
	list := d.View().Revocations()
	if len(list) != 2 || !list[0].GetAt().AsTime().Equal(commandTime) {
		t.Errorf("revocations %v, want two with the command's time", list)
	}
	must(t, d, &directoryv1.PutGateway{Gateway: &directoryv1.Gateway{Id: "tinh-hn", AgencyCodes: []string{"H26"}, KeyHashes: [][]byte{key(5)}}})
	if kind, name, ok := d.View().Bound([32]byte(key(5))); kind != "gateway" || name != "tinh-hn" || !ok {
		t.Errorf("Bound = %s, %s, %v; want the gateway", kind, name, ok)
	}
	must(t, d, &directoryv1.PutGateway{Gateway: &directoryv1.Gateway{Id: "tinh-hn", AgencyCodes: []string{"H26"}, Suspended: true}})
	if _, _, ok := d.View().Bound([32]byte(key(5))); ok || d.View().SpeaksFor("tinh-hn", "H26") {
		t.Error("a suspended gateway speaks, or its old key is still bound")
	}
	must(t, d, &directoryv1.RemoveGateway{Id: "tinh-hn"})
	if _, ok := d.View().Gateway("tinh-hn"); ok || len(d.View().Gateways()) != 0 {
		t.Error("gateway outlives its removal")
	}
}
