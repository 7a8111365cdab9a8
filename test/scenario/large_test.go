package scenario

import (
	"bufio"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/test/mesh"
)

// mostGrowth is by how much a relay's resident memory may grow while a file
// passes through it, whatever the file's size.
const mostGrowth = 64 << 20

// A large file crosses two relays without either of them holding it in memory,
// though the home relay dies while it arrives.
func TestLargeFile(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a large file several times")
	}
	const size = 300 << 20
	m := mesh.Start(t, mesh.Config{Processes: true})
	sender, recipient := m.Agency("H17.97.08"), m.Agency("G22")
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

	document := sender.Document(nil, "G22")
	document.Parts = []agency.Source{agency.FileSource(file)}
	receipt, err := sender.Client.Submit(t.Context(), document)
	if err != nil {
		t.Fatal(err)
	}
	m.Note(&mesh.Sent{Receipt: receipt, Sender: sender, To: []string{"G22"}, Sums: map[string][32]byte{filepath.Base(file): sum}})
	grown("accepted")
	m.KillRelay("bac")
	m.StartRelay("bac")
	recipient.Receive()
	m.Settle()
	grown("delivered")
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
