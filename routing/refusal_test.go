package routing_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/routing"
)

// changed returns the agency after one change to it.
func changed(a *directoryv1.Agency, change func(*directoryv1.Agency)) *directoryv1.PutAgency {
	change(a)
	return put(a)
}

func numbered(n int, form string) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf(form, i))
	}
	return out
}

// TestRefusals gives commands that break one rule each to a directory that
// holds one of everything; none may change a byte of it.
func TestRefusals(t *testing.T) {
	certificate := []byte("certificate, DER")
	sum := sha256.Sum256(certificate)
	root := func(change func(*directoryv1.TrustRoot)) *directoryv1.PutTrustRoot {
		r := &directoryv1.TrustRoot{Sha256: sum[:], Certificate: certificate, TrustDomain: "truc.test"}
		change(r)
		return &directoryv1.PutTrustRoot{Root: r}
	}
	relayWith := func(change func(*directoryv1.Relay)) *directoryv1.PutRelay {
		r := relay("hue")
		change(r.Relay)
		return r
	}
	rule := func(change func(*directoryv1.Rule)) *directoryv1.PutRule {
		r := &directoryv1.Rule{Id: "r1", Effect: directoryv1.Effect_EFFECT_ALLOW}
		change(r)
		return &directoryv1.PutRule{Rule: r}
	}
	group := func(g *directoryv1.Group) *directoryv1.SetGroup { return &directoryv1.SetGroup{Group: g} }
	gateway := func(g *directoryv1.Gateway) *directoryv1.PutGateway { return &directoryv1.PutGateway{Gateway: g} }
	revoke := func(r *directoryv1.Revocation) *directoryv1.RevokeCertificate {
		return &directoryv1.RevokeCertificate{Revocation: r}
	}
	selectors := func(s ...*directoryv1.Selector) []*directoryv1.Selector { return s }
	long := func(n int) string { return strings.Repeat("ồ", n) }

	d := small(t)
	keyed := row("H02", 2, "")
	keyed.KeyHashes = [][]byte{key(2)}
	must(t, d,
		put(keyed), put(row("H03", 2, "")),
		relay("hue"), relay("vinh"),
		&directoryv1.SetRelayState{RelayId: "vinh", State: directoryv1.RelayState_RELAY_STATE_DRAINING},
		relay("mat"), &directoryv1.RetireRelay{RelayId: "mat", Lost: true},
		gateway(&directoryv1.Gateway{Id: "tinh-hn", AgencyCodes: []string{"H26"}, KeyHashes: [][]byte{key(3)}}),
		group(&directoryv1.Group{Name: "quận", AgencyCodes: []string{"H26.12"}}),
		group(&directoryv1.Group{Name: "ghép", Selectors: selectors(&directoryv1.Selector{Group: "quận"})}),
		group(&directoryv1.Group{Name: "cấm"}),
		rule(func(r *directoryv1.Rule) { r.Id, r.To = "cam", &directoryv1.Selector{Group: "cấm"} }),
		root(func(*directoryv1.TrustRoot) {}))
	version := agency(t, d, "G22").GetVersion()

	for _, c := range []struct {
		name   string
		change proto.Message
		reason exchangev1.ErrorReason
		says   string
	}{
		{"relay missing", &directoryv1.PutRelay{}, invalidField, "relay is missing"},
		{"relay id", relayWith(func(r *directoryv1.Relay) { r.Id = "Huế" }), invalidField, "id"},
		{"relay without region", relayWith(func(r *directoryv1.Relay) { r.Region = "" }), invalidField, "region is missing"},
		{"relay region too long", relayWith(func(r *directoryv1.Relay) { r.Region = long(64) }), invalidField, "1 to 63"},
		{"relay region with control characters", relayWith(func(r *directoryv1.Relay) { r.Region = "Huế\n" }), invalidField, "control"},
		{"relay address without port", relayWith(func(r *directoryv1.Relay) { r.Address = "hue.truc.test" }), invalidField, "address"},
		{"relay address without host", relayWith(func(r *directoryv1.Relay) { r.Address = ":7400" }), invalidField, "address"},
		{"relay address port 0", relayWith(func(r *directoryv1.Relay) { r.Address = "hue:0" }), invalidField, "address"},
		{"relay address port too large", relayWith(func(r *directoryv1.Relay) { r.Address = "hue:65536" }), invalidField, "address"},
		{"relay state unknown", relayWith(func(r *directoryv1.Relay) { r.State = 99 }), invalidField, "state 99"},
		{"all that is wrong at once", relayWith(func(r *directoryv1.Relay) { r.Id, r.Region, r.Address = "", "", "" }), invalidField, "; region is missing; address"},

		{"state of no relay", &directoryv1.SetRelayState{RelayId: "la", State: 1}, notFound, "relay la"},
		{"state of a malformed relay", &directoryv1.SetRelayState{RelayId: "", State: 1}, invalidField, "relay_id"},
		{"state lost", &directoryv1.SetRelayState{RelayId: "bac", State: directoryv1.RelayState_RELAY_STATE_LOST}, invalidField, "retiring"},
		{"state retired", &directoryv1.SetRelayState{RelayId: "bac", State: directoryv1.RelayState_RELAY_STATE_RETIRED}, invalidField, "retiring"},
		{"state unknown", &directoryv1.SetRelayState{RelayId: "bac", State: 77}, invalidField, "active or draining"},
		{"remove a home", &directoryv1.RemoveRelay{RelayId: "bac"}, conflict, "is home of"},
		{"remove no relay", &directoryv1.RemoveRelay{RelayId: "la"}, notFound, "relay la"},
		{"retire an active relay", &directoryv1.RetireRelay{RelayId: "bac"}, conflict, "drain it first"},
		{"retire twice", &directoryv1.RetireRelay{RelayId: "mat", Lost: true}, conflict, "out already"},
		{"retire no relay", &directoryv1.RetireRelay{RelayId: "la", Lost: true}, notFound, "relay la"},

		{"agency missing", &directoryv1.PutAgency{}, invalidField, "agency is missing"},
		{"agency code malformed", put(row("H 1", 2, "")), invalidField, "code"},
		{"agency code too long", put(row(strings.Repeat("1", 65), 2, "")), invalidField, "65 bytes"},
		{"agency without name", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.Name = "" }), invalidField, "name is missing"},
		{"agency name too long", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.Name = long(201) }), invalidField, "201 characters"},
		{"agency name not NFC", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.Name = "Bo\u0323\u0302" }), invalidField, "NFC"},
		{"agency tier 0", put(row("H90", 0, "")), invalidField, "tier"},
		{"agency tier 5", put(row("H90", 5, "")), invalidField, "tier"},
		{"agency parent malformed", put(row("H90", 2, "!")), invalidField, "parent_code"},
		{"agency parent unknown", put(row("H90", 2, "H99")), notFound, "H99 is not in the directory"},
		{"agency its own parent", put(row("H26", 2, "H26")), conflict, "own superior"},
		{"agency its own parent by alias", put(row("H26", 2, "000.00.00.H26")), conflict, "own superior"},
		{"agency new and its own parent", put(row("H90", 2, "H90")), conflict, "own superior"},
		{"agency below itself", put(row("H26", 2, "H26.12.05")), conflict, "is itself below H26"},
		{"agency code is an alias", put(row("000.00.00.H26", 2, "")), conflict, "alias of agency H26"},
		{"alias is a code", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.Aliases = []string{"H26"} }), conflict, "belongs to agency H26"},
		{"alias is an alias", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.Aliases = []string{"000.00.00.H26"} }), conflict, "belongs to agency H26"},
		{"alias is the code", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.Aliases = []string{"H90"} }), invalidField, "twice or is the code"},
		{"alias twice", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.Aliases = []string{"x", "x"} }), invalidField, "twice"},
		{"alias malformed", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.Aliases = []string{"a/b"} }), invalidField, "aliases[0]"},
		{"17 aliases", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.Aliases = numbered(17, "x%d") }), invalidField, "at most 16"},
		{"key hash short", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.KeyHashes = [][]byte{key(1)[:31]} }), invalidField, "31 bytes"},
		{"key hash twice", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.KeyHashes = [][]byte{key(1), key(1)} }), invalidField, "twice"},
		{"key hash of another agency", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.KeyHashes = [][]byte{key(2)} }), conflict, "agency H02"},
		{"key hash of a gateway", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.KeyHashes = [][]byte{key(3)} }), conflict, "gateway tinh-hn"},
		{"17 key hashes", changed(row("H90", 2, ""), func(a *directoryv1.Agency) {
			for i := range 17 {
				a.KeyHashes = append(a.KeyHashes, key(byte(100+i)))
			}
		}), invalidField, "at most 16"},
		{"5 sealing keys", changed(row("H90", 2, ""), func(a *directoryv1.Agency) {
			a.SealingKeys = slices.Repeat([]*directoryv1.AgencyKey{{Suite: "s", PublicKey: []byte{1}}}, 5)
		}), invalidField, "at most 4"},
		{"sealing key without suite", changed(row("H90", 2, ""), func(a *directoryv1.Agency) {
			a.SealingKeys = []*directoryv1.AgencyKey{{PublicKey: []byte{1}}}
		}), invalidField, "suite is missing"},
		{"sealing key too large", changed(row("H90", 2, ""), func(a *directoryv1.Agency) {
			a.SealingKeys = []*directoryv1.AgencyKey{{Suite: "s", PublicKey: make([]byte, 2049)}}
		}), invalidField, "2049 bytes"},
		{"home unknown", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.HomeRelayId = "la" }), notFound, "home relay la"},
		{"home draining", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.HomeRelayId = "vinh" }), conflict, "not active"},
		{"home lost", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.HomeRelayId = "mat" }), conflict, "not active"},
		{"standby unknown", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.StandbyRelayId = "la" }), notFound, "standby relay la"},
		{"standby is home", changed(row("H90", 2, ""), func(a *directoryv1.Agency) { a.HomeRelayId, a.StandbyRelayId = "bac", "bac" }), conflict, "is its home"},
		{"version differs", &directoryv1.PutAgency{Agency: row("G22", 1, ""), IfVersion: version + 1}, conflict, fmt.Sprintf("has version %d", version)},
		{"version of none", &directoryv1.PutAgency{Agency: row("H90", 1, ""), IfVersion: 1}, notFound, "H90"},
		{"exists", &directoryv1.PutAgency{Agency: row("G22", 1, ""), CreateOnly: true}, conflict, "already"},
		{"move none", &directoryv1.MoveAgency{AgencyCode: "H99", HomeRelayId: "bac"}, notFound, "H99"},
		{"move malformed", &directoryv1.MoveAgency{AgencyCode: "", HomeRelayId: "bac"}, invalidField, "agency_code"},
		{"move nowhere", &directoryv1.MoveAgency{AgencyCode: "G22"}, invalidField, "home_relay_id"},
		{"move to no relay", &directoryv1.MoveAgency{AgencyCode: "G22", HomeRelayId: "la"}, notFound, "relay la"},
		{"move to a draining relay", &directoryv1.MoveAgency{AgencyCode: "G22", HomeRelayId: "vinh"}, conflict, "not active"},
		{"move with standby at home", &directoryv1.MoveAgency{AgencyCode: "G22", HomeRelayId: "nam", StandbyRelayId: "nam"}, conflict, "home"},
		{"suspend none", &directoryv1.SuspendAgency{AgencyCode: "H99", Suspended: true}, notFound, "H99"},
		{"remove none", &directoryv1.RemoveAgency{AgencyCode: "H99"}, notFound, "H99"},
		{"remove with others below", &directoryv1.RemoveAgency{AgencyCode: "H26"}, conflict, "below H26, H26.12"},
		{"import of nothing", &directoryv1.ImportAgencies{}, invalidField, "missing"},
		{"staged import of nothing", &directoryv1.ImportAgencies{Staging: "a"}, invalidField, "missing"},
		{"staging name too long", &directoryv1.ImportAgencies{Staging: long(129), Agencies: []*directoryv1.Agency{row("H90", 2, "")}}, invalidField, "staging"},

		{"group missing", &directoryv1.SetGroup{}, invalidField, "group is missing"},
		{"group without name", group(&directoryv1.Group{}), invalidField, "name is missing"},
		{"group name with @", group(&directoryv1.Group{Name: "@a"}), invalidField, "without"},
		{"group name with space", group(&directoryv1.Group{Name: "a b"}), invalidField, "without"},
		{"group name too long", group(&directoryv1.Group{Name: long(129)}), invalidField, "129"},
		{"group built in", group(&directoryv1.Group{Name: "provinces"}), invalidField, "built-in"},
		{"group built in, of one", group(&directoryv1.Group{Name: "communes-of/H26"}), invalidField, "built-in"},
		{"group member unknown", group(&directoryv1.Group{Name: "a", AgencyCodes: []string{"H99"}}), notFound, "H99"},
		{"group member malformed", group(&directoryv1.Group{Name: "a", AgencyCodes: []string{""}}), invalidField, "agency_codes[0]"},
		{"group member twice", group(&directoryv1.Group{Name: "a", AgencyCodes: []string{"H26", "000.00.00.H26"}}), invalidField, "H26 stands twice"},
		{"group selector tier", group(&directoryv1.Group{Name: "a", Selectors: selectors(&directoryv1.Selector{Tier: 5})}), invalidField, "selectors[0].tier"},
		{"group selector code", group(&directoryv1.Group{Name: "a", Selectors: selectors(&directoryv1.Selector{Code: "H99"})}), notFound, "H99"},
		{"group selector under", group(&directoryv1.Group{Name: "a", Selectors: selectors(&directoryv1.Selector{Under: "?"})}), invalidField, "under"},
		{"group selector group", group(&directoryv1.Group{Name: "a", Selectors: selectors(&directoryv1.Selector{Group: "b"})}), notFound, "group b"},
		{"group selector built in of none", group(&directoryv1.Group{Name: "a", Selectors: selectors(&directoryv1.Selector{Group: "communes-of/H99"})}), notFound, "communes-of/H99"},
		{"remove no group", &directoryv1.RemoveGroup{Name: "a"}, notFound, "group"},
		{"remove a group that a rule names", &directoryv1.RemoveGroup{Name: "cấm"}, conflict, "rule cam"},
		{"remove a group that a group names", &directoryv1.RemoveGroup{Name: "quận"}, conflict, "group ghép"},

		{"rule missing", &directoryv1.PutRule{}, invalidField, "rule is missing"},
		{"rule id", rule(func(r *directoryv1.Rule) { r.Id = "R.1" }), invalidField, "id"},
		{"rule without effect", rule(func(r *directoryv1.Rule) { r.Effect = 0 }), invalidField, "effect"},
		{"rule with another effect", rule(func(r *directoryv1.Rule) { r.Effect = 3 }), invalidField, "effect"},
		{"rule kind unspecified", rule(func(r *directoryv1.Rule) { r.Kinds = []exchangev1.Kind{0} }), invalidField, "kinds[0]"},
		{"rule kind twice", rule(func(r *directoryv1.Rule) { r.Kinds = []exchangev1.Kind{1, 1} }), invalidField, "twice"},
		{"rule note too long", rule(func(r *directoryv1.Rule) { r.Note = long(501) }), invalidField, "note"},
		{"rule sender unknown", rule(func(r *directoryv1.Rule) { r.From = &directoryv1.Selector{Code: "H99"} }), notFound, "from"},
		{"rule recipient group unknown", rule(func(r *directoryv1.Rule) { r.To = &directoryv1.Selector{Group: "x"} }), notFound, "to"},
		{"remove no rule", &directoryv1.RemoveRule{Id: "r9"}, notFound, "rule"},

		{"gateway missing", &directoryv1.PutGateway{}, invalidField, "gateway is missing"},
		{"gateway id", gateway(&directoryv1.Gateway{Id: "A_b"}), invalidField, "id"},
		{"gateway agency unknown", gateway(&directoryv1.Gateway{Id: "a", AgencyCodes: []string{"H99"}}), notFound, "H99"},
		{"gateway 20,001 agencies", gateway(&directoryv1.Gateway{Id: "a", AgencyCodes: numbered(20_001, "a%d")}), invalidField, "at most 20000"},
		{"gateway key of an agency", gateway(&directoryv1.Gateway{Id: "a", KeyHashes: [][]byte{key(2)}}), conflict, "agency H02"},
		{"gateway key short", gateway(&directoryv1.Gateway{Id: "a", KeyHashes: [][]byte{{1}}}), invalidField, "key_hashes[0]"},
		{"remove no gateway", &directoryv1.RemoveGateway{Id: "a"}, notFound, "gateway"},

		{"root missing", &directoryv1.PutTrustRoot{}, invalidField, "root is missing"},
		{"root hash wrong", root(func(r *directoryv1.TrustRoot) { r.Sha256 = key(1) }), invalidField, "not that of the certificate"},
		{"root hash short", root(func(r *directoryv1.TrustRoot) { r.Sha256 = nil }), invalidField, "sha256"},
		{"root without domain", root(func(r *directoryv1.TrustRoot) { r.TrustDomain = "" }), invalidField, "trust_domain"},
		{"root without certificate", root(func(r *directoryv1.TrustRoot) { r.Certificate = nil }), invalidField, "certificate"},
		{"remove no root", &directoryv1.RemoveTrustRoot{Sha256: key(1)}, notFound, "authority"},
		{"remove a malformed root", &directoryv1.RemoveTrustRoot{Sha256: []byte{1}}, invalidField, "sha256"},
		{"revocation missing", &directoryv1.RevokeCertificate{}, invalidField, "revocation is missing"},
		{"revoke no serial", revoke(&directoryv1.Revocation{}), invalidField, "serial"},
		{"revoke serial with leading zero", revoke(&directoryv1.Revocation{Serial: []byte{0, 1}}), invalidField, "zero"},
		{"revoke serial too long", revoke(&directoryv1.Revocation{Serial: bytes.Repeat([]byte{1}, 21)}), invalidField, "21 bytes"},
		{"revoke issuer short", revoke(&directoryv1.Revocation{Serial: []byte{1}, IssuerKeyHash: []byte{1}}), invalidField, "issuer_key_hash"},
		{"revoke reason too long", revoke(&directoryv1.Revocation{Serial: []byte{1}, Reason: long(501)}), invalidField, "reason"},
		{"revoke at no time", revoke(&directoryv1.Revocation{Serial: []byte{1}, At: &timestamppb.Timestamp{Nanos: -1}}), invalidField, "at"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, changed, versionBefore := snapshotOf(t, d), d.Changed(), d.View().Version()
			result := try(t, d, c.change)
			if result.GetReason() != c.reason || !strings.Contains(result.GetMessage(), c.says) {
				t.Errorf("got %v: %q; want %v with %q", result.GetReason(), result.GetMessage(), c.reason, c.says)
			}
			if result.GetVersion() != versionBefore || result.GetAgencies() != 0 {
				t.Errorf("result %v, want version %d and no agencies", result, versionBefore)
			}
			if !bytes.Equal(before, snapshotOf(t, d)) {
				t.Error("the directory changed")
			}
			select {
			case <-changed:
				t.Error("a change was announced")
			default:
			}
		})
	}
}

