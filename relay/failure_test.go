package relay_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// disk is the operating system's, until it fails to sync; how much of it is free
// is what a test says.
type disk struct {
	broken atomic.Bool
	used   atomic.Uint64 // bytes of diskSize
	looks  atomic.Uint64 // at what is free
	stuck  sync.RWMutex  // held, it has syncs wait
}

const diskSize = 1 << 40

var errDisk = errors.New("input/output error")

type nobody struct{}

func (nobody) Close() error { return nil }

func (*disk) MakeDir(dir string) error       { return os.MkdirAll(dir, 0o755) }
func (*disk) Lock(string) (io.Closer, error) { return nobody{}, nil }
func (*disk) Rename(from, to string) error   { return os.Rename(from, to) }
func (*disk) Remove(name string) error       { return os.Remove(name) }
func (*disk) SyncDir(string) error           { return nil }
func (d *disk) Space(string) (free, total uint64, err error) {
	d.looks.Add(1)
	return diskSize - d.used.Load(), diskSize, nil
}

func (d *disk) Create(name string) (journal.File, error) {
	f, err := os.Create(name)
	return &diskFile{f, d}, err
}

func (d *disk) Open(name string, _ bool) (journal.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	return &diskFile{f, d}, err
}

func (*disk) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Base(e.Name()))
	}
	return names, err
}

type diskFile struct {
	*os.File
	disk *disk
}

func (f *diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *diskFile) Allocate(size int64) error    { return f.Truncate(size) }
func (f *diskFile) WriteBack(int64, int64) error { return nil }
func (f *diskFile) WriteAt(parts [][]byte, off int64) error {
	for _, part := range parts {
		if _, err := f.File.WriteAt(part, off); err != nil {
			return err
		}
		off += int64(len(part))
	}
	return nil
}

func (f *diskFile) Sync() error {
	f.disk.stuck.RLock()
	defer f.disk.stuck.RUnlock()
	if f.disk.broken.Load() {
		return errDisk
	}
	return nil
}

// A disk that fails to sync stops the relay: no receipt, nothing served any
// more, and Run says why.
func TestDiskThatFailsStopsTheRelay(t *testing.T) {
	m := newMesh(t)
	d := new(disk)
	n := m.start("bac", func(c *relay.Config) { c.Spool.FS = d })
	m.serving("bac")
	m.putAgency("G22", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := m.agency("bac", "G22")
	if _, err := submit(ctx, client, document("G22", "1", "x", "G22"), "x"); err != nil {
		t.Fatal(err)
	}
	d.broken.Store(true)
	if accepted, err := submit(ctx, client, document("G22", "2", "x", "G22"), "x"); err == nil {
		t.Errorf("got %v, want no receipt for what was not synced", accepted)
	}
	select {
	case <-n.ended:
	case <-ctx.Done():
		t.Fatal("the relay goes on")
	}
	if err := n.stop(); err == nil || !strings.Contains(err.Error(), errDisk.Error()) {
		t.Errorf("run: got %v, want the failure of the disk", err)
	}
	if _, err := client.Attach(ctx, &exchangev1.AttachRequest{}); err == nil {
		t.Error("it still serves")
	}
}

// A sender that says nothing does not hold up the stop.
func TestStopCutsWhatDoesNotEnd(t *testing.T) {
	m := newMesh(t)
	n := m.start("bac", func(c *relay.Config) { c.StopTimeout = 100 * time.Millisecond })
	m.serving("bac")
	m.putAgency("G22", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := m.agency("bac", "G22").Submit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Start{Start: &exchangev1.SubmitStart{Header: document("G22", "1", "x", "G22")}}})
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := n.stop(); err != nil {
		t.Errorf("stop: got %v, want nil", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stop took %s", took)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the submit did not end")
	}
}

// A recipient that does not read what comes is not waited for when nothing else
// is under way.
func TestStopWaitsForNoSlowReader(t *testing.T) {
	m := newMesh(t)
	n := m.start("bac", func(c *relay.Config) { c.StopTimeout = patience })
	m.serving("bac")
	m.putAgency("G22", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	client, content := m.agency("bac", "G22"), strings.Repeat("x", 250_000)
	for i := range 100 { // more than the channel takes by itself
		if _, err := submit(ctx, client, document("G22", strconv.Itoa(i), content, "G22"), content); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := client.Receive(ctx, &exchangev1.ReceiveRequest{InlineLimit: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := n.stop(); err != nil {
		t.Errorf("stop: got %v, want nil", err)
	}
	if took := time.Since(began); took > patience/3 {
		t.Errorf("stop took %s", took)
	}
}

func TestHTTP(t *testing.T) {
	m := newMesh(t)
	m.start("bac", func(c *relay.Config) {
		c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "figures") })
	})
	m.serving("bac")
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]struct {
		code int
		body string
	}{
		"/healthz": {200, "ok"}, "/metrics": {200, "figures"}, "/readyz": {200, `"ready":true`}, "/": {404, ""},
	} {
		response, err := client.Get(m.relays["bac"].http + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != want.code || !strings.Contains(string(body), want.body) {
			t.Errorf("%s: got %d %q, want %d %q", path, response.StatusCode, body, want.code, want.body)
		}
	}
}
