package docx

import (
	"bufio"
	"encoding/xml"
	"errors"
	"io"
	"strings"

	"golang.org/x/text/encoding/unicode"
)

// reader takes the text out of one XML file.
type reader struct {
	role role
	// stack holds the paragraphs that are open: a text box lies in one.
	stack []*strings.Builder
	lines strings.Builder
	// skipped counts the open elements whose text is not shown.
	skipped int
	// inText is set in the elements that hold text; in OpenDocument it stands in
	// paragraphs as it is.
	inText, odf bool
	// capitals: the run is shown in capital letters.
	capitals bool
	property string
	content  *Content
}

// maxBoxes is how deep paragraphs may lie in each other.
const maxBoxes = 64

// read adds the text of an XML file.
func (c *Content) read(in io.Reader, role role, odf bool) error {
	r := &reader{role: role, odf: odf, content: c, stack: []*strings.Builder{{}}}
	d := xml.NewDecoder(utf8(in))
	d.Strict = false
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	defer r.end()
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.StartElement:
			r.start(t)
		case xml.EndElement:
			r.endElement(t)
		case xml.CharData:
			r.chars(t)
		}
	}
}

// utf8 reads UTF-16 too, which begins with a mark; no other encoding may be used
// (ECMA-376 part 2, 8.1.4).
func utf8(in io.Reader) io.Reader {
	b := bufio.NewReader(in)
	if head, _ := b.Peek(2); len(head) == 2 && head[0]^head[1] == 0xfe^0xff && max(head[0], head[1]) == 0xff {
		return unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewDecoder().Reader(b)
	}
	return b
}

func (r *reader) top() *strings.Builder { return r.stack[len(r.stack)-1] }

// line ends the line that is open.
func (r *reader) line() {
	top := r.top()
	if s := strings.TrimSpace(top.String()); s != "" && r.lines.Len()+len(s) < maxText {
		r.lines.WriteString(s)
		r.lines.WriteByte('\n')
	}
	top.Reset()
}

func (r *reader) start(e xml.StartElement) {
	if r.skipped > 0 {
		r.skipped++
		return
	}
	switch e.Name.Local {
	case "p", "h", "si", "is": // a paragraph; in tables a text of a cell
		if len(r.stack) < maxBoxes {
			r.stack = append(r.stack, &strings.Builder{})
		}
	case "t", "oddHeader", "oddFooter", "evenHeader", "evenFooter", "firstHeader", "firstFooter":
		r.inText = true
	case "tab", "br", "cr", "line-break", "ptab":
		// A blank as wide as a column, or a new line: what follows stands apart.
		r.line()
	case "del", "delText", "moveFrom", "tracked-changes", // no more there
		"instrText", "rPh", "annotation", // for the program, or beside the text
		"Fallback": // once more, for programs that do not know the form before
		r.skipped = 1
	case "caps", "smallCaps":
		v := attribute(e, "val")
		r.capitals = v != "false" && v != "0" && v != "off"
	case "textpath": // the words of a watermark
		r.apart(attribute(e, "string"))
	case "docPr", "cNvPr": // what is said of a picture
		r.apart(attribute(e, "descr"))
		r.apart(attribute(e, "title"))
	case "property", "user-defined":
		r.property = attribute(e, "name")
	}
}

// apart adds a line of its own.
func (r *reader) apart(s string) {
	if s = strings.TrimSpace(s); s != "" && r.lines.Len()+len(s) < maxText {
		r.lines.WriteString(s)
		r.lines.WriteByte('\n')
	}
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (r *reader) endElement(e xml.EndElement) {
	if r.skipped > 0 {
		r.skipped--
		return
	}
	switch e.Name.Local {
	case "p", "h", "si", "is":
		r.line()
		if len(r.stack) > 1 {
			r.stack = r.stack[:len(r.stack)-1]
		}
	case "oddHeader", "oddFooter", "evenHeader", "evenFooter", "firstHeader", "firstFooter":
		r.inText = false
		s := r.top().String()
		r.top().Reset()
		for _, section := range strings.Split(unmarked(s), "\n") {
			r.apart(section)
		}
	case "t":
		r.inText = false
	case "r", "pPr":
		r.capitals = false
	case "tc", "row", "sheetData":
		r.line()
	case "property", "user-defined":
		r.property = ""
	}
}

// unmarked is a header of a table without the signs for its looks ("&C&\"Arial\"&14").
func unmarked(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '&' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 'L', 'C', 'R':
			b.WriteByte('\n')
		case '"':
			if to := strings.IndexByte(s[i+1:], '"'); to >= 0 {
				i += to + 1
			}
		case '&':
			b.WriteByte('&')
		case 'K':
			i = min(i+6, len(s))
		default:
			for i+1 < len(s) && s[i] >= '0' && s[i] <= '9' && s[i+1] >= '0' && s[i+1] <= '9' {
				i++
			}
		}
	}
	return b.String()
}

func (r *reader) chars(t xml.CharData) {
	if r.skipped > 0 {
		return
	}
	switch {
	case r.role == title, r.role == field, r.property != "":
		s := strings.TrimSpace(string(t))
		switch {
		case s == "" || len(s) > 4096 || len(r.content.Titles)+len(r.content.Fields) > 1000:
		case r.property != "":
			r.content.Fields = append(r.content.Fields, r.property+": "+s)
		default:
			r.content.Titles = append(r.content.Titles, s)
		}
	case r.inText, r.odf && len(r.stack) > 1:
		top := r.top()
		switch {
		case top.Len() >= maxText:
		case r.capitals:
			top.WriteString(strings.ToUpper(string(t)))
		default:
			top.Write(t)
		}
	}
}

// end keeps what is open at the end of a damaged file.
func (r *reader) end() {
	for len(r.stack) > 1 {
		r.line()
		r.stack = r.stack[:len(r.stack)-1]
	}
	r.line()
	if s := r.lines.String(); s != "" && r.role == text {
		r.content.Texts = append(r.content.Texts, s)
	}
}