func TestApplyStopsAtWhatItDoesNotKnow(t *testing.T) {
	good := command(relay("hue"))
	newer := proto.CloneOf(good)
	newer.Version = 2
	unversioned := proto.CloneOf(good)
	unversioned.Version = 0
	// A change of a later release: field 99, an empty message.
	unknown := append(marshal(t, &directoryv1.Command{Version: 1}), 0x9a, 0x06, 0x00)
	for _, c := range []struct {
		name    string
		command []byte
	}{
		{"newer version", marshal(t, newer)},
		{"no version", marshal(t, unversioned)},
		{"no change", marshal(t, &directoryv1.Command{Version: 1})},
		{"unknown change", unknown},
		{"nothing", nil},
		{"no protobuf", []byte{0xff, 0xff}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := small(t)
			before := snapshotOf(t, d)
			if result, err := d.Apply(c.command); err == nil || result != nil {
				t.Errorf("Apply = %x, %v; want an error", result, err)
			}
			if routing.CheckCommand(c.command) == nil {
				t.Error("CheckCommand lets it pass")
			}
			if !bytes.Equal(before, snapshotOf(t, d)) {
				t.Error("the directory changed")
			}
		})
	}
	if err := routing.CheckCommand(marshal(t, good)); err != nil {
		t.Errorf("CheckCommand of a good command: %v", err)
	}
	bad := command(relay("hue"))
	bad.At = &timestamppb.Timestamp{Nanos: -1}
	answer, err := small(t).Apply(marshal(t, bad))
	result := new(directoryv1.CommandResult)
	if proto.Unmarshal(answer, result); err != nil || result.GetReason() != invalidField {
		t.Errorf("command without a valid time: %v, %v; want refused", result, err)
	}
}
