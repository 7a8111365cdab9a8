package routing_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/routing"
)

// full holds a row of every table.
func full(t fataler) *routing.Directory {
	t.Helper()
	certificate := []byte("certificate, DER")
	sum := sha256.Sum256(certificate)
	d := small(t)
	a := row("H02", 2, "")
	a.Aliases, a.KeyHashes = []string{"H02-cu"}, [][]byte{key(2)}
	a.SealingKeys = []*directoryv1.AgencyKey{{Suite: "hpke-x25519-sha256-aes256gcm", PublicKey: key(4)}}
	must(t, d,
		put(a), &directoryv1.SuspendAgency{AgencyCode: "H01", Suspended: true},
		&directoryv1.PutGateway{Gateway: &directoryv1.Gateway{Id: "tinh-hn", AgencyCodes: []string{"H26.12", "H26"}, KeyHashes: [][]byte{key(3)}}},
		&directoryv1.SetGroup{Group: &directoryv1.Group{Name: "quận", AgencyCodes: []string{"H26.13", "H26.12"}, Selectors: []*directoryv1.Selector{{Tier: 3}}}},
		&directoryv1.PutRule{Rule: &directoryv1.Rule{Id: "cam", Effect: directoryv1.Effect_EFFECT_DENY, To: &directoryv1.Selector{Group: "quận"}}},
		&directoryv1.PutTrustRoot{Root: &directoryv1.TrustRoot{Sha256: sum[:], Certificate: certificate, Outside: true}},
		&directoryv1.RevokeCertificate{Revocation: &directoryv1.Revocation{Serial: []byte{1, 0}, IssuerKeyHash: key(1)}},
		&directoryv1.RevokeCertificate{Revocation: &directoryv1.Revocation{Serial: []byte{1}}},
		&directoryv1.ImportAgencies{Staging: "t10", Agencies: []*directoryv1.Agency{row("H77", 2, "")}})
	return d
}

func TestSnapshotRestore(t *testing.T) {
	d := full(t)
	before := snapshotOf(t, d)
	copied := routing.NewDirectory()
	changed := copied.Changed()
	if err := copied.Restore(bytes.NewReader(before)); err != nil {
		t.Fatalf("restore: %v", err)
	}
	select {
	case <-changed:
	default:
		t.Error("a restore was not announced")
	}
	if !bytes.Equal(snapshotOf(t, copied), before) {
		t.Error("the copy's snapshot differs")
	}
	v := copied.View()
	if v.Version() != d.View().Version() || v.AgencyCount() != d.View().AgencyCount() || v.Homes("bac") != d.View().Homes("bac") {
		t.Errorf("copy has version %d, %d agencies, %d at home on bac", v.Version(), v.AgencyCount(), v.Homes("bac"))
	}
	if _, _, ok := v.Bound([32]byte(key(2))); !ok {
		t.Error("the copy does not know a bound key")
	}
	// Both go on alike.
	for _, d := range []*routing.Directory{d, copied} {
		must(t, d, put(row("H03", 2, "")), &directoryv1.ImportAgencies{Staging: "t10", Last: true, Agencies: []*directoryv1.Agency{row("H78", 2, "")}},
			&directoryv1.RetireRelay{RelayId: "bac", Lost: true})
	}
	if !bytes.Equal(snapshotOf(t, d), snapshotOf(t, copied)) {
		t.Error("directory and copy diverge after the same commands")
	}
}

func TestSnapshotIsOfItsMoment(t *testing.T) {
	d := full(t)
	want := snapshotOf(t, d)
	s, err := d.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	out, in := io.Pipe()
	var got []byte
	var writing sync.WaitGroup
	writing.Go(func() {
		_, err := s.WriteTo(in)
		in.CloseWithError(err)
	})
	first := make([]byte, 1)
	if _, err := io.ReadFull(out, first); err != nil {
		t.Fatal(err)
	}
	must(t, d, put(row("H80", 2, "")), &directoryv1.RemoveAgency{AgencyCode: "G22"}) // while it is being written
	rest, err := io.ReadAll(out)
	writing.Wait()
	if got = append(first, rest...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("snapshot shows what came after it, error %v", err)
	}
}

