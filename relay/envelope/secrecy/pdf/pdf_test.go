package pdf_test

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/truclienthong/truc/relay/envelope/secrecy/pdf"
	"github.com/truclienthong/truc/relay/envelope/secrecy/secrecytest"
)

// drawn is a file with one page that has this content, and other objects.
func drawn(content, filter string, more ...string) []byte {
	var b bytes.Buffer
	b.WriteString("%PDF-1.4\n1 0 obj\n<< /Type /Font /Subtype /Type1 /FirstChar 0 /Widths [" + strings.Repeat("500 ", 256) + "] >>\nendobj\n")
	fmt.Fprintf(&b, "2 0 obj\n<< %s /Length %d >>\nstream\n%s\nendstream\nendobj\n", filter, len(content), content)
	b.WriteString("3 0 obj\n<< /Type /Page /Contents 2 0 R /Resources << /Font << /F 1 0 R >> /XObject << /X 9 0 R >> >> >>\nendobj\n")
	for _, object := range more {
		b.WriteString(object + "\n")
	}
	return b.Bytes()
}

func deflated(s string) string {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.String()
}

func TestLines(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ content, want string }{
		"words of one line":   {"BT /F 10 Tf 0 700 Td (one) Tj 20 0 Td (two) Tj ET", "one two"},
		"letters of one word": {"BT /F 10 Tf 0 700 Td (o) Tj 5 0 Td (n) Tj 5 0 Td (e) Tj ET", "one"},
		"columns":             {"BT /F 10 Tf 0 700 Td (one) Tj 200 0 Td (two) Tj ET", "one|two"},
		"lines of a block":    {"BT /F 10 Tf 12 TL 0 700 Td (one) Tj T* (two) Tj (three) ' ET", "one\ntwo\nthree"},
		"blocks side by side": {"BT /F 10 Tf 0 700 Td (one) Tj 200 0 Td (two) Tj -200 -12 Td (under one) Tj 200 0 Td (under two) Tj ET", "one\nunder one|two\nunder two"},
		"drawn out of order":  {"BT /F 10 Tf 15 700 Td (two) Tj -15 0 Td (one) Tj ET", "onetwo"},
		"kerning":             {"BT /F 10 Tf 0 700 Td [(o) 20 (n) -15 (e)] TJ ET", "one"},
		"a column by kerning": {"BT /F 10 Tf 0 700 Td [(one) -9000 (two)] TJ ET", "one|two"},
		"turned":              {"BT /F 10 Tf 0 1 -1 0 300 300 Tm (one) Tj (two) Tj ET", "onetwo"},
		"over another":        {"BT /F 10 Tf 0 700 Td (one) Tj ET BT /F 10 Tf 3 700 Td (two) Tj ET", "one|two"},
		"scaled by the page":  {"q .1 0 0 .1 0 0 cm BT /F 100 Tf 0 7000 Td (one) Tj 150 0 Td (two) Tj ET Q", "onetwo"},
		"spaced letters":      {"BT /F 10 Tf 3 Tc 0 700 Td (one) Tj ET", "one"},
		"a picture between":   {"BT /F 10 Tf 0 700 Td (one) Tj ET BI /W 1 /H 1 ID \x00(\xff) EI BT /F 10 Tf 0 600 Td (two) Tj ET", "one|two"},
		"escapes":             {`BT /F 10 Tf 0 700 Td (\157\(\)\\) Tj ET`, `o()\`},
		"digits":              {"BT /F 10 Tf 0 700 Td <6F6E 65> Tj ET", "one"},
	} {
		content, err := pdf.Text(drawn(c.content, ""))
		got := strings.Join(strings.FieldsFunc(strings.ReplaceAll(strings.TrimSpace(content.Shown), "\n\n", "|"), func(r rune) bool { return r == '|' }), "|")
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}

// literals writes LZW of single bytes, with the table emptied before codes grow.
func literals(s string) string {
	var out []byte
	bits, have := 0, 0
	put := func(code int) {
		for bits, have = bits<<9|code, have+9; have >= 8; have -= 8 {
			out = append(out, byte(bits>>(have-8)))
		}
		bits &= 1<<have - 1
	}
	for i, b := range []byte(s) {
		if i%200 == 0 {
			put(256)
		}
		put(int(b))
	}
	put(257)
	return string(append(out, byte(bits<<(8-have))))
}

func TestFilters(t *testing.T) {
	t.Parallel()
	const content = "BT /F 10 Tf 0 700 Td (what it says) Tj ET"
	rows := ""
	for i := 0; i < len(content); i += 10 {
		row := []byte(content[i:min(i+10, len(content))])
		for j := len(row) - 1; j > 0; j-- {
			row[j] -= row[j-1]
		}
		rows += "\x01" + string(row)
	}
	for filter, packed := range map[string]string{
		"/Filter /FlateDecode":                                                         deflated(content),
		"/Filter [/ASCIIHexDecode /FlateDecode]":                                       fmt.Sprintf("%x>", deflated(content)),
		"/Filter /LZWDecode":                                                           literals(content),
		"/Filter /LZWDecode /DecodeParms << /EarlyChange 0 >>":                         literals(content),
		"/Filter /RunLengthDecode":                                                     string(rune(len(content)-1)) + content + "\x80",
		"/Filter /FlateDecode /DecodeParms << /Predictor 12 /Columns 10 >>":            deflated(rows),
		"/Filter /FlateDecode /DecodeParms [<< /Predictor 15 /Columns 10 /Colors 1>>]": deflated(rows),
	} {
		if got, err := pdf.Text(drawn(packed, filter)); err != nil || strings.TrimSpace(got.Shown) != "what it says" {
			t.Errorf("%s: %q, %v", filter, got.Shown, err)
		}
	}
}

// What comes from a file that is made to hurt: an answer, within the memory that
// its size allows. What can be read beside it is read.
func TestHostileFiles(t *testing.T) {
	const says = "BT /F 10 Tf 0 700 Td (one) Tj ET "
	form := func(n int, content string) string {
		return fmt.Sprintf("%d 0 obj\n<< /Subtype /Form /Resources << /XObject << /X 9 0 R /Y 10 0 R >> >> /Length %d >>\nstream\n%s\nendstream\nendobj", n, len(content), content)
	}
	for name, c := range map[string]struct {
		file    []byte
		limited bool
	}{
		"a bomb":                     {drawn(deflated(says+strings.Repeat(" ", 20<<20)), "/Filter /FlateDecode"), true},
		"a bomb in a bomb":           {drawn(deflated(deflated(says+strings.Repeat("(x) Tj ", 3<<20))), "/Filter [/FlateDecode /FlateDecode]"), true},
		"a form that draws itself":   {drawn(says+"/X Do", "", form(9, says+"/X Do")), false},
		"forms that draw each other": {drawn(says+strings.Repeat("/X Do ", 40), "", form(9, strings.Repeat("/Y Do ", 40)), form(10, strings.Repeat("/X Do ", 40))), true},
		"arrays in arrays":           {drawn(says, "", "9 0 obj "+strings.Repeat("[", 1<<20)), false},
		"dictionaries in each other": {drawn(says, "", "9 0 obj "+strings.Repeat("<</A", 1<<20)), false},
		"a parent of itself":         {drawn(says, "", "9 0 obj << /Type /Page /Parent 9 0 R /Contents 2 0 R >> endobj"), false},
		"a reference to itself":      {drawn(says, "", "9 0 obj 9 0 R endobj", "10 0 obj << /Type /Page /Contents 9 0 R >> endobj"), false},
		"numbers out of all measure": {drawn(says+"BT /F 1e300 Tf 9e99 -9e99 9999999999999999999999 0 0 0 Tm 99999999999 Tc (x) Tj ET", ""), false},
		"no end anywhere":            {drawn(says, "", "9 0 obj << /A (", "10 0 obj << /Length 99999 >> stream x"), false},
		"many strings":               {drawn(says+"BT /F 9 Tf "+strings.Repeat("(x)Tj ", 1<<18), ""), true},
		"a table of all characters":  {drawn(says, "", "9 0 obj << /Type /Page /Contents 2 0 R /Resources << /Font << /F 10 0 R >> >> >> endobj", "10 0 obj << /Subtype /Type0 /ToUnicode 11 0 R >> endobj", "11 0 obj << /Length 64 >>\nstream\n"+strings.Repeat("3 beginbfrange <000000> <FFFFFF> <0020> endbfrange ", 50)+"\nendstream\nendobj"), false},
		"an object that ends early":  {drawn(says, "", strings.Repeat("9 0 obj ", 1<<16)), false},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			content, err := pdf.Text(c.file)
			runtime.ReadMemStats(&after)
			if !strings.Contains(content.Shown, "one") && !c.limited {
				t.Errorf("shown: %.100q, %v", content.Shown, err)
			}
			if c.limited != errors.Is(err, pdf.ErrLimit) && c.limited {
				t.Errorf("got %v, want a limit", err)
			}
			if all := (after.TotalAlloc - before.TotalAlloc) >> 20; all > 600 {
				t.Errorf("%d MiB were used for a file of %d bytes", all, len(c.file))
			}
		})
	}
}

func TestFilesThatAreNotRead(t *testing.T) {
	t.Parallel()
	if _, err := pdf.Text(secrecytest.PDF{Runs: secrecytest.Text("one"), Locked: true}.Bytes()); !errors.Is(err, pdf.ErrLocked) {
		t.Errorf("a locked file: %v", err)
	}
	if _, err := pdf.Text(secrecytest.PDF{Runs: secrecytest.Text("one"), Locked: true, Packed: true}.Bytes()); !errors.Is(err, pdf.ErrLocked) {
		t.Errorf("a locked and packed file: %v", err)
	}
	if _, err := pdf.Text([]byte("%PDF-1.7\nnothing")); !errors.Is(err, pdf.ErrNotPDF) {
		t.Errorf("no objects: %v", err)
	}
}

// A file that was changed keeps its old objects; the last of a number counts.
func TestLaterObjectsTakeThePlaceOfEarlierOnes(t *testing.T) {
	t.Parallel()
	file := drawn("BT /F 10 Tf 0 700 Td (before) Tj ET", "", "2 0 obj\n<< /Length 37 >>\nstream\nBT /F 10 Tf 0 700 Td (behind) Tj ET  \nendstream\nendobj")
	if got, err := pdf.Text(file); err != nil || strings.TrimSpace(got.Shown) != "behind" {
		t.Errorf("%q, %v", got.Shown, err)
	}
}

func FuzzText(f *testing.F) {
	for _, p := range []secrecytest.PDF{
		{Runs: secrecytest.Text("MẬT")}, {Runs: secrecytest.Text("MẬT"), Writer: secrecytest.LibreOffice, Packed: true},
		{Runs: []secrecytest.Run{{X: 9, Y: 9, Size: 9, Angle: 45, Text: "MẬT", Boxed: true}}, Writer: secrecytest.Named, Filter: "None"},
		{Stamps: []string{"MẬT"}, Fields: map[string]string{"a": "b"}, XMP: "x", Filter: "None"},
	} {
		f.Add(p.Bytes())
	}
	f.Add(drawn("BT /F 10 Tf (a) Tj [(b) 3] TJ ET BI ID EI /X Do", ""))
	f.Fuzz(func(t *testing.T, file []byte) {
		content, err := pdf.Text(file)
		if err != nil && strings.HasPrefix(err.Error(), "PDF file: ") {
			t.Fatal(err) // a panic that was caught
		}
		if again, _ := pdf.Text(file); again.Shown != content.Shown {
			t.Error("the same file has another text")
		}
	})
}
