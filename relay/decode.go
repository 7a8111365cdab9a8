package relay

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// Messages that do not decode are refused with a type like everything else,
// and the field at fault is named. gRPC answers what its codec refuses by
// itself, without details; so the codec lets such a message through as an empty
// one that carries a mark, and the interceptors refuse what is marked.

// decoder is the usual codec, but for messages that do not decode, or would
// take much more memory than their bytes.
type decoder struct{ encoding.CodecV2 }

func newDecoder() decoder { return decoder{encoding.GetCodecV2("proto")} }

// markField is a field number that protobuf reserves, so that no message of any
// version has it.
const markField protowire.Number = 19_999

// maxElements bounds the messages and texts inside one message. A recipient of
// two bytes becomes a hundred in memory, so the bytes alone bound little; this
// is more than 20,000 recipients need in every list of a header, and messages
// below smallMessage bytes cannot hold enough to matter.
const (
	maxElements  = 150_000
	smallMessage = 64 << 10
)

func (d decoder) Unmarshal(data mem.BufferSlice, v any) error {
	message, ok := v.(proto.Message)
	if !ok {
		return d.CodecV2.Unmarshal(data, v)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	encoded, descriptor := buffer.ReadOnlyData(), message.ProtoReflect().Descriptor()
	var what string
	if len(encoded) > smallMessage && elements(descriptor, encoded, maxElements) > maxElements {
		what = fmt.Sprintf("message: holds more than %d elements", maxElements)
	} else if proto.Unmarshal(encoded, message) == nil {
		return nil
	} else {
		what = faultOf(descriptor, encoded, "")
	}
	if what == "" {
		what = "message: does not decode"
	}
	proto.Reset(message)
	message.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, markField, protowire.BytesType), what))
	return nil
}

// undecoded refuses a message that carries the mark. Who sends the mark itself
// gets the same answer.
func undecoded(v any) error {
	message, ok := v.(proto.Message)
	if !ok {
		return nil
	}
	number, kind, n := protowire.ConsumeTag(message.ProtoReflect().GetUnknown())
	if n < 0 || number != markField || kind != protowire.BytesType {
		return nil
	}
	what, _ := protowire.ConsumeBytes(message.ProtoReflect().GetUnknown()[n:])
	r := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "%q", what)
	if field, description, ok := strings.Cut(string(what), ": "); ok {
		r.Message = field + " " + description
		r.Problems = []envelope.Problem{{Field: field, Reason: r.Reason, Description: description}}
	}
	return r
}

// elements counts the messages, and the entries of lists of texts and bytes, in
// an encoded message, up to a little more than most.
func elements(d protoreflect.MessageDescriptor, b []byte, most int) (count int) {
	for len(b) > 0 && count <= most {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return count
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return count
		}
		value := b[:n]
		b = b[n:]
		field := d.Fields().ByNumber(number)
		if field == nil || kind != protowire.BytesType {
			continue
		}
		switch {
		case field.Kind() == protoreflect.MessageKind:
			content, _ := protowire.ConsumeBytes(value)
			count += 1 + elements(field.Message(), content, most-count)
		case field.IsList():
			count++
		}
	}
	return count
}

// faultOf finds the first text that is not UTF-8 in an encoded message, as
// "path: what is wrong"; empty where the encoding itself is broken.
func faultOf(d protoreflect.MessageDescriptor, b []byte, path string) string {
	seen := make(map[protowire.Number]int)
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return ""
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return ""
		}
		value := b[:n]
		b = b[n:]
		field := d.Fields().ByNumber(number)
		if field == nil || kind != protowire.BytesType {
			continue
		}
		content, _ := protowire.ConsumeBytes(value)
		at := path + string(field.Name())
		if field.IsList() {
			at = fmt.Sprintf("%s[%d]", at, seen[number])
			seen[number]++
		}
		switch {
		case field.Kind() == protoreflect.StringKind && !utf8.Valid(content):
			return at + ": is not UTF-8; send all text as UTF-8"
		case field.Kind() == protoreflect.MessageKind:
			if fault := faultOf(field.Message(), content, at+"."); fault != "" {
				return fault
			}
		}
	}
	return ""
}

// decodedStream refuses marked messages as they are received.
type decodedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s decodedStream) Context() context.Context { return s.ctx }

func (s decodedStream) RecvMsg(v any) error {
	if err := s.ServerStream.RecvMsg(v); err != nil {
		return err
	}
	return undecoded(v)
}
