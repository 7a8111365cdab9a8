package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/truclienthong/truc/cmd/internal/cli"
	conn "github.com/truclienthong/truc/cmd/internal/operator"
	"github.com/truclienthong/truc/test/mesh"
)

// console runs commands of this program against a mesh.
type console struct {
	*mesh.Mesh
	t *testing.T
	// stdin is what the next command reads.
	stdin string
}

func newConsole(t *testing.T) *console {
	return &console{Mesh: mesh.Start(t, mesh.Config{}), t: t}
}

// ran is what a command printed and how it ended.
type ran struct {
	stdout, stderr string
	code           int
}

func (o *console) run(ctx context.Context, args ...string) ran {
	var stdout, stderr bytes.Buffer
	root := newRoot()
	root.SetIn(strings.NewReader(o.stdin))
	o.stdin = ""
	code := cli.Execute(ctx, root, append(args, "--profile", o.Layout.Profile("operator")), &stdout, &stderr)
	return ran{stdout.String(), stderr.String(), code}
}

// do runs a command that has to succeed and returns its JSON objects.
func (o *console) do(args ...string) []map[string]any {
	o.t.Helper()
	r := o.run(o.t.Context(), append(args, "-o", "json")...)
	if r.code != 0 {
		o.t.Fatalf("%s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.objects(o.t)
}

// refused runs a command that has to end with 1 and say each of the words.
func (o *console) refused(args []string, words ...string) ran {
	o.t.Helper()
	r := o.run(o.t.Context(), args...)
	if r.code != 1 {
		o.t.Fatalf("%s: exit %d, want 1\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	for _, word := range words {
		if !strings.Contains(r.stdout+r.stderr, word) {
			o.t.Errorf("%s: got %q, want %q in it", strings.Join(args, " "), r.stdout+r.stderr, word)
		}
	}
	return r
}

func (r ran) objects(t *testing.T) (objects []map[string]any) {
	t.Helper()
	for line := range strings.Lines(r.stdout) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		objects = append(objects, object)
	}
	return objects
}

// until runs a command until what it prints is as it should be.
func (o *console) until(what string, ready func([]map[string]any) bool, args ...string) []map[string]any {
	o.t.Helper()
	var last []map[string]any
	o.Await(what, func(context.Context) error {
		if last = o.do(args...); !ready(last) {
			return fmt.Errorf("%s: %v", strings.Join(args, " "), last)
		}
		return nil
	})
	return last
}

// files are some files to send.
func files(name string) mesh.Files {
	return mesh.Files{name + ".txt": []byte("nội dung của " + name)}
}

func (o *console) temp(name string) string {
	o.t.Helper()
	return filepath.Join(o.t.TempDir(), name)
}

func (o *console) read(file string) []byte {
	o.t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		o.t.Fatal(err)
	}
	return content
}

// connectAs returns the operator's connection, as a command has it.
func connectAs(t *testing.T, o *console) (*conn.Conn, error) {
	t.Helper()
	profile, err := conn.LoadProfile(o.Layout.Profile("operator"))
	if err != nil {
		return nil, err
	}
	return conn.Connect(t.Context(), profile, slog.New(slog.DiscardHandler))
}
