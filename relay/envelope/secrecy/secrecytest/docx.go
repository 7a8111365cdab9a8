package secrecytest

import (
	"archive/zip"
	"bytes"
	"fmt"
	"html"
	"maps"
	"slices"
	"strings"
)

// DOCX is a file as word processors write it.
type DOCX struct {
	// Body is the text, a paragraph for each line; Raw is put behind it as XML.
	Body, Raw string
	// Header, Footer, Footnote and Comment are texts of their own; Watermark is the
	// picture of words that is put into the header.
	Header, Footer, Footnote, Comment, Watermark string
	// Box is a text box anchored in the first paragraph.
	Box string
	// Title, Keywords, Category and Status are properties of the document, Custom
	// those with other names.
	Title, Keywords, Category, Status string
	Custom                            map[string]string
	// More are further files of the zip.
	More map[string]string
}

const (
	wordNS = `xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" xmlns:v="urn:schemas-microsoft-com:vml" xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape" xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing"`
	prolog = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>` + "\n"
)

// Paragraphs are paragraphs of WordprocessingML, one for each line; a tab stays
// one, and words are runs of their own.
func Paragraphs(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("<w:p><w:pPr><w:jc w:val=\"both\"/></w:pPr>")
		for i, piece := range strings.Split(strings.TrimRight(line, "\n"), "\t") {
			if i > 0 {
				b.WriteString("<w:r><w:tab/></w:r>")
			}
			for _, word := range strings.SplitAfter(piece, " ") {
				fmt.Fprintf(&b, `<w:r><w:rPr><w:sz w:val="28"/></w:rPr><w:t xml:space="preserve">%s</w:t></w:r>`, html.EscapeString(word))
			}
		}
		b.WriteString("</w:p>")
	}
	return b.String()
}

// Bytes writes the file.
func (d DOCX) Bytes() []byte {
	files := map[string]string{
		"[Content_Types].xml": prolog + `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>`,
		"word/styles.xml":     prolog + `<w:styles ` + wordNS + `><w:style><w:name w:val="MẬT"/></w:style></w:styles>`,
		"docProps/core.xml": prolog + fmt.Sprintf(`<cp:coreProperties xmlns:cp="c" xmlns:dc="d"><dc:title>%s</dc:title><cp:keywords>%s</cp:keywords><cp:category>%s</cp:category><cp:contentStatus>%s</cp:contentStatus></cp:coreProperties>`,
			html.EscapeString(d.Title), html.EscapeString(d.Keywords), html.EscapeString(d.Category), html.EscapeString(d.Status)),
	}
	box := ""
	if d.Box != "" {
		// Word writes a box twice: for itself, and for those who do not know it.
		box = `<w:p><w:r><mc:AlternateContent><mc:Choice Requires="wps"><w:drawing><wp:anchor><wp:positionH><wp:posOffset>12700</wp:posOffset></wp:positionH><wps:txbx><w:txbxContent>` +
			Paragraphs(d.Box) + `</w:txbxContent></wps:txbx></wp:anchor></w:drawing></mc:Choice><mc:Fallback><w:pict><v:textbox><w:txbxContent>` +
			Paragraphs(d.Box) + `</w:txbxContent></v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r><w:r><w:t>Kính gửi:</w:t></w:r></w:p>`
	}
	files["word/document.xml"] = prolog + `<w:document ` + wordNS + `><w:body>` + box + Paragraphs(d.Body) + d.Raw + `</w:body></w:document>`
	for name, text := range map[string]string{"hdr": d.Header, "ftr": d.Footer} {
		mark := ""
		if name == "hdr" && d.Watermark != "" {
			mark = `<w:p><w:r><w:pict><v:shape><v:textpath style="font-size:1pt" string="` + html.EscapeString(d.Watermark) + `"/></v:shape></w:pict></w:r></w:p>`
		}
		if text+mark != "" {
			file := map[string]string{"hdr": "word/header1.xml", "ftr": "word/footer1.xml"}[name]
			files[file] = prolog + `<w:` + name + ` ` + wordNS + `>` + Paragraphs(text) + mark + `</w:` + name + `>`
		}
	}
	if d.Footnote != "" {
		files["word/footnotes.xml"] = prolog + `<w:footnotes ` + wordNS + `>` + Paragraphs(d.Footnote) + `</w:footnotes>`
	}
	if d.Comment != "" {
		files["word/comments.xml"] = prolog + `<w:comments ` + wordNS + `>` + Paragraphs(d.Comment) + `</w:comments>`
	}
	if len(d.Custom) > 0 {
		custom := prolog + `<Properties xmlns:vt="v">`
		for _, name := range slices.Sorted(maps.Keys(d.Custom)) {
			custom += fmt.Sprintf(`<property name="%s"><vt:lpwstr>%s</vt:lpwstr></property>`, html.EscapeString(name), html.EscapeString(d.Custom[name]))
		}
		files["docProps/custom.xml"] = custom + `</Properties>`
	}
	maps.Copy(files, d.More)
	return Zip(files)
}

// Zip puts files into a zip, in the order of their names.
func Zip(files map[string]string) []byte {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := z.Create(name)
		if err != nil {
			panic(err)
		}
		if _, err := f.Write([]byte(files[name])); err != nil {
			panic(err)
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}
