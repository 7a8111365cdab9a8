package envelope

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Bounds of a file name: the standard counts characters, file systems bytes.
const (
	maxNameCharacters = 200
	maxNameBytes      = 255
)

// CleanName makes a file name that Check accepts out of one that a local
// system uses, where only its normal form is at fault; other faults are left
// for Check to report.
func CleanName(name string) string { return norm.NFC.String(name) }

// nameFaults returns everything wrong with the name of a part.
func nameFaults(name string) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if name == "" {
		fault("is missing")
		return faults
	}
	if !utf8.ValidString(name) {
		// Found with the other texts.
		return nil
	}
	if n := utf8.RuneCountInString(name); n > maxNameCharacters {
		fault("has %d characters, at most %d are allowed", n, maxNameCharacters)
	}
	if len(name) > maxNameBytes {
		fault("has %d bytes, at most %d are allowed", len(name), maxNameBytes)
	}
	if strings.ContainsAny(name, `/\`) {
		fault("holds a path: give the file name alone")
	}
	if name == "." || name == ".." {
		fault("%q is no file name", name)
	} else if strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") {
		fault("ends in a dot or a blank, which some systems drop")
	}
	for _, r := range name {
		// Other control characters are found with the other texts.
		if r == '\t' || r == '\n' || r == '\r' || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			fault("holds the control character %U", r)
			break
		}
	}
	for _, r := range name {
		if r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			fault("holds %U, which changes the direction of writing and can hide the ending", r)
			break
		}
	}
	if !norm.NFC.IsNormalString(name) {
		fault("is not in normal form C of Unicode")
	}
	return faults
}
