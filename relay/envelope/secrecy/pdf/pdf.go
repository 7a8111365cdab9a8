// Package pdf reads the text that a PDF file shows, for those who look for a mark
// in it (ISO 32000-1).
//
// It promises:
//   - Text never panics, ends, and takes memory in proportion to the file and no
//     more, whatever the bytes are: all that is inflated, parsed and drawn is paid
//     for out of one budget of work, counted and not timed, so that the same file
//     has the same text on every machine.
//   - What stands on the page in one line comes back in one line, however the
//     program that wrote the file cut it up: letters are joined by their positions,
//     also where they are turned, and columns are kept apart.
//   - Objects are found where they lie, not by the cross-reference table, so a
//     damaged table hides nothing that a forgiving viewer shows.
//
// It reads what pages draw, the forms they draw with, stamps, notes and fields put
// on them, the description of the document and the words that stand for pictures.
// It does not read pictures, text whose font does not say what its characters are,
// and files locked with a password.
package pdf

import (
	"bytes"
	"errors"
	"fmt"
)

// What keeps Text from having read everything; what it has read it returns all
// the same.
var (
	// ErrNotPDF: no object was found.
	ErrNotPDF = errors.New("no PDF file")
	// ErrLocked: the file is encrypted, and no password is asked of anyone here.
	ErrLocked = errors.New("the PDF file is encrypted")
	// ErrLimit: the file asks for more work than its size allows.
	ErrLimit = errors.New("the PDF file unfolds into too much")
)

// The budget of work: a byte inflated or parsed, or a letter drawn, is one or a
// few. Real files take two to twenty for each of their bytes.
const (
	workBase    = 8 << 20
	workPerByte = 64
	workMost    = 256 << 20
)

// maxText is the most text that is kept, in bytes.
const maxText = 8 << 20

// Content is what was read.
type Content struct {
	// Shown is what pages and what is put on them show: a line for each line, an
	// empty one between blocks.
	Shown string
	// Titles are the texts that describe the document, Fields those of its forms,
	// as "name: value".
	Titles, Fields []string
}

// Is reports whether a file that begins with head is a PDF file; viewers take
// the sign anywhere in the first 1,024 bytes.
func Is(head []byte) bool {
	return bytes.Contains(head[:min(len(head), 1024)], []byte("%PDF-"))
}

// Text reads a file. The content is what could be read, also beside an error.
func Text(file []byte) (content Content, err error) {
	work := &work{left: min(workMost, workBase+workPerByte*int64(len(file)))}
	// Hostile bytes are expected and met by checks; should one be missing, a relay
	// goes on, and what was read so far is looked at.
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("PDF file: %v", fault)
		}
	}()
	d := &document{file: file, work: work, objects: map[int]place{}, fonts: map[int]*font{}, forms: map[int][]byte{}}
	d.find()
	switch {
	case d.locked:
		return content, ErrLocked
	case len(d.objects) == 0:
		return content, ErrNotPDF
	}
	d.read(&content)
	if work.out() {
		return content, ErrLimit
	}
	return content, nil
}

// work is the budget.
type work struct{ left int64 }

// spend takes n, and reports whether there was enough.
func (w *work) spend(n int) bool {
	w.left -= int64(n)
	return w.left >= 0
}

func (w *work) out() bool { return w.left < 0 }
