package envelope_test

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

var writeVectors = flag.Bool("write-vectors", false, "write testdata/ids.json anew; existing ids must not change")

// vector is one line of testdata/ids.json, with which programs in other
// languages check their canonical bytes and ids.
type vector struct {
	Name       string          `json:"name"`
	Sender     string          `json:"sender"`
	DocumentID string          `json:"document_id"`
	Header     json.RawMessage `json:"header"`
	Canonical  string          `json:"canonical_hex"`
	ID         string          `json:"id"`
}

func vectorHeaders() map[string]*exchangev1.Header {
	return map[string]*exchangev1.Header{
		"empty":    {},
		"document": good(),
		"status":   goodStatus(),
		"every kind of number": {
			Kind: 1, DocumentId: "số 1", Priority: 4,
			Document:   &exchangev1.Document{Steering: -1, Pages: 300, Direction: proto.Bool(false), ToPlaces: []string{"", "Như trên"}},
			Signatures: []*exchangev1.SignatureBlock{{Part: -1, Format: "pades", Serial: []byte{0, 255}}},
			Parts:      []*exchangev1.Part{{Name: "a.pdf", Size: 1 << 40}},
			NotBefore:  &timestamppb.Timestamp{Seconds: -1, Nanos: 999_999_999},
		},
	}
}

func TestIDVectors(t *testing.T) {
	const file = "testdata/ids.json"
	if *writeVectors {
		var all []vector
		for _, name := range []string{"empty", "document", "status", "every kind of number"} {
			h := vectorHeaders()[name]
			id, canonical, err := envelope.HeaderID(h)
			if err != nil {
				t.Fatal(err)
			}
			text, err := protojson.Marshal(h)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, vector{name, h.GetSender().GetCode(), h.GetDocumentId(), text, hex.EncodeToString(canonical), id.String()})
		}
		b, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		h := new(exchangev1.Header)
		if err := protojson.Unmarshal(v.Header, h); err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if want := vectorHeaders()[v.Name]; !proto.Equal(h, want) {
			t.Errorf("%s: header of the vector is %v, want %v", v.Name, h, want)
		}
		id, canonical, err := envelope.HeaderID(h)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if got := hex.EncodeToString(canonical); got != v.Canonical {
			t.Errorf("%s: canonical bytes %s, want %s", v.Name, got, v.Canonical)
		}
		if id.String() != v.ID {
			t.Errorf("%s: id %s, want %s", v.Name, id, v.ID)
		}
	}
}

func TestIDIsOfSenderDocumentAndContent(t *testing.T) {
	base := envelope.ComputeID("G22", "1", []byte("header"))
	for name, other := range map[string]envelope.ID{
		"sender":   envelope.ComputeID("G23", "1", []byte("header")),
		"document": envelope.ComputeID("G22", "2", []byte("header")),
		"content":  envelope.ComputeID("G22", "1", []byte("Header")),
		"border":   envelope.ComputeID("G2", "21", []byte("header")),
	} {
		if other == base {
			t.Errorf("another %s gives the same id %s", name, base)
		}
	}
	if base[6]>>4 != 8 || base[8]>>6 != 2 {
		t.Errorf("id %s is not of version 8, variant of RFC 9562", base)
	}
	if again, err := envelope.ParseID(base.String()); err != nil || again != base {
		t.Errorf("text form reads back as %s, %v", again, err)
	}
	if again, err := envelope.IDFromBytes(base[:]); err != nil || again != base {
		t.Errorf("wire form reads back as %s, %v", again, err)
	}
	for _, bad := range []string{"", "1", "G22", base.String() + "0"} {
		if _, err := envelope.ParseID(bad); err == nil {
			t.Errorf("id %q: got no error", bad)
		}
	}
	for _, n := range []int{0, 15, 17} {
		if _, err := envelope.IDFromBytes(make([]byte, n)); err == nil {
			t.Errorf("id of %d bytes: got no error", n)
		}
	}
}
