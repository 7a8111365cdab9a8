package secrecy

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/truclienthong/truc/relay/envelope/secrecy/docx"
	"github.com/truclienthong/truc/relay/envelope/secrecy/pdf"
)

// MaxContent is the size of the largest file that is looked into, in bytes; those
// of documents have 2 to 370 KB. What is larger is mostly pictures.
const MaxContent = 32 << 20

// headSize is as much of a file as tells what it is.
const headSize = 1024

// ErrTooLarge: a file that would be looked into is larger than MaxContent.
var ErrTooLarge = fmt.Errorf("it is larger than %d MiB", MaxContent>>20)

// Guard looks for marks in files. It promises:
//   - The same file has the same answer on every machine, at any load: work is
//     counted and not timed.
//   - Whatever a file holds, an answer comes; the work for it is bounded by the
//     file's size. At most as many files as the guard has places are in memory
//     together.
//   - Of a file that is neither PDF nor DOCX nothing but the first KiB is read.
//
// A Guard is for use by many goroutines.
type Guard struct{ places chan struct{} }

// NewGuard returns a guard with as many places.
func NewGuard(places int) *Guard { return &Guard{make(chan struct{}, max(1, places))} }

// Finding is what a guard found in a file.
type Finding struct {
	Mark Mark
	// Unread is why not everything that should be was looked into, nil if it was:
	// a locked, damaged or too large file is none that bears a mark.
	Unread error
}

// Look looks into a file, of which r gives the bytes, as many as size says. The
// error is that of r or the end of ctx, never that of what the file holds.
func (g *Guard) Look(ctx context.Context, r io.Reader, size uint64) (Finding, error) {
	head := make([]byte, min(headSize, size))
	if _, err := io.ReadFull(r, head); err != nil {
		return Finding{}, err
	}
	switch {
	case !pdf.Is(head) && !docx.Is(head):
		return Finding{}, nil
	case size > MaxContent:
		return Finding{Unread: ErrTooLarge}, nil
	}
	select {
	case g.places <- struct{}{}:
		defer func() { <-g.places }()
	case <-ctx.Done():
		return Finding{}, context.Cause(ctx)
	}
	file := make([]byte, size)
	copy(file, head)
	if _, err := io.ReadFull(r, file[len(head):]); err != nil {
		return Finding{}, err
	}
	mark, unread := InFile(file)
	return Finding{mark, unread}, nil
}

// InFile finds the highest mark that a PDF or DOCX file shows, or one in a zip. The
// error says why not all of it was read; other files have none.
func InFile(file []byte) (Mark, error) {
	head := file[:min(len(file), headSize)]
	var found Mark
	var unread error
	if docx.Is(head) {
		if found, unread = inDOCX(file); errors.Is(unread, docx.ErrNotDOCX) {
			found, unread = inZip(file)
		}
	}
	// A file may be both, and then either is shown, by the program that opens it.
	if pdf.Is(head) {
		m, err := inPDF(file)
		found, unread = max(found, m), errors.Join(unread, err)
	}
	return found, unread
}

func inPDF(file []byte) (Mark, error) {
	content, err := pdf.Text(file)
	return max(InText(content.Shown), described(content.Titles), filled(content.Fields)), err
}

func inDOCX(file []byte) (Mark, error) {
	content, err := docx.Text(file)
	found := max(described(content.Titles), filled(content.Fields))
	for _, text := range content.Texts {
		found = max(found, InText(text))
	}
	return found, err
}

// described finds a mark in what describes a document: its title, or one of its
// keywords.
func described(titles []string) Mark {
	found := None
	for _, title := range titles {
		found = max(found, InTitle(title))
		for _, word := range strings.FieldsFunc(title, func(r rune) bool { return r == ',' || r == ';' }) {
			word = plain(word)
			if m, large := alone(word); large {
				found = max(found, m)
			}
		}
	}
	return found
}

// filled finds a mark in the fields of a form, or the properties of a document.
func filled(fields []string) Mark {
	found := None
	for _, f := range fields {
		found = max(found, InText(f))
	}
	return found
}

// Bounds of a zip of documents: how many are looked into, and how many bytes they
// are together.
const (
	maxEntries  = 200
	maxUnpacked = 64 << 20
)

// documents are the endings of files that are looked into.
var documents = map[string]bool{
	".pdf": true, ".docx": true, ".docm": true, ".dotx": true, ".xlsx": true, ".xlsm": true, ".pptx": true, ".pptm": true,
	".odt": true, ".ods": true, ".odp": true,
}

// inZip looks into the files of a zip, and into no zip in it.
func inZip(file []byte) (found Mark, unread error) {
	files, err := docx.Entries(file)
	if err != nil {
		return None, err
	}
	left, looked := int64(maxUnpacked), 0
	for _, f := range files {
		if !documents[strings.ToLower(path.Ext(f.Name))] {
			continue
		}
		if looked++; looked > maxEntries {
			return found, docx.ErrLimit
		}
		inside, err := unpack(f, min(left, MaxContent))
		if err != nil {
			unread = err
			continue
		}
		left -= int64(len(inside))
		m, err := inDOCX(inside)
		if pdf.Is(inside[:min(len(inside), headSize)]) {
			m, err = inPDF(inside)
		}
		found = max(found, m)
		if err != nil {
			unread = err
		}
	}
	return found, unread
}

func unpack(f *zip.File, most int64) ([]byte, error) {
	if f.UncompressedSize64 > uint64(max(0, most)) {
		return nil, docx.ErrLimit
	}
	r, err := f.Open()
	if err != nil {
		return nil, errors.Join(docx.ErrDamaged, err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(r, most)); err != nil {
		return nil, errors.Join(docx.ErrDamaged, err)
	}
	return b.Bytes(), nil
}
