package routing_test

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/routing"
)

// oneOfEach holds one command of every kind, all accepted by full.
func oneOfEach() []proto.Message {
	certificate := []byte("another")
	sum := sha256.Sum256(certificate)
	agency := row("H26.14", 3, "H26")
	agency.Aliases, agency.KeyHashes = []string{"cu"}, [][]byte{key(9)}
	agency.SealingKeys = []*directoryv1.AgencyKey{{Suite: "s", PublicKey: []byte{1}}}
	return []proto.Message{
		relay("hue"), &directoryv1.SetRelayState{RelayId: "nam", State: draining}, &directoryv1.RemoveRelay{RelayId: "hue"},
		put(agency), &directoryv1.MoveAgency{AgencyCode: "G22", HomeRelayId: "trung"},
		&directoryv1.SuspendAgency{AgencyCode: "G22", Suspended: true}, &directoryv1.RemoveAgency{AgencyCode: "H26.13"},
		&directoryv1.ImportAgencies{Agencies: []*directoryv1.Agency{row("H50", 2, ""), row("H50.01", 3, "H50")}},
		&directoryv1.ImportAgencies{Agencies: []*directoryv1.Agency{row("H51", 2, "")}, Staging: "t10", Last: true},
		&directoryv1.ImportAgencies{Agencies: []*directoryv1.Agency{row("H52", 2, "")}, Staging: "t11"},
		&directoryv1.DiscardImport{Staging: "t11"},
		&directoryv1.SetGroup{Group: &directoryv1.Group{Name: "a", AgencyCodes: []string{"G22"}, Selectors: []*directoryv1.Selector{{Group: "a"}, {Under: "H26", Tier: 3}}}},
		&directoryv1.RemoveGroup{Name: "a"},
		&directoryv1.PutRule{Rule: &directoryv1.Rule{Id: "r", Effect: 2, From: &directoryv1.Selector{Code: "G22"}, To: &directoryv1.Selector{Group: "communes-of/H26"}, Kinds: []exchangev1.Kind{document}}},
		&directoryv1.RemoveRule{Id: "administration"},
		&directoryv1.PutGateway{Gateway: &directoryv1.Gateway{Id: "g.1", AgencyCodes: []string{"G22"}, KeyHashes: [][]byte{key(8)}}},
		&directoryv1.RemoveGateway{Id: "tinh-hn"},
		&directoryv1.PutTrustRoot{Root: &directoryv1.TrustRoot{Sha256: sum[:], Certificate: certificate, TrustDomain: "truc.test"}},
		&directoryv1.RemoveTrustRoot{Sha256: sum[:]},
		&directoryv1.RevokeCertificate{Revocation: &directoryv1.Revocation{Serial: []byte{7}, Reason: "x"}},
		&directoryv1.RetireRelay{RelayId: "bac", Lost: true},
	}
}

func TestEveryCommandIsCovered(t *testing.T) {
	kinds := map[string]bool{}
	d := full(t)
	for i, change := range oneOfEach() {
		must(t, d, change)
		kinds[string(change.ProtoReflect().Descriptor().Name())] = true
		if i == 2 {
			must(t, d, relay("hue"))
		}
	}
	fields := new(directoryv1.Command).ProtoReflect().Descriptor().Oneofs().ByName("change").Fields()
	for i := range fields.Len() {
		if name := string(fields.Get(i).Message().Name()); !kinds[name] {
			t.Errorf("no command %s among the examples", name)
		}
	}
}

// FuzzApply gives any bytes, as a command, to two directories that are alike:
// neither may panic, and they must stay alike.
func FuzzApply(f *testing.F) {
	for _, change := range oneOfEach() {
		f.Add(marshal(f, command(change)))
	}
	f.Add([]byte{})
	f.Add([]byte{0x08, 0x02})
	f.Fuzz(func(t *testing.T, data []byte) {
		d, twin := full(t), full(t)
		before := snapshotOf(t, d)
		result, err := d.Apply(data)
		again, errAgain := twin.Apply(data)
		if !bytes.Equal(result, again) || (err == nil) != (errAgain == nil) {
			t.Fatalf("two answers: %x, %v and %x, %v", result, err, again, errAgain)
		}
		if (routing.CheckCommand(data) == nil) != (err == nil) {
			t.Fatalf("CheckCommand says %v, Apply %v", routing.CheckCommand(data), err)
		}
		after := snapshotOf(t, d)
		if !bytes.Equal(after, snapshotOf(t, twin)) {
			t.Fatal("two snapshots")
		}
		answer := new(directoryv1.CommandResult)
		if err := proto.Unmarshal(result, answer); err != nil {
			t.Fatalf("result: %v", err)
		}
		version := full(t).View().Version()
		switch {
		case err != nil || answer.GetReason() != applied && answer.GetMessage() != "":
			// A last part that is refused drops what was staged, nothing else.
			var c directoryv1.Command
			dropped := proto.Unmarshal(data, &c) == nil && c.GetImportAgencies().GetStaging() == "t10"
			if !bytes.Equal(before, after) && !dropped {
				t.Fatalf("refused with %v, and changed", answer)
			}
		case answer.GetReason() != applied || answer.GetVersion() != version+1:
			t.Fatalf("answer %v after version %d", answer, version)
		}
		if err := twin.Restore(bytes.NewReader(after)); err != nil {
			t.Fatalf("restore of what a command led to: %v", err)
		}
		if !bytes.Equal(snapshotOf(t, twin), after) {
			t.Fatal("the copy differs")
		}
	})
}

// FuzzRestore gives any bytes as a snapshot, and as the records of one whose
// count and hash are right. What is taken must work like any directory.
func FuzzRestore(f *testing.F) {
	good := snapshotOf(f, full(f))
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte{})
	whole := records(good)
	for i := range whole {
		f.Add(seal(f, append(whole[:i:i], whole[i+1:]...)...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := small(t)
		before := snapshotOf(t, d)
		if err := d.Restore(bytes.NewReader(data)); err != nil {
			if !bytes.Equal(snapshotOf(t, d), before) {
				t.Fatal("a refused restore changed the directory")
			}
			if err := d.Restore(bytes.NewReader(seal(t, records(data)...))); err != nil {
				return
			}
		}
		taken := snapshotOf(t, d)
		copied := routing.NewDirectory()
		if err := copied.Restore(bytes.NewReader(taken)); err != nil {
			t.Fatalf("restore of the snapshot of what was restored: %v", err)
		}
		for _, change := range oneOfEach() {
			if a, b := try(t, d, change), try(t, copied, change); !proto.Equal(a, b) {
				t.Fatalf("%T: %v and %v", change, a, b)
			}
			d.View().Resolve(recipients(toGroup("a"), toGroup("communes-of/H26")))
			d.View().Allowed("G22", "H26.12.05", document)
		}
		if !bytes.Equal(snapshotOf(t, d), snapshotOf(t, copied)) {
			t.Fatal("directory and copy diverge")
		}
	})
}
