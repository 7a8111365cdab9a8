package envelope

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// limit is what the contract allows in one field, beyond its type.
type limit struct {
	// min and max bound the length: characters of a text, bytes of a bytes
	// field, the value of a number.
	min, max int
	// warned limits are exceeded in live messages: accepted and reported.
	warned bool
	// count bounds the entries of a repeated field.
	count int
}

// limits of every text, bytes, number and repeated field that a header can
// hold, by name below truc.exchange.v1: envelope.proto in one table. Checked
// elsewhere and therefore free here: names of parts, and what Limits sets.
var limitOf = map[protoreflect.FullName]limit{
	"Header.recipients":      {},
	"Header.document_id":     {min: 1, max: 256},
	"Header.parts":           {},
	"Header.trace_headers":   {count: 100},
	"Header.signature_raw":   {max: 262_144},
	"Header.signatures":      {count: 16},
	"Header.extension_raw":   {max: 65_536},
	"Organization.code":      {min: 1, max: 64},
	"Organization.name":      {max: 200, warned: true},
	"Organization.address":   {max: 250, warned: true},
	"Organization.email":     {max: 100, warned: true},
	"Organization.fax":       {max: 20, warned: true},
	"Organization.website":   {max: 100, warned: true},
	"Organization.in_charge": {max: 200, warned: true},
	"Organization.telephone": {max: 20, warned: true},
	// Longer and shorter forms occur in the field.
	"Organization.code_qcvn102": {max: 64},

	"Recipient.group": {min: 1, max: 128},

	"Date.year":     {max: 9999},
	"Date.month":    {max: 12},
	"Date.day":      {max: 31},
	"Date.raw":      {max: 32},
	"LocalTime.raw": {max: 40},

	"Code.number":       {max: 11, warned: true},
	"Code.notation":     {max: 30, warned: true},
	"Signer.competence": {max: 100, warned: true},
	"Signer.position":   {max: 100, warned: true},
	"Signer.full_name":  {max: 50, warned: true},

	"ResponseFor.agency_code": {min: 1, max: 64},
	"ResponseFor.code":        {max: 64},
	"ResponseFor.document_id": {max: 256},

	"Staff.department":    {max: 200},
	"Staff.department_id": {max: 64},
	"Staff.name":          {max: 100},
	"Staff.staff_id":      {max: 64},
	"Staff.email":         {max: 100},
	"Staff.mobile":        {max: 20},

	"Document.place":            {max: 50, warned: true},
	"Document.type_code":        {max: 8},
	"Document.type_detail":      {max: 8},
	"Document.type_name":        {max: 100, warned: true},
	"Document.subject":          {max: 500, warned: true},
	"Document.summary":          {max: 500, warned: true},
	"Document.to_places":        {max: 150, warned: true, count: 100},
	"Document.sphere":           {max: 100, warned: true},
	"Document.typer_notation":   {max: 10, warned: true},
	"Document.issued_copies":    {},
	"Document.pages":            {},
	"Document.appendixes":       {max: 250, warned: true, count: 100},
	"Document.reply_fors":       {max: 256, count: 100},
	"Document.reference_codes":  {max: 256, count: 100},
	"Document.response_for":     {count: 100},
	"Document.steering":         {},
	"Document.task_codes":       {max: 128, count: 100},
	"Document.application_type": {max: 64},

	"RecipientChange.agency_code": {min: 1, max: 64},
	"Replaced.document_id":        {min: 1, max: 256},
	"Replaced.agency_codes":       {min: 1, max: 64, count: 20_000},
	"Business.target_document_id": {max: 256},
	"Business.reason":             {max: 1000},
	"Business.recipient_changes":  {count: 20_000},
	"Business.replaces":           {count: 1000},

	"Status.code":        {},
	"Status.description": {max: 1000},
	"Status.envelope_id": {max: 16},

	"Part.name":        {},
	"Part.media_type":  {max: 127},
	"Part.size":        {},
	"Part.sha256":      {min: 32, max: 32},
	"Part.content_id":  {max: 256},
	"Part.description": {max: 500},

	"TraceHeader.agency_code": {max: 64},

	"SealedKey.agency_code": {min: 1, max: 64},
	"SealedKey.key_hash":    {min: 32, max: 32},
	"SealedKey.sealed":      {max: 2048},
	"Seal.suite":            {min: 1, max: 64},
	"Seal.keys":             {count: 20_000},

	"SignatureBlock.part":      {},
	"SignatureBlock.format":    {min: 1, max: 32},
	"SignatureBlock.signature": {max: 65_536},
	"SignatureBlock.subject":   {max: 512},
	"SignatureBlock.serial":    {max: 20},
}

