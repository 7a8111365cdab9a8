package agency

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// errLocked: another process, or another part of this one, works on a folder.
var errLocked = errors.New("another connector works on it just now")

// makeDir makes dir and what is missing above it, durably.
func makeDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("%s is no folder", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	above := filepath.Dir(filepath.Clean(dir))
	if err := makeDir(above); err != nil {
		return err
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(above)
}

// syncDir makes the names in a folder durable. Windows has no such call and
// needs none for what its file systems journal.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func writeSynced(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(content); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

// removeOthers takes out of dir what an earlier try left under other names.
func removeOthers(dir string, names []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if slices.Contains(names, entry.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// fileNames gives each part a file name of its own that stays in its folder:
// relays check names, but a file name from elsewhere is believed by nobody.
// The same parts get the same names every time, so that a Save can be resumed.
// None is called envelope.json, or as one of the reserved.
func fileNames(parts []*exchangev1.Part, reserved ...string) []string {
	used := map[string]bool{envelopeFile: true}
	for _, name := range reserved {
		used[name] = true
	}
	names := make([]string, len(parts))
	for i, part := range parts {
		base := localName(part.GetName(), i)
		name := base
		for n := 2; used[strings.ToLower(name)]; n++ {
			ending := filepath.Ext(base)
			if ending == base || len(ending) > 32 {
				ending = ""
			}
			number := fmt.Sprintf(" (%d)", n)
			name = shorten(strings.TrimSuffix(base, ending), maxName-len(number)-len(ending)) + number + ending
		}
		used[strings.ToLower(name)] = true
		names[i] = name
	}
	return names
}

// maxName is the longest file name in bytes that common file systems take.
const maxName = 255

func localName(name string, i int) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r == '/' || r == '\\' || r == utf8.RuneError || unicode.IsControl(r),
			r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069,
			runtime.GOOS == "windows" && strings.ContainsRune(`<>:"|?*`, r):
			return '_'
		}
		return r
	}, name)
	name = strings.TrimRight(name, ". ")
	if name == "" || !filepath.IsLocal(name) {
		return fmt.Sprintf("part-%d", i+1)
	}
	return shorten(name, maxName)
}

// shorten cuts s to at most n bytes, between characters.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
