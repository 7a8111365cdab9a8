package envelope

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/unicode/norm"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// Number stands for the number and notation of a document among those of its issuer
// in one year, in which numbers run from 1 January to 31 December and are given once
// (ND30 Art. 15): the SHA-256 of all four. What agencies write is unreliable, so the
// same number in another spelling is the same (spelled), and nothing is refused for it.
// Indexes of spools hold it: what is hashed changes only together with their format.
type Number [sha256.Size]byte

// NumberOf is the number of a document that its sender issued; false: it has none, or
// what has it is no document of its own, such as a revocation, which bears the number
// of what it takes back.
func NumberOf(c *Custody) (Number, bool) {
	if c.Report {
		return Number{}, false
	}
	h, err := Sketch(c.Header)
	if err != nil || h.GetKind() != exchangev1.Kind_KIND_DOCUMENT || h.GetBusiness().GetType() == exchangev1.BusinessType_BUSINESS_TYPE_REVOKE {
		return Number{}, false
	}
	number, notation, ok := spelled(h.GetDocument().GetCode())
	if !ok {
		return Number{}, false
	}
	b := binary.BigEndian.AppendUint16([]byte("truc-number-v1"), uint16(yearOf(h.GetDocument().GetIssuedOn(), c.AcceptedAt)))
	for _, s := range []string{string(c.Sender), number, notation} {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return sha256.Sum256(b), true
}

// Sketch reads of the canonical bytes of a header what the document is and what it
// does to others: kind, document id, document and business. It passes over what may be
// large, recipients and parts.
func Sketch(canonical []byte) (*exchangev1.Header, error) {
	var some []byte
	for b := canonical; len(b) > 0; {
		field, wire, tag := protowire.ConsumeTag(b)
		if tag < 0 {
			return nil, fmt.Errorf("header: %w", protowire.ParseError(tag))
		}
		if field > 6 {
			break // canonical bytes are in ascending order
		}
		value := protowire.ConsumeFieldValue(field, wire, b[tag:])
		if value < 0 {
			return nil, fmt.Errorf("header: %w", protowire.ParseError(value))
		}
		switch field {
		case 1, 4, 5, 6:
			some = append(some, b[:tag+value]...)
		}
		b = b[tag+value:]
	}
	h := new(exchangev1.Header)
	if err := proto.Unmarshal(some, h); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return h, nil
}

// yearOf is the year of issue, in Vietnam. Without a date, or with one that cannot be
// real, as occurs, it is that of acceptance. A date of the next year can: what is to
// be issued on 2 January is handed over on 31 December.
func yearOf(issued *exchangev1.Date, accepted time.Time) int {
	now := accepted.In(vietnam).Year()
	year, month, day := int(issued.GetYear()), time.Month(issued.GetMonth()), int(issued.GetDay())
	if year < founded || year > now+1 || month < 1 || month > 12 || day < 1 || time.Date(year, month, day, 0, 0, 0, 0, vietnam).Day() != day {
		return now
	}
	return year
}

// founded is the year before which no agency issued anything.
const founded = 1945

// spelled is number and notation in one spelling; false: one of them is missing, or is
// a form's that was not filled in. Blanks, case and leading zeros do not tell numbers
// apart ("05" is 5), nor does how Unicode writes a letter or a hyphen. Both may stand
// in one field, or the number in both ("125", "125/BC-UBND").
func spelled(c *exchangev1.Code) (number, notation string, ok bool) {
	number, notation = unspaced(c.GetNumber()), unspaced(c.GetNotation())
	switch {
	case notation == "" || notation == number:
		number, notation, _ = strings.Cut(number, "/")
	case number == "":
		number, notation, _ = strings.Cut(notation, "/")
	default:
		number = strings.TrimSuffix(number, "/"+notation)
		if first, rest, both := strings.Cut(notation, "/"); both && withoutZeros(first) == withoutZeros(number) {
			notation = rest
		}
	}
	number = withoutZeros(number)
	return number, notation, strings.ContainsFunc(number, unicode.IsDigit) && notation != ""
}

// withoutZeros is a number without leading zeros; nothing is left of 0, which is none.
func withoutZeros(number string) string { return strings.TrimLeft(number, "0") }

// unspaced is text in small letters without blanks and what does not show, with one
// kind of hyphen.
func unspaced(s string) string {
	return norm.NFC.String(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), unicode.In(r, unicode.Cc, unicode.Cf):
			return -1
		case unicode.Is(unicode.Pd, r):
			return '-'
		}
		return unicode.ToLower(r)
	}, s))
}
