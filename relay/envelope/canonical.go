package envelope

import (
	"cmp"
	"fmt"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// maxDepth bounds the nesting of messages in a header; the contract nests five
// deep.
const maxDepth = 16

// Canonical returns the canonical bytes of a header: the protobuf encoding with
// fields in ascending order of number, each set field exactly once (repeated
// fields in their order, repeated numbers packed), defaults of fields without
// presence left out, and fields unknown to this program after the known ones of
// their message, in the order received. Two headers with the same values have
// the same canonical bytes, whichever library and language encoded them.
//
// The canonical form is ours to keep stable: protobuf promises determinism only
// within one build of one library.
func Canonical(h *exchangev1.Header) ([]byte, error) {
	if h == nil {
		return nil, fmt.Errorf("header is missing")
	}
	return appendMessage(nil, h.ProtoReflect(), 0)
}

// ParseCanonical reads a header and proves that the bytes are canonical.
func ParseCanonical(b []byte) (*exchangev1.Header, error) {
	h := new(exchangev1.Header)
	if err := proto.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	again, err := Canonical(h)
	if err != nil {
		return nil, err
	}
	if string(again) != string(b) {
		return nil, fmt.Errorf("header is not in canonical form")
	}
	return h, nil
}

func appendMessage(b []byte, m protoreflect.Message, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("header nests deeper than %d messages", maxDepth)
	}
	var fields []protoreflect.FieldDescriptor
	m.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		fields = append(fields, fd)
		return true
	})
	slices.SortFunc(fields, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Number(), b.Number()) })
	var err error
	for _, fd := range fields {
		v := m.Get(fd)
		switch {
		case fd.IsMap():
			return nil, fmt.Errorf("%s: maps have no canonical form", fd.FullName())
		case fd.IsList() && fd.IsPacked():
			var packed []byte
			for i := range v.List().Len() {
				if packed, err = appendScalar(packed, fd, v.List().Get(i)); err != nil {
					return nil, err
				}
			}
			b = protowire.AppendTag(b, fd.Number(), protowire.BytesType)
			b = protowire.AppendBytes(b, packed)
		case fd.IsList():
			for i := range v.List().Len() {
				if b, err = appendField(b, fd, v.List().Get(i), depth); err != nil {
					return nil, err
				}
			}
		default:
			if b, err = appendField(b, fd, v, depth); err != nil {
				return nil, err
			}
		}
	}
	return append(b, m.GetUnknown()...), nil
}

func appendField(b []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value, depth int) ([]byte, error) {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		inner, err := appendMessage(nil, v.Message(), depth+1)
		if err != nil {
			return nil, err
		}
		b = protowire.AppendTag(b, fd.Number(), protowire.BytesType)
		return protowire.AppendBytes(b, inner), nil
	case protoreflect.StringKind:
		// Libraries that are strict could not read it back.
		if !utf8.ValidString(v.String()) {
			return nil, fmt.Errorf("%s: not valid UTF-8", fd.FullName())
		}
		b = protowire.AppendTag(b, fd.Number(), protowire.BytesType)
		return protowire.AppendString(b, v.String()), nil
	case protoreflect.BytesKind:
		b = protowire.AppendTag(b, fd.Number(), protowire.BytesType)
		return protowire.AppendBytes(b, v.Bytes()), nil
	}
	b = protowire.AppendTag(b, fd.Number(), protowire.VarintType)
	return appendScalar(b, fd, v)
}

// appendScalar covers the number kinds that the contract uses.
func appendScalar(b []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) ([]byte, error) {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protowire.AppendVarint(b, protowire.EncodeBool(v.Bool())), nil
	case protoreflect.EnumKind:
		return protowire.AppendVarint(b, uint64(int64(v.Enum()))), nil
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return protowire.AppendVarint(b, uint64(v.Int())), nil
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return protowire.AppendVarint(b, v.Uint()), nil
	}
	return nil, fmt.Errorf("%s: kind %s has no canonical form here", fd.FullName(), fd.Kind())
}