func TestRestoreRefusesDamage(t *testing.T) {
	good := snapshotOf(t, full(t))
	d := small(t)
	before := snapshotOf(t, d)
	refused := func(what string, at int, snapshot []byte) {
		if err := d.Restore(bytes.NewReader(snapshot)); err == nil {
			t.Fatalf("snapshot with %s at byte %d was restored", what, at)
		}
	}
	for i := range good {
		refused("its end cut off", i, good[:i])
		flipped := bytes.Clone(good)
		flipped[i] ^= 1
		refused("a flipped bit", i, flipped)
	}
	refused("a byte more", len(good), append(bytes.Clone(good), 0))
	if !bytes.Equal(snapshotOf(t, d), before) {
		t.Error("a refused restore changed the directory")
	}
	failing := io.MultiReader(bytes.NewReader(good[:50]), errReader{})
	if err := d.Restore(failing); !errors.Is(err, errRead) {
		t.Errorf("restore from a failing reader: %v, want its error", err)
	}
}

var errRead = errors.New("read failed")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errRead }

// seal writes records as a snapshot with the right count and hash.
func seal(t fataler, records ...*directoryv1.SnapshotRecord) []byte {
	var out []byte
	add := func(r *directoryv1.SnapshotRecord) {
		b := marshal(t, r)
		out = append(binary.AppendUvarint(out, uint64(len(b))), b...)
	}
	for _, r := range records {
		add(r)
	}
	sum := sha256.Sum256(out)
	add(&directoryv1.SnapshotRecord{Record: &directoryv1.SnapshotRecord_End{
		End: &directoryv1.SnapshotEnd{Records: uint64(len(records)), Sha256: sum[:]}}})
	return out
}

// records takes records off the front of a snapshot as long as they parse,
// without its end.
func records(snapshot []byte) (list []*directoryv1.SnapshotRecord) {
	for {
		size, n := binary.Uvarint(snapshot)
		r := new(directoryv1.SnapshotRecord)
		if n <= 0 || uint64(len(snapshot)-n) < size || proto.Unmarshal(snapshot[n:n+int(size)], r) != nil {
			return list
		}
		if r.GetEnd() == nil {
			list = append(list, r)
		}
		snapshot = snapshot[n+int(size):]
	}
}

// TestRestoreRefusesBrokenInvariants gives snapshots whose count and hash are
// right, but whose content no sequence of commands leads to.
func TestRestoreRefusesBrokenInvariants(t *testing.T) {
	good := records(snapshotOf(t, full(t)))
	if err := small(t).Restore(bytes.NewReader(seal(t, good...))); err != nil {
		t.Fatalf("the snapshot itself: %v", err)
	}
	at := func(list []*directoryv1.SnapshotRecord, code string) int {
		return slices.IndexFunc(list, func(r *directoryv1.SnapshotRecord) bool { return r.GetAgency().GetCode() == code })
	}
	for _, c := range []struct {
		name  string
		spoil func([]*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord
	}{
		{"nothing", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord { return nil }},
		{"no header", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord { return r[1:] }},
		{"two headers", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord { return slices.Insert(r, 1, r[0]) }},
		{"other format", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			r[0].GetHeader().Format = 2
			return r
		}},
		{"unknown record", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			return append(r, &directoryv1.SnapshotRecord{})
		}},
		{"twice", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord { return slices.Insert(r, 1, r[1]) }},
		{"out of order", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord { r[1], r[2] = r[2], r[1]; return r }},
		{"tables out of order", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord { return append(r, r[1]) }},
		{"without relays", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			return slices.DeleteFunc(r, func(r *directoryv1.SnapshotRecord) bool { return r.GetRelay() != nil })
		}},
		{"home lost", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			r[1].GetRelay().State = lost
			return r
		}},
		{"standby at home", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			a := r[at(r, "G22")].GetAgency()
			a.StandbyRelayId = a.HomeRelayId
			return r
		}},
		{"superior missing", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			return slices.Delete(r, at(r, "H26.12"), at(r, "H26.12")+1)
		}},
		{"superior by alias", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			r[at(r, "H26.12")].GetAgency().ParentCode = "000.00.00.H26"
			return r
		}},
		{"circle of superiors", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			r[at(r, "H26")].GetAgency().ParentCode = "H26.12.05"
			return r
		}},
		{"alias of two", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			r[at(r, "H01")].GetAgency().Aliases = []string{"000.00.00.H26"}
			return r
		}},
		{"alias is a code", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			r[at(r, "G22")].GetAgency().Aliases = []string{"H26"}
			return r
		}},
		{"key of two", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			r[at(r, "H01")].GetAgency().KeyHashes = [][]byte{key(3)}
			return r
		}},
		{"malformed agency", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			r[at(r, "H01")].GetAgency().KeyHashes = [][]byte{{1}}
			return r
		}},
		{"group member missing", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			return slices.Delete(r, at(r, "H26.13"), at(r, "H26.13")+1)
		}},
		{"staged without name", func(r []*directoryv1.SnapshotRecord) []*directoryv1.SnapshotRecord {
			r[len(r)-1].GetStaged().Staging = ""
			return r
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var list []*directoryv1.SnapshotRecord
			for _, r := range good {
				list = append(list, proto.CloneOf(r))
			}
			d := small(t)
			before := snapshotOf(t, d)
			if err := d.Restore(bytes.NewReader(seal(t, c.spoil(list)...))); err == nil {
				t.Error("restored")
			}
			if !bytes.Equal(snapshotOf(t, d), before) {
				t.Error("a refused restore changed the directory")
			}
		})
	}
}

