package agency_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/agency/agencytest"
	"github.com/truclienthong/truc/relay/envelope"
)

// arrive submits one document of files with the given names, and receives it.
func arrive(t *testing.T, mesh *agencytest.Mesh, size int, names ...string) *agency.Arrival {
	t.Helper()
	var sources []agency.Source
	for i, name := range names {
		sources = append(sources, agency.BytesSource(name, content(size+i)))
	}
	sender := newClient(t, configOf(t, mesh, "G22"))
	if _, err := sender.Submit(testContext(t), agency.Document{Header: header(fmt.Sprint(mesh.Accepted()), "H26"), Parts: sources}); err != nil {
		t.Fatal(err)
	}
	all := receiveAll(t, newClient(t, configOf(t, mesh, "H26")))
	return all[len(all)-1]
}

// tree lists what is below dir, hidden or not.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, path); rel != "." {
			paths = append(paths, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestSaveWritesTheFolder(t *testing.T) {
	mesh := newMesh(t, bac)
	a := arrive(t, mesh, 100, "công văn.pdf", "phụ lục.docx")
	dir := filepath.Join(t.TempDir(), "not", "yet", "there")
	var last agency.Progress
	a.Progress = func(p agency.Progress) { last = p }
	saved, err := a.Save(testContext(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := (agency.Progress{Done: 201, Total: 201}); last != want {
		t.Errorf("progress at the end %+v, want %+v", last, want)
	}
	id := a.ID.String()
	want := []string{id, id + "/.unconfirmed", id + "/công văn.pdf", id + "/envelope.json", id + "/phụ lục.docx"}
	if got := tree(t, dir); !slices.Equal(got, want) {
		t.Errorf("folder holds %q, want %q", got, want)
	}
	for i, f := range saved.Files {
		checkFile(t, f.Path, content(100+i))
	}
	text, err := os.ReadFile(filepath.Join(saved.Dir, "envelope.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		EnvelopeID string `json:"envelope_id"`
		Agency     string `json:"agency"`
		Files      []struct{ Name, File, SHA256 string }
		Envelope   json.RawMessage
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	e := new(exchangev1.Envelope)
	if err := protojson.Unmarshal(d.Envelope, e); err != nil {
		t.Fatal(err)
	}
	if computed, _, err := envelope.HeaderID(e.GetHeader()); err != nil || computed.String() != d.EnvelopeID || d.EnvelopeID != id {
		t.Errorf("the header in envelope.json gives id %s, %v; want %s", computed, err, id)
	}
	if d.Agency != "H26" || len(d.Files) != 2 || d.Files[1].File != "phụ lục.docx" || d.Files[1].SHA256 != hex.EncodeToString(a.Envelope.GetHeader().GetParts()[1].GetSha256()) {
		t.Errorf("envelope.json says %s", text)
	}
	if !strings.Contains(string(text), `"document_id"`) {
		t.Errorf("envelope.json does not use the names of the contract: %s", text)
	}
}

func TestSaveIsWholeOrNotAtAll(t *testing.T) {
	const size = 300_000
	for _, n := range []int{1, 3, 7, 10} {
		mesh := newMesh(t, bac)
		a := arrive(t, mesh, size, "a.pdf", "b.pdf")
		dir := t.TempDir()
		id := a.ID.String()
		before := mesh.Count(agencytest.FetchSend)
		mesh.Fault(failOnce(agencytest.FetchSend, n, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, "gone")))
		if _, err := a.Save(testContext(t), dir); err == nil {
			t.Fatalf("cut at piece %d: got no error", n)
		}
		if _, err := os.Stat(filepath.Join(dir, id)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("cut at piece %d: the folder is there", n)
		}
		// The next process goes on where this one stopped.
		mesh.Fault(nil)
		next := receiveAll(t, newClient(t, configOf(t, mesh, "H26")))[0]
		saved, err := next.Save(testContext(t), dir)
		if err != nil {
			t.Fatal(err)
		}
		checkFile(t, saved.Files[0].Path, content(size))
		checkFile(t, saved.Files[1].Path, content(size+1))
		if sent := mesh.Count(agencytest.FetchSend) - before; sent != 11 {
			t.Errorf("cut at piece %d: %d pieces were sent, want 11: what was on disk must not travel again", n, sent)
		}
		if got := tree(t, dir); len(got) != 5 || strings.HasPrefix(got[0], ".") {
			t.Errorf("cut at piece %d: left behind %q", n, got)
		}
	}
}

// Each state in which a process can have died leads to the same folder.
func TestSaveGoesOnFromWhateverWasLeft(t *testing.T) {
	good := content(1000)
	wrong := append([]byte{good[0] ^ 1}, good[1:]...)
	a := arrive(t, newMesh(t, bac), 1000, "a.pdf")
	for name, left := range map[string]map[string][]byte{
		"an empty folder":           {},
		"an empty file":             {"a.pdf": nil},
		"the beginning":             {"a.pdf": good[:300]},
		"a damaged beginning":       {"a.pdf": wrong[:300]},
		"the whole file":            {"a.pdf": good},
		"the whole file, damaged":   {"a.pdf": wrong},
		"more than the file":        {"a.pdf": append(slices.Clone(good), 1, 2, 3)},
		"half of the description":   {"a.pdf": good, "envelope.json": []byte(`{"envelope_`)},
		"what is none of its files": {"a.pdf": good, "other.pdf": good, "envelope.json": nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			partial := filepath.Join(dir, "."+a.ID.String()+".partial")
			if err := os.Mkdir(partial, 0o700); err != nil {
				t.Fatal(err)
			}
			for file, content := range left {
				if err := os.WriteFile(filepath.Join(partial, file), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			saved, err := a.Save(testContext(t), dir)
			if err != nil {
				t.Fatal(err)
			}
			checkFile(t, saved.Files[0].Path, good)
			id := a.ID.String()
			if got, want := tree(t, dir), []string{id, id + "/.unconfirmed", id + "/a.pdf", id + "/envelope.json"}; !slices.Equal(got, want) {
				t.Errorf("folder holds %q, want %q", got, want)
			}
		})
	}
}

func TestSaveWritesOnce(t *testing.T) {
	mesh := newMesh(t, bac)
	a := arrive(t, mesh, 1000, "a.pdf")
	dir := t.TempDir()
	first, err := a.Save(testContext(t), dir)
	if err != nil || first.Repeat {
		t.Fatalf("first: %+v, %v", first, err)
	}
	// What the agency did with the file is not undone.
	if err := os.WriteFile(first.Files[0].Path, []byte("đã xử lý"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := receiveAll(t, newClient(t, configOf(t, mesh, "H26")))[0].Save(testContext(t), dir)
	if err != nil || !again.Repeat || again.Dir != first.Dir || fmt.Sprint(again.Files) != fmt.Sprint(first.Files) {
		t.Errorf("again: %+v, %v; want the folder of %+v", again, err, first)
	}
	checkFile(t, first.Files[0].Path, []byte("đã xử lý"))

	for _, c := range []struct {
		name  string
		spoil func() error
	}{
		{"of another envelope", func() error { return os.WriteFile(filepath.Join(first.Dir, "envelope.json"), []byte(`{}`), 0o600) }},
		{"without description", func() error { return os.Remove(filepath.Join(first.Dir, "envelope.json")) }},
		{"that is a file itself", func() error { return errors.Join(os.RemoveAll(first.Dir), os.WriteFile(first.Dir, nil, 0o600)) }},
	} {
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Save(testContext(t), dir); err == nil || !strings.Contains(err.Error(), "move it away") {
			t.Errorf("a folder %s: got %v, want to be told what to do", c.name, err)
		}
	}
}

func TestSaveRefetchesDamage(t *testing.T) {
	for name, size := range map[string]int{"inline": 1000, "fetched": 200_000 * 2} {
		mesh := newMesh(t, bac)
		var mu sync.Mutex
		damaged := 0
		mesh.Damage(func(_ string, _ int, data []byte) []byte {
			mu.Lock()
			defer mu.Unlock()
			if damaged++; damaged == 1 {
				data[0] ^= 1
			}
			return data
		})
		a := arrive(t, mesh, size, "a.pdf")
		saved, err := a.Save(testContext(t), t.TempDir())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		checkFile(t, saved.Files[0].Path, content(size))

		mesh.Damage(func(_ string, _ int, data []byte) []byte { data[0] ^= 1; return data })
		dir := t.TempDir()
		if _, err := arrive(t, mesh, size, "b.pdf").Save(testContext(t), dir); !errors.Is(err, agency.ErrDamaged) {
			t.Errorf("%s, always damaged: got %v, want ErrDamaged", name, err)
		}
		for _, path := range tree(t, dir) {
			if !strings.HasPrefix(path, ".") {
				t.Errorf("%s, always damaged: %s appeared", name, path)
			}
		}
	}
}

func TestSaveKeepsFilesApart(t *testing.T) {
	mesh := newMesh(t, bac)
	long := strings.Repeat("x", 196) + ".pdf"
	a := arrive(t, mesh, 10, "a.pdf", "a.pdf", "A.PDF", "envelope.json", "none", "none", long, long)
	dir := t.TempDir()
	saved, err := a.Save(testContext(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i, f := range saved.Files {
		names = append(names, filepath.Base(f.Path))
		checkFile(t, f.Path, content(10+i))
	}
	want := []string{"a.pdf", "a (2).pdf", "A (3).PDF", "envelope (2).json", "none", "none (2)", long, long[:196] + " (2).pdf"}
	if !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
}

// A relay that is not to be believed sends names that no honest one accepts.
func TestSaveStaysInItsFolder(t *testing.T) {
	mesh := newMesh(t, bac)
	a := arrive(t, mesh, 10, "1", "2", "3", "4", "5", "6")
	for i, name := range []string{"../../evil", "/etc/passwd", "..", "", "x\x00y", strings.Repeat("đ", 200)} {
		a.Envelope.Header.Parts[i].Name = name
	}
	dir := t.TempDir()
	saved, err := a.Save(testContext(t), filepath.Join(dir, "in"))
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range saved.Files {
		if filepath.Dir(f.Path) != saved.Dir || len(filepath.Base(f.Path)) > 255 {
			t.Errorf("part %d went to %q", i, f.Path)
		}
		checkFile(t, f.Path, content(10+i))
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("beside the folder: %v, %v", entries, err)
	}
}

func TestSaveAtOnce(t *testing.T) {
	mesh := newMesh(t, bac)
	first := arrive(t, mesh, 300_000, "a.pdf")
	second := receiveAll(t, newClient(t, configOf(t, mesh, "H26")))[0]
	dir := t.TempDir()
	reached, goOn := make(chan struct{}), make(chan struct{})
	mesh.Fault(func(_ string, step agencytest.Step) error {
		if step == agencytest.FetchSend && mesh.Count(step) == 2 {
			close(reached)
			<-goOn
		}
		return nil
	})
	var one sync.WaitGroup
	one.Go(func() {
		if _, err := first.Save(testContext(t), dir); err != nil {
			t.Errorf("the first: %v", err)
		}
	})
	<-reached
	if _, err := second.Save(testContext(t), dir); err == nil || !strings.Contains(err.Error(), "another connector") {
		t.Errorf("the second, while the first is writing: got %v, want it kept out", err)
	}
	close(goOn)
	one.Wait()
	if saved, err := second.Save(testContext(t), dir); err != nil || !saved.Repeat {
		t.Errorf("the second, after the first: %+v, %v; want the folder of the first", saved, err)
	}
}
