package pdf

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// maxParents is how far up the tree of pages one looks for what is inherited.
const maxParents = 32

// read goes through all objects: pages with what is put on them, fields, the
// description, and words that stand for pictures.
func (d *document) read(c *Content) {
	var shown strings.Builder
	show := func(s string) {
		if s = strings.TrimSpace(s); s != "" && shown.Len()+len(s) < maxText && d.work.spend(len(s)) {
			shown.WriteString(s)
			shown.WriteString("\n\n")
		}
	}
	// What was shown until then counts, also where one page is too much.
	defer func() { c.Shown = shown.String() }()
	note := func(to *[]string, s string) {
		if s = strings.TrimSpace(s); s != "" && len(*to) < 1000 && len(s) <= 4096 {
			*to = append(*to, s)
		}
	}
	for _, number := range d.numbers() {
		if d.work.out() {
			return
		}
		v := d.object(number)
		if s, ok := v.(*stream); ok {
			if s.dict["Type"] == name("Metadata") || s.dict["Subtype"] == name("XML") {
				d.metadata(s, func(s string) { note(&c.Titles, s) })
			}
			continue
		}
		o, ok := v.(dict)
		if !ok {
			continue
		}
		switch kind := d.get(o["Type"]); {
		case kind == name("Page"), kind == nil && o["Contents"] != nil && o["MediaBox"] != nil:
			show(d.page(o))
		case o["FT"] != nil, o["T"] != nil && o["V"] != nil:
			d.field(o, func(s string) { note(&c.Fields, s) })
		case kind == name("Annot"), o["AP"] != nil && o["Rect"] != nil:
		case int(d.info) == number && d.info != 0, o["Title"] != nil && o["Parent"] == nil && o["Dest"] == nil:
			for _, k := range []name{"Title", "Subject", "Keywords"} {
				if t, ok := d.get(o[k]).(text); ok {
					note(&c.Titles, readable(t))
				}
			}
		}
		// Alternate descriptions (14.9.3) stand for pictures, such as one of a stamp.
		for _, k := range []name{"Alt", "ActualText"} {
			if t, ok := d.get(o[k]).(text); ok {
				show(readable(t))
			}
		}
	}
}

// page draws a page with its annotations.
func (d *document) page(page dict) string {
	w := &drawing{d: d}
	var content bytes.Buffer
	for _, v := range d.list(page["Contents"], nil) {
		if s, ok := d.get(v).(*stream); ok && content.Len() < maxStream {
			content.Write(d.decode(s))
			content.WriteByte('\n')
		}
	}
	w.run(content.Bytes(), d.dictOf(d.inherited(page, "Resources")), identity)
	var shown strings.Builder
	shown.WriteString(layout(w.pieces) + "\n" + strings.Join(w.beside, "\n\n"))
	notes, _ := d.get(page["Annots"]).(array)
	for _, v := range notes {
		if d.work.out() || shown.Len() > maxText {
			break
		}
		if note := d.dictOf(v); note != nil {
			shown.WriteString("\n" + d.annotation(note))
		}
	}
	return shown.String()
}

func (d *document) inherited(of dict, key name) value {
	for range maxParents {
		if v := of[key]; v != nil {
			return v
		}
		if of = d.dictOf(of["Parent"]); of == nil {
			return nil
		}
	}
	return nil
}

// annotation is what is put on a page (12.5): how it looks, and what it says where
// it is more than a remark.
func (d *document) annotation(of dict) string {
	var out strings.Builder
	switch d.get(of["Subtype"]) {
	case name("Stamp"), name("FreeText"), name("Watermark"):
		if t, ok := d.get(of["Contents"]).(text); ok && d.work.spend(len(t)) {
			out.WriteString(readable(t))
			out.WriteString("\n\n")
		}
	case name("Popup"), name("Link"):
		return ""
	}
	normal := d.get(d.dictOf(of["AP"])["N"])
	if states, ok := normal.(dict); ok { // one look for each state
		current, _ := d.get(of["AS"]).(name)
		normal = d.get(states[current])
	}
	if s, ok := normal.(*stream); ok {
		w := &drawing{d: d}
		w.run(d.decode(s), d.dictOf(s.dict["Resources"]), d.matrixOf(s.dict["Matrix"]))
		out.WriteString(layout(w.pieces))
	}
	return out.String()
}

// field is a form's field with its value (12.7).
func (d *document) field(of dict, note func(string)) {
	value := readable(d.textOf(of["V"]))
	if value == "" {
		return
	}
	for _, k := range []name{"T", "TU"} {
		note(readable(d.textOf(of[k])) + ": " + value)
	}
}

func (d *document) textOf(v value) text {
	switch v := d.get(v).(type) {
	case text:
		return v
	case name:
		return text(v)
	case array:
		if len(v) > 0 {
			t, _ := d.get(v[0]).(text)
			return t
		}
	}
	return ""
}

// metadata reads the texts of XMP (14.3.2).
func (d *document) metadata(s *stream, note func(string)) {
	b := d.decode(s)
	if len(b) > 1<<20 || !d.work.spend(8*len(b)) {
		return
	}
	decoder := xml.NewDecoder(bytes.NewReader(b))
	decoder.Strict = false
	decoder.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	for {
		t, err := decoder.RawToken()
		if err != nil {
			return
		}
		if chars, ok := t.(xml.CharData); ok {
			note(string(chars))
		}
	}
}

// readable reads a string for people: UTF-16 or UTF-8 where it says so, else the
// encoding of PDF, which is that of Windows for the letters that matter here
// (7.9.2.2).
func readable(t text) string {
	switch b := []byte(t); {
	case len(b) >= 2 && b[0] == 0xfe && b[1] == 0xff:
		return utf16be(b[2:])
	case len(b) >= 2 && b[0] == 0xff && b[1] == 0xfe:
		for i := 2; i+1 < len(b); i += 2 {
			b[i], b[i+1] = b[i+1], b[i]
		}
		return utf16be(b[2:])
	case len(b) >= 3 && b[0] == 0xef && b[1] == 0xbb && b[2] == 0xbf:
		return string(b[3:])
	case utf8.Valid(b):
		return string(b) // against the standard, and met
	default:
		s, _ := charmap.Windows1252.NewDecoder().Bytes(b)
		return string(s)
	}
}
