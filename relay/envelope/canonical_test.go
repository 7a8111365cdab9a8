package envelope_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// drawMessage fills any field of m at random.
func drawMessage(t *rapid.T, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !rapid.Bool().Draw(t, string(fd.Name())) || depth > 4 {
			continue
		}
		if fd.IsList() {
			list := m.Mutable(fd).List()
			for range rapid.IntRange(0, 3).Draw(t, "count") {
				if fd.Kind() == protoreflect.MessageKind {
					drawMessage(t, list.AppendMutable().Message(), depth+1)
				} else {
					list.Append(drawScalar(t, fd))
				}
			}
			continue
		}
		if fd.Kind() == protoreflect.MessageKind {
			drawMessage(t, m.Mutable(fd).Message(), depth+1)
			continue
		}
		m.Set(fd, drawScalar(t, fd))
	}
}

func drawScalar(t *rapid.T, fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.String().Draw(t, "text"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "bool"))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32().Draw(t, "enum")))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(t, "int32"))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, "int64"))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, "uint32"))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, "uint64"))
	}
	t.Fatalf("%s: the contract has a new kind of field, %s", fd.FullName(), fd.Kind())
	return protoreflect.Value{}
}

func drawHeader(t *rapid.T) *exchangev1.Header {
	h := new(exchangev1.Header)
	drawMessage(t, h.ProtoReflect(), 0)
	return h
}

// shuffle rewrites an encoded message with its fields in another order, as
// another library might send it: entries of one repeated field keep their
// order, because it has a meaning; and so do unknown fields.
func shuffle(t *rapid.T, b []byte, d protoreflect.MessageDescriptor) []byte {
	byNumber := map[protowire.Number][][]byte{}
	var numbers []protowire.Number
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		m := protowire.ConsumeFieldValue(number, kind, b[n:])
		if n < 0 || m < 0 {
			t.Fatalf("encoded message does not parse")
		}
		field := b[:n+m]
		if fd := d.Fields().ByNumber(number); fd != nil && fd.Kind() == protoreflect.MessageKind {
			inner, _ := protowire.ConsumeBytes(b[n:])
			field = protowire.AppendBytes(protowire.AppendTag(nil, number, kind), shuffle(t, inner, fd.Message()))
		}
		if byNumber[number] == nil {
			numbers = append(numbers, number)
		}
		byNumber[number] = append(byNumber[number], field)
		b = b[n+m:]
	}
	var out []byte
	for _, number := range rapid.Permutation(numbers).Draw(t, "order") {
		out = append(out, bytes.Join(byNumber[number], nil)...)
	}
	return out
}

func TestCanonicalIsOneFormOfEveryEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHeader(t)
		canonical, err := envelope.Canonical(h)
		if err != nil {
			t.Fatalf("canonical: %v", err)
		}
		back, err := envelope.ParseCanonical(canonical)
		if err != nil {
			t.Fatalf("parse canonical: %v", err)
		}
		if !proto.Equal(h, back) {
			t.Fatalf("round trip changed the header:\n%v\n%v", h, back)
		}
		// Today's library agrees; the day it does not, ours must not follow.
		library, err := proto.MarshalOptions{Deterministic: true}.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(library, canonical) {
			t.Fatalf("canonical %x, library %x", canonical, library)
		}
		other := new(exchangev1.Header)
		if err := proto.Unmarshal(shuffle(t, library, h.ProtoReflect().Descriptor()), other); err != nil {
			t.Fatal(err)
		}
		again, err := envelope.Canonical(other)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(canonical, again) {
			t.Fatalf("fields in another order: canonical %x, want %x", again, canonical)
		}
	})
}

func TestCanonicalKeepsUnknownFields(t *testing.T) {
	known, err := envelope.Canonical(&exchangev1.Header{DocumentId: "1", CreatedAt: timestamppb.New(timeZero)})
	if err != nil {
		t.Fatal(err)
	}
	unknown := protowire.AppendString(protowire.AppendTag(nil, 1000, protowire.BytesType), "from a later release")
	h := new(exchangev1.Header)
	if err := proto.Unmarshal(append(append([]byte{}, unknown...), known...), h); err != nil {
		t.Fatal(err)
	}
	got, err := envelope.Canonical(h)
	if err != nil {
		t.Fatal(err)
	}
	if want := append(known, unknown...); !bytes.Equal(got, want) {
		t.Errorf("canonical %x, want the known fields and then the unknown %x", got, want)
	}
}

func TestParseCanonicalRefusesOtherForms(t *testing.T) {
	kind := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)
	id := protowire.AppendString(protowire.AppendTag(nil, 4, protowire.BytesType), "7816/VPCP")
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, c := range map[string]struct {
		b  []byte
		ok bool
	}{
		"canonical":       {join(kind, id), true},
		"empty":           {nil, true},
		"another order":   {join(id, kind), false},
		"a field twice":   {join(kind, kind, id), false},
		"default written": {join(kind, id, protowire.AppendVarint(protowire.AppendTag(nil, 8, protowire.VarintType), 0)), false},
		"long varint":     {join(protowire.AppendTag(nil, 1, protowire.VarintType), []byte{0x81, 0x00}, id), false},
		"cut":             {join(kind, id)[:5], false},
		"not UTF-8":       {protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), []byte{0xff, 0xfe}), false},
	} {
		if _, err := envelope.ParseCanonical(c.b); (err == nil) != c.ok {
			t.Errorf("%s: got error %v, want accepted %v", name, err, c.ok)
		}
	}
	if _, err := envelope.Canonical(&exchangev1.Header{DocumentId: "\xff"}); err == nil {
		t.Error("canonical bytes of text that is not UTF-8: got no error")
	}
}

func FuzzParseCanonical(f *testing.F) {
	h := good()
	seed, err := envelope.Canonical(h)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := envelope.ParseCanonical(b)
		if err != nil {
			return
		}
		id, canonical, err := envelope.HeaderID(h)
		if err != nil || !bytes.Equal(canonical, b) || id.IsZero() {
			t.Errorf("parsed %x, canonical again %x, %v", b, canonical, err)
		}
	})
}

func FuzzCheck(f *testing.F) {
	seed, err := proto.Marshal(good())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		h := new(exchangev1.Header)
		if proto.Unmarshal(b, h) != nil {
			return
		}
		problems, _ := envelope.Check(h, envelope.Limits{})
		for _, p := range problems {
			if p.Field == "" || p.Description == "" || p.Reason == 0 {
				t.Errorf("problem without field, reason or description: %+v", p)
			}
		}
		if _, err := envelope.Canonical(h); err != nil && len(problems) == 0 {
			t.Errorf("accepted, but has no canonical form: %v", err)
		}
	})
}