func TestViewStaysAndChangeIsAnnounced(t *testing.T) {
	d := small(t)
	changed, v := d.Changed(), d.View()
	must(t, d, &directoryv1.SuspendAgency{AgencyCode: "G22", Suspended: true}, put(row("H03", 2, "")))
	select {
	case <-changed:
	default:
		t.Error("the change was not announced")
	}
	if a, _ := v.Agency("G22"); a.GetSuspended() || v.AgencyCount() != 6 {
		t.Error("a view changed")
	}
	if _, ok := v.Agency("H03"); ok {
		t.Error("a view shows what came after it")
	}
	if !agency(t, d, "G22").GetSuspended() || d.View().Version() != v.Version()+2 {
		t.Error("a new view does not show the change")
	}
}

func TestViewsWhileApplying(t *testing.T) {
	d := small(t)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for last := uint64(0); ; {
				select {
				case <-done:
					return
				default:
				}
				v := d.View()
				if v.Version() < last {
					t.Errorf("version went back from %d to %d", last, v.Version())
				}
				last = v.Version()
				got, _ := v.Resolve(recipients(toGroup("provinces")))
				if uint64(len(got))+4 != v.AgencyCount() {
					t.Errorf("view of version %d: %d provinces of %d agencies", last, len(got), v.AgencyCount())
				}
			}
		})
	}
	for range 600 { // beyond what the index keeps aside
		must(t, d, put(row("H90", 2, "")), &directoryv1.RemoveAgency{AgencyCode: "H90"})
	}
	close(done)
	readers.Wait()
}

// TestLookupsAfterManySmallChanges goes through the index that views read:
// changes pile up beside it and are then taken in.
func TestLookupsAfterManySmallChanges(t *testing.T) {
	d := routing.NewDirectory()
	must(t, d, relay("bac"))
	want := map[routing.AgencyCode]bool{}
	for i := range 1500 {
		code := fmt.Sprintf("A%d", i)
		must(t, d, put(row(code, 2, "")))
		want[routing.AgencyCode(code)] = true
		if i%3 == 0 { // of the latest, and of those taken in long ago
			code = fmt.Sprintf("A%d", i/2)
			if want[routing.AgencyCode(code)] {
				must(t, d, &directoryv1.RemoveAgency{AgencyCode: code})
				want[routing.AgencyCode(code)] = false
			}
		}
	}
	v := d.View()
	for code, there := range want {
		if _, ok := v.Agency(code); ok != there {
			t.Errorf("%s known: %v, want %v", code, ok, there)
		}
	}
	page, _ := v.Agencies(routing.Query{Limit: 1000})
	for _, a := range page {
		if got, ok := v.Agency(routing.AgencyCode(a.GetCode())); !ok || got != a {
			t.Errorf("%s: the row and the index differ", a.GetCode())
		}
	}
}
