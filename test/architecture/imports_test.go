// Package architecture holds the test of the import rules: imports go
// downwards only, so that each part can be read, tested and replaced alone.
package architecture

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/truclienthong/truc"

// rules lists, for each part, which parts of ours its code may import. A part
// is the longest prefix in this table; a part may always import itself.
// Tests of a part may import more (they stand above it) and are not held to it.
var rules = map[string][]string{
	"proto":               {},
	"tls":                 {},
	"routing":             {"proto"},
	"consensus":           {"proto"},
	"relay/envelope":      {"proto", "routing", "relay/lifecycle"},
	"relay/lifecycle":     {"proto"},
	"relay/spool/journal": {},
	"relay/spool":         {"proto", "routing", "tls", "relay/envelope", "relay/lifecycle", "relay/spool/journal"},
	"relay/ingress":       {"proto", "routing", "tls", "relay/envelope", "relay/lifecycle"},
	"relay/forward":       {"proto", "routing", "tls", "relay/envelope", "relay/lifecycle"},
	"relay/ledger":        {"proto", "routing", "tls", "relay/envelope", "relay/lifecycle"},
	"relay/keeper":        {"proto", "routing", "tls", "relay/envelope", "relay/lifecycle"},
	"relay/dashboard":     {"proto", "routing", "tls", "relay/envelope", "relay/lifecycle"},
	"relay/agency":        {"proto", "tls", "relay/envelope"},
	"relay/agency/edxml":  {"proto", "tls", "relay/envelope"},
	"relay/agency/vxp":    {"proto", "tls", "relay/envelope", "relay/agency", "relay/agency/edxml"},
	"relay":               {"proto", "routing", "tls", "relay/envelope", "relay/lifecycle", "relay/spool", "relay/ingress", "relay/forward", "relay/ledger", "relay/keeper", "relay/dashboard"},
	"cmd":                 {"*"},
	"test":                {"*"},
}

// A new folder at the top, or a new part of the relay, has to find its place in
// the table first; then every import of ours has to be one the table allows.
func TestImportsGoDownwards(t *testing.T) {
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatalf("the project's root: %v", err)
	}
	checked := 0
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && file != root {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		dir := path.Dir(filepath.ToSlash(rel))
		from := partOf(dir)
		if from == "" {
			t.Errorf("%s: folder %q has no place in the import rules", rel, dir)
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			target, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			target, ours := strings.CutPrefix(target, module+"/")
			if !ours {
				continue
			}
			checked++
			if to := partOf(target); !allowed(from, to) {
				t.Errorf("%s imports %s: %s may not import %s", rel, target, from, to)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked == 0 {
		t.Fatal("no import of ours was seen: the test looks in the wrong place")
	}
}

// Only tls builds a tls.Config.
func TestOneBuilderOfTLSConfigs(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && file != root {
			return filepath.SkipDir
		}
		rel, _ := filepath.Rel(root, file)
		if d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") ||
			strings.HasPrefix(filepath.ToSlash(rel), "tls/") {
			return nil
		}
		source, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.Contains(string(source), "tls.Config{") && strings.Contains(string(source), `"crypto/tls"`) {
			t.Errorf("%s builds a tls.Config: only package tls does", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func partOf(dir string) string {
	best := ""
	for part := range rules {
		if (dir == part || strings.HasPrefix(dir, part+"/")) && len(part) > len(best) {
			best = part
		}
	}
	return best
}

func allowed(from, to string) bool {
	if from == to {
		return true
	}
	for _, part := range rules[from] {
		if part == "*" || part == to {
			return true
		}
	}
	return false
}