const contractPrefix = "truc.exchange.v1."

// limitFor returns the limit of a field of the contract.
func limitFor(fd protoreflect.FieldDescriptor) (limit, bool) {
	l, ok := limitOf[protoreflect.FullName(strings.TrimPrefix(string(fd.FullName()), contractPrefix))]
	return l, ok
}

// fields checks every field of m and below against the table: lengths and
// counts, text that is text, enum values this program knows.
func (c *checker) fields(path string, m protoreflect.Message, depth int) {
	if depth > maxDepth {
		c.problem(path, invalid, "nests too deep")
		return
	}
	all := m.Descriptor().Fields()
	for i := range all.Len() {
		if len(c.problems) >= maxProblems {
			return
		}
		fd := all.Get(i)
		l, _ := limitFor(fd)
		field := path + "." + string(fd.Name())
		if !m.Has(fd) {
			// An alternative that was not chosen is not missing.
			if l.min > 0 && !fd.IsList() && fd.ContainingOneof() == nil {
				c.problem(field, invalid, "is missing")
			}
			continue
		}
		if !fd.IsList() {
			c.value(field, fd, l, m.Get(fd), depth)
			continue
		}
		list := m.Get(fd).List()
		if l.count > 0 && list.Len() > l.count {
			c.problem(field, invalid, "has %d entries, at most %d are allowed", list.Len(), l.count)
			continue
		}
		for j := range list.Len() {
			if len(c.problems) >= maxProblems {
				return
			}
			c.value(field+"["+strconv.Itoa(j)+"]", fd, l, list.Get(j), depth)
		}
	}
}

func (c *checker) value(field string, fd protoreflect.FieldDescriptor, l limit, v protoreflect.Value, depth int) {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		if t, ok := v.Message().Interface().(*timestamppb.Timestamp); ok {
			if err := t.CheckValid(); err != nil {
				c.problem(field, invalid, "is no instant: %v", err)
			}
			return
		}
		c.fields(field, v.Message(), depth+1)
	case protoreflect.StringKind:
		c.text(field, l, v.String())
	case protoreflect.BytesKind:
		c.length(field, l, len(v.Bytes()), "bytes")
		if fd.Name() == "envelope_id" && len(v.Bytes()) != len(ID{}) {
			c.problem(field, invalid, "has %d bytes, want 16", len(v.Bytes()))
		}
	case protoreflect.EnumKind:
		if fd.Enum().Values().ByNumber(v.Enum()) == nil {
			c.problem(field, invalid, "is %d, which this contract does not know", v.Enum())
		}
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		if n := v.Int(); l.max > 0 && (n < 0 || n > int64(l.max)) {
			c.problem(field, invalid, "is %d, want 0 to %d", n, l.max)
		}
	}
}

// text checks one text: valid UTF-8 (libraries refuse other bytes when they
// read, but not all of them), no control characters but tab and line ends, and
// its length in characters.
func (c *checker) text(field string, l limit, s string) {
	if !utf8.ValidString(s) {
		c.problem(field, invalid, "is not valid UTF-8")
		return
	}
	for _, r := range s {
		if unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' {
			c.problem(field, invalid, "holds the control character %U", r)
			break
		}
	}
	if len(s) > l.max || l.min > 0 {
		c.length(field, l, utf8.RuneCountInString(s), "characters")
	}
}

func (c *checker) length(field string, l limit, n int, unit string) {
	switch {
	case n < l.min && n == 0:
		c.problem(field, invalid, "is missing")
	case n < l.min:
		c.problem(field, invalid, "has %d %s, at least %d are needed", n, unit, l.min)
	case l.max > 0 && n > l.max && l.warned:
		c.warn(field, "has %d %s, the standard allows at most %d", n, unit, l.max)
	case l.max > 0 && n > l.max:
		c.problem(field, invalid, "has %d %s, at most %d are allowed", n, unit, l.max)
	}
}
