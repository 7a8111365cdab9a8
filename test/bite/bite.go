// Package bite shows that the suites of the torture can fail: it takes one
// promise of the code away at a time, runs a suite against what is left, and
// demands that the suite reports a violation.
//
// A mutation is a replacement of text in one or more files. The changed files
// are handed to the compiler by `go -overlay`, so no checkout is changed, and
// the relayd processes that a suite builds have the mutation too. That every
// replacement still finds its text is tested by `go test ./...`; the runs
// themselves take minutes, and are begun with `make bite`.
package bite

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Mutation takes one promise away.
type Mutation struct {
	// Name says what is missing, for people.
	Name  string
	Edits []Edit
	// Runs are the suites that have to notice, each by itself.
	Runs []Run
}

// Edit replaces a text that is in a file exactly once.
type Edit struct {
	// File from the root of the module.
	File     string
	Old, New string
}

// Run is a suite that has to fail under the mutation.
type Run struct {
	// Suite is the package seen from test/, Test the test in it.
	Suite, Test string
	Seed        uint64
	// Env are further variables, as "TORTURE_SEEDS=200".
	Env []string
	// Want is a regular expression that a line of the report has to match.
	Want string
}

// apply returns the text of the file with every edit of it made.
func (m Mutation) apply(root, file string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		return nil, err
	}
	for _, e := range m.Edits {
		if e.File != file {
			continue
		}
		if n := bytes.Count(text, []byte(e.Old)); n != 1 {
			return nil, fmt.Errorf("mutation %q: %s has the text %q %d times, want once", m.Name, file, e.Old, n)
		}
		text = bytes.Replace(text, []byte(e.Old), []byte(e.New), 1)
	}
	return text, nil
}

// Overlay writes the changed files and the overlay below dir, and returns the
// overlay's name for `go -overlay`.
func (m Mutation) Overlay(root, dir string) (string, error) {
	replace := map[string]string{}
	for i, e := range m.Edits {
		text, err := m.apply(root, e.File)
		if err != nil {
			return "", err
		}
		changed := filepath.Join(dir, fmt.Sprintf("%d-%s", i, filepath.Base(e.File)))
		if err := os.WriteFile(changed, text, 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(root, e.File)] = changed
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, overlay, 0o644)
}
