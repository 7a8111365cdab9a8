// Package docx reads the text of DOCX files, for those who look for a mark in it
// (ECMA-376: a zip of XML). Its siblings for tables and slides are made the same
// way, and so are those of OpenDocument; they are read too.
//
// It promises that Text never panics, ends, and takes memory in proportion to the
// file and no more, whatever the bytes are: what a zip unfolds into is paid for out
// of a budget that the file's size sets, so that the same file has the same text on
// every machine.
//
// It reads text, headers and footers, text boxes, footnotes, the words of drawings
// and of watermarks, and the properties of the document. It does not read pictures,
// what was deleted with changes tracked, remarks beside the text, and files locked
// with a password, which are no zip.
package docx

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// What keeps Text from having read everything; what it has read it returns all
// the same.
var (
	// ErrNotDOCX: a zip of something else.
	ErrNotDOCX = errors.New("no DOCX file")
	// ErrDamaged: a part of it cannot be read.
	ErrDamaged = errors.New("the DOCX file is damaged")
	// ErrLimit: it unfolds into more than its size allows.
	ErrLimit = errors.New("the DOCX file unfolds into too much")
)

// The budget, in bytes of XML: that of real files is five to twenty times the file.
const (
	unfoldBase    = 4 << 20
	unfoldPerByte = 64
	unfoldMost    = 64 << 20
)

// maxText is the most text that is kept, in bytes; maxNames how many bytes of the
// file its table of contents may take.
const (
	maxText  = 8 << 20
	maxNames = 2 << 20
)

// Content is what was read.
type Content struct {
	// Texts are the text of the document, and each header, footer and so on by
	// itself: a line for each paragraph or cell.
	Texts []string
	// Titles are the texts that describe the document, Fields its properties, as
	// "name: value".
	Titles, Fields []string
}

// Is reports whether a file that begins with head is a zip.
func Is(head []byte) bool { return bytes.HasPrefix(head, []byte("PK\x03\x04")) }

// Text reads a file. The content is what could be read, also beside an error.
func Text(file []byte) (content Content, err error) {
	// Hostile bytes are expected and met by checks; should one be missing, a relay
	// goes on, and what was read so far is looked at.
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("DOCX file: %v", fault)
		}
	}()
	files, err := Entries(file)
	if err != nil {
		return content, err
	}
	budget := min(unfoldMost, unfoldBase+unfoldPerByte*int64(len(file)))
	known := false
	var damage error
	for _, f := range files {
		role := roleOf(f.Name)
		if role == nothing {
			continue
		}
		known = known || role == text
		r, err := f.Open()
		if err != nil {
			damage = errors.Join(ErrDamaged, err)
			continue
		}
		in := &limited{r: r, left: &budget}
		err = content.read(in, role, !strings.Contains(f.Name, "/"))
		_ = r.Close()
		switch {
		case budget < 0:
			return content, ErrLimit
		case err != nil:
			damage = errors.Join(ErrDamaged, err)
		}
	}
	if !known {
		return Content{}, ErrNotDOCX
	}
	return content, damage
}

// Entries reads the table of contents of a zip, in the order of names, with no file in
// memory. It must be of a sensible size: the library
// keeps all of it.
func Entries(file []byte) ([]*zip.File, error) {
	r := &counted{Reader: bytes.NewReader(file), left: maxNames}
	z, err := zip.NewReader(r, int64(len(file)))
	switch {
	case r.left < 0:
		return nil, ErrLimit
	case err != nil:
		return nil, errors.Join(ErrDamaged, err)
	}
	r.left = 1 << 62 // what follows is bounded by what it unfolds into
	files := slices.Clone(z.File)
	slices.SortStableFunc(files, func(a, b *zip.File) int { return strings.Compare(a.Name, b.Name) })
	return files, nil
}

// counted reads at most left bytes.
type counted struct {
	*bytes.Reader
	left int64
}

func (c *counted) ReadAt(p []byte, at int64) (int, error) {
	if c.left -= int64(len(p)); c.left < 0 {
		return 0, ErrLimit
	}
	return c.Reader.ReadAt(p, at)
}

// limited reads from r what is left of the budget.
type limited struct {
	r    io.Reader
	left *int64
}

func (l *limited) Read(p []byte) (int, error) {
	if *l.left < 0 {
		return 0, ErrLimit
	}
	n, err := l.r.Read(p)
	if *l.left -= int64(n); *l.left < 0 {
		return 0, ErrLimit
	}
	return n, err
}

// role is what a file of the zip is for.
type role uint8

const (
	nothing role = iota
	text
	title // properties that describe
	field // properties with names
)

// roleOf tells by name; names are those that programs write, as everybody who reads
// these files relies on.
func roleOf(file string) role {
	file = strings.ToLower(file)
	if path.Ext(file) != ".xml" {
		return nothing
	}
	dir, base := path.Split(file)
	switch {
	case file == "docprops/core.xml", file == "docprops/app.xml", file == "meta.xml":
		return title
	case file == "docprops/custom.xml":
		return field
	case strings.HasPrefix(base, "comments"), strings.HasPrefix(base, "people"), strings.HasPrefix(base, "styles") && strings.HasPrefix(dir, "word/"),
		base == "settings.xml", base == "fonttable.xml", base == "websettings.xml", strings.HasPrefix(base, "theme"):
		return nothing
	case dir == "word/", strings.HasPrefix(dir, "word/diagrams/"), strings.HasPrefix(dir, "word/charts/"):
		return text
	case strings.HasPrefix(dir, "ppt/slide"), dir == "ppt/notesslides/", strings.HasPrefix(dir, "xl/"):
		return text
	case file == "content.xml", file == "styles.xml": // OpenDocument; its headers are styles
		return text
	}
	return nothing
}
