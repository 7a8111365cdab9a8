package scenario

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/test/faults"
	"github.com/truclienthong/truc/test/mesh"
)

// mostGrowth is by how much a relay's resident memory may grow while a file
// passes through it, whatever the file's size.
const mostGrowth = 64 << 20

// A large file crosses three hops, each of which is cut many times, while first
// the ingress, then the home, then the recipient dies once in the middle of it:
// every hop goes on where it was, and no relay holds the file in memory.
func TestLargeFile(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes a large file several times")
	}
	const (
		size = 300 << 20
		// most is what may cross a hop: what was on its way at a cut, or in the
		// memory of who died, goes again.
		most = size * 12 / 10
		rate = 150 << 20 // slow enough to be caught in the middle
	)
	m := mesh.Start(t, mesh.Config{Processes: true, Links: true})
	file, sum := largeFile(t, size)
	before := map[string]int64{}
	for _, relay := range []string{"bac", "trung"} {
		before[relay] = m.Resident(relay)
	}
	grown := func(when string) {
		t.Helper()
		for relay, was := range before {
			if growth := m.Resident(relay) - was; growth > mostGrowth {
				t.Errorf("%s: relay %s grew by %d MiB, at most %d are allowed", when, relay, growth>>20, mostGrowth>>20)
			}
		}
	}
	// hop breaks a link while die kills one of its ends, and checks what crossed.
	hop := func(name string, link *faults.Proxy, way faults.Way, cuts int, die func(), pass func()) {
		t.Helper()
		began := time.Now()
		up, down := link.Carried()
		link.Throttle(rate)
		link.ResetEvery(size/int64(cuts+1), cuts)
		ctx, stop := context.WithCancel(t.Context())
		died := make(chan struct{})
		go func() {
			defer close(died)
			if crossing(ctx, link, way, size/2) {
				die()
			}
		}()
		pass()
		stop()
		<-died
		link.Heal()
		u, d := link.Carried()
		crossed := map[faults.Way]int64{faults.Up: u - up, faults.Down: d - down}[way]
		t.Logf("%s: %d MiB crossed for a file of %d MiB, %d cuts, %s", name, crossed>>20, size>>20, link.Resets(), time.Since(began).Round(time.Second))
		if crossed > most || crossed < size {
			t.Errorf("%s: %d MiB crossed, want at least %d and at most %d", name, crossed>>20, size>>20, most>>20)
		}
		if link.Resets() < int64(cuts) {
			t.Errorf("%s: cut %d times, want %d", name, link.Resets(), cuts)
		}
	}

	// The recipient's relay is not there yet, so that the hops come one by one.
	m.StopRelay("bac")
	sender := onlyBy(t, m, "H17.97.08", "trung")
	document := m.Agency("H17.97.08").Document(nil, "G22")
	document.Parts = []agency.Source{agency.FileSource(file)}
	again := func(relay string) func() {
		return func() { m.KillRelay(relay); m.StartRelay(relay) }
	}
	// Nobody goes round a broken hop.
	around := faults.Links{m.AgencyLink("nam"), m.Link("trung", "nam")}
	around[0].Cut()
	var sent *mesh.Sent
	hop("sender to ingress", m.AgencyLink("trung"), faults.Up, 3, again("trung"), func() {
		receipt, err := sender.Submit(t.Context(), document)
		if err != nil {
			t.Fatal(err)
		}
		sent = &mesh.Sent{Receipt: receipt, Sender: m.Agency("H17.97.08"), To: []string{"G22"}, Sums: map[string][32]byte{filepath.Base(file): sum}}
		m.Note(sent)
	})
	around[1].Cut()
	hop("ingress to home", m.Link("trung", "bac"), faults.Up, 2, again("bac"), func() {
		m.StartRelay("bac")
		m.Await("it is at home", func(ctx context.Context) error { return arrived(ctx, m, "nam", sent.ID(), "bac") })
	})
	before["bac"] = m.Resident("bac")
	m.AgencyLink("trung").Cut()
	recipient := onlyBy(t, m, "G22", "bac")
	folder := t.TempDir()
	ctx, die := context.WithCancel(t.Context())
	defer die()
	hop("home to recipient", m.AgencyLink("bac"), faults.Down, 10, die, func() {
		if err := takeOne(ctx, recipient, folder); ctx.Err() == nil {
			t.Errorf("the recipient has not died: %v", err)
		}
		if err := takeOne(t.Context(), recipient, folder); err != nil {
			t.Error(err)
		}
	})
	got, err := sumOf(filepath.Join(folder, sent.ID().String(), filepath.Base(file)))
	if err != nil || got != sum {
		t.Errorf("it arrived with SHA-256 %x, %v; want %x", got, err, sum)
	}
	grown("delivered")
	m.Delivered(sent)
	m.AgencyLink("trung").Heal()
	around.Heal()
}

// crossing waits until so many more bytes have crossed a link; false: ctx ended.
func crossing(ctx context.Context, link *faults.Proxy, way faults.Way, bytes int64) bool {
	carried := func() int64 {
		up, down := link.Carried()
		return map[faults.Way]int64{faults.Up: up, faults.Down: down}[way]
	}
	from := carried()
	return every(ctx, func() bool { return carried()-from >= bytes })
}

// onlyBy is a client of an agency that has to begin with one relay.
func onlyBy(t *testing.T, m *mesh.Mesh, code, relay string) *agency.Client {
	t.Helper()
	return clientOf(t, m, code, func(c *agency.Config) { c.Relays = []string{m.Address(relay)} })
}

// clientOf is one more client of an agency.
func clientOf(t *testing.T, m *mesh.Mesh, code string, adjust func(*agency.Config)) *agency.Client {
	t.Helper()
	config, err := agency.LoadProfile(m.Layout.Profile(code))
	if err != nil {
		t.Fatal(err)
	}
	config.Logger = slog.New(slog.DiscardHandler)
	adjust(&config)
	client, err := agency.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// takeOne receives, saves and confirms one envelope.
func takeOne(ctx context.Context, client *agency.Client, folder string) error {
	for arrival, err := range client.Receive(ctx, agency.ReceiveOptions{}) {
		if err != nil {
			return err
		}
		if _, err := arrival.Save(ctx, folder); err != nil {
			arrival.Release()
			return err
		}
		return arrival.Confirm(ctx)
	}
	return errors.Join(errors.New("nothing came"), ctx.Err())
}

// largeFile writes a file of bytes that do not compress.
func largeFile(t *testing.T, size int) (string, [32]byte) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "large.bin")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	h := sha256.New()
	w := bufio.NewWriterSize(file, 1<<20)
	if _, err := io.CopyN(io.MultiWriter(w, h), rand.NewChaCha8([32]byte{1}), int64(size)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return name, [32]byte(h.Sum(nil))
}

func sumOf(name string) (sum [32]byte, err error) {
	file, err := os.Open(name)
	if err != nil {
		return sum, err
	}
	defer file.Close()
	h := sha256.New()
	_, err = io.Copy(h, file)
	return [32]byte(h.Sum(nil)), err
}
