// Package sample makes documents to try the mesh with: PDF and DOCX files that
// open in any reader, of the sizes that agencies send (22 to 440 KB, most of it
// a scanned page), the same bytes for the same title.
package sample

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"time"
)

// Media types of the two kinds of file.
const (
	MediaTypePDF  = "application/pdf"
	MediaTypeDOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
)

// PDF returns a PDF 1.4 file of about size bytes: one page with a title in a
// standard font (ASCII) above a grey raster that stands for a scanned page.
func PDF(title string, size int) []byte {
	side := 1
	for side*side < size-1200 {
		side++
	}
	raster := noise(title, side*side)
	page := fmt.Sprintf("BT /F1 14 Tf 60 790 Td (%s) Tj ET\nq 480 0 0 680 57 80 cm /Im1 Do Q\n", pdfText(title))

	var b bytes.Buffer
	var offsets []int
	object := func(dictionary string, stream []byte) {
		offsets = append(offsets, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\n", len(offsets), dictionary)
		if stream != nil {
			b.WriteString("stream\n")
			b.Write(stream)
			b.WriteString("\nendstream\n")
		}
		b.WriteString("endobj\n")
	}
	b.WriteString("%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
	object("<< /Type /Catalog /Pages 2 0 R >>", nil)
	object("<< /Type /Pages /Kids [3 0 R] /Count 1 >>", nil)
	object("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "+
		"/Resources << /Font << /F1 5 0 R >> /XObject << /Im1 6 0 R >> >> >>", nil)
	object(fmt.Sprintf("<< /Length %d >>", len(page)), []byte(page))
	object("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>", nil)
	object(fmt.Sprintf("<< /Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceGray "+
		"/BitsPerComponent 8 /Length %d >>", side, side, len(raster)), raster)

	start := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(offsets)+1)
	for _, at := range offsets {
		fmt.Fprintf(&b, "%010d 00000 n \n", at)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(offsets)+1, start)
	return b.Bytes()
}

// DOCX returns a WordprocessingML file with the title and the paragraphs, and
// an embedded file that brings it to about size bytes.
func DOCX(title string, size int, paragraphs ...string) []byte {
	var body strings.Builder
	for _, text := range append([]string{title}, paragraphs...) {
		body.WriteString("<w:p><w:r><w:t>")
		_ = xml.EscapeText(&body, []byte(text))
		body.WriteString("</w:t></w:r></w:p>")
	}
	const prolog = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>` + "\n"
	files := []struct {
		name    string
		content []byte
	}{
		{"[Content_Types].xml", []byte(prolog +
			`<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">` +
			`<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>` +
			`<Default Extension="bin" ContentType="application/octet-stream"/>` +
			`<Override PartName="/word/document.xml" ContentType="` + MediaTypeDOCX + `.main+xml"/></Types>`)},
		{"_rels/.rels", []byte(prolog +
			`<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">` +
			`<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" ` +
			`Target="word/document.xml"/></Relationships>`)},
		{"word/document.xml", []byte(prolog +
			`<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>` +
			body.String() + `</w:body></w:document>`)},
		{"word/embeddings/scan.bin", noise(title, max(size-1400, 0))},
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		w, err := z.CreateHeader(&zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: time.Unix(0, 0).UTC()})
		if err == nil {
			_, err = w.Write(f.content)
		}
		if err != nil {
			panic(err) // a bytes.Buffer does not fail
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// noise returns n bytes that do not compress, the same for the same title.
func noise(title string, n int) []byte {
	h := fnv.New64a()
	h.Write([]byte(title))
	source := rand.NewPCG(h.Sum64(), 0)
	out := make([]byte, 0, n+8)
	for len(out) < n {
		v := source.Uint64()
		for range 8 {
			out = append(out, byte(v))
			v >>= 8
		}
	}
	return out[:n]
}

func pdfText(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '(' || r == ')' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r >= ' ' && r <= '~':
			b.WriteRune(r)
		default:
			b.WriteByte('?')
		}
	}
	return b.String()
}
