package consensus

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// A damaged log ends the start with a reason and a way out; it neither takes
// the process down nor passes for a log that is new.
func TestDamagedLog(t *testing.T) {
	damage := map[string]func([]byte) []byte{
		"half of it":     func(b []byte) []byte { return b[:len(b)/2] },
		"one page":       func(b []byte) []byte { return b[:os.Getpagesize()] },
		"a few bytes":    func(b []byte) []byte { return b[:100] },
		"both heads":     func(b []byte) []byte { clear(b[:2*os.Getpagesize()]); return b },
		"all but heads":  func(b []byte) []byte { clear(b[2*os.Getpagesize():]); return b },
		"something else": func([]byte) []byte { return []byte(strings.Repeat("không phải nhật ký", 4000)) },
	}
	for name, change := range damage {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			refuse := func(err error) { t.Errorf("stopped: %v", err) }
			s, err := openStore(dir, refuse)
			if err != nil {
				t.Fatal(err)
			}
			for i := range uint64(50) {
				if err := s.StoreLog(&raft.Log{Index: i + 1, Data: make([]byte, 3000)}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, logFile)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if s, err = openStore(dir, refuse); err != nil {
				t.Fatalf("undamaged: %v", err)
			}
			s.Close()
			if err := os.WriteFile(path, change(whole), 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err = openStore(dir, refuse); err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "is damaged") || !strings.Contains(err.Error(), "relayctl raft remove") {
				t.Errorf("got %v, want that it is damaged and what to do", err)
			}
		})
	}
}

// Damage that comes while the log is open, wherever it is: what bbolt does about
// it stops this node with a reason, and nothing hangs when it is closed.
func TestDamageWhileOpen(t *testing.T) {
	gaveUp, refused := 0, 0
	for seed := range uint64(60) {
		dir := t.TempDir()
		var stopped error
		s, err := openStore(dir, func(err error) { stopped = err })
		if err != nil {
			t.Fatal(err)
		}
		next := uint64(1)
		write := func(n int) (err error) {
			for range n {
				if err = s.StoreLog(&raft.Log{Index: next, Data: make([]byte, 300)}); err != nil {
					return err
				}
				next++
			}
			return s.SetUint64([]byte("LastVoteTerm"), next)
		}
		if err := write(60); err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(filepath.Join(dir, logFile), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(seed, 0))
		noise := make([]byte, 512)
		for i := range noise {
			noise[i] = byte(random.Uint32())
		}
		for page := range int64(8) {
			if _, err := file.WriteAt(noise, page*int64(os.Getpagesize())+random.Int64N(2)*512); err != nil {
				t.Fatal(err)
			}
		}
		file.Close()
		err = write(20)
		for index := uint64(1); err == nil && index < next; index++ {
			err = s.GetLog(index, new(raft.Log))
		}
		if err == nil {
			_, err = s.FirstIndex()
		}
		if err == nil {
			err = s.DeleteRange(1, 30)
		}
		if err != nil {
			refused++
			if stopped == nil {
				t.Errorf("seed %d: %v, and nobody is stopped", seed, err)
			}
			if errors.Is(err, errLogDamaged) && (!strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "relayctl raft remove")) {
				t.Errorf("seed %d: got %v, want which file and what to do", seed, err)
			}
		}
		if s.gaveUp.Load() {
			gaveUp++
			if err := s.StoreLog(&raft.Log{Index: next}); err == nil {
				t.Errorf("seed %d: it writes on", seed)
			}
			if err := s.SetUint64([]byte("CurrentTerm"), 7); err != nil {
				t.Errorf("seed %d: Raft would end the process: %v", seed, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Errorf("seed %d: close: %v", seed, err)
		}
	}
	t.Logf("%d refused, bbolt gave up in %d", refused, gaveUp)
	if gaveUp == 0 {
		t.Error("bbolt never gave up: the damage misses the point")
	}
}
