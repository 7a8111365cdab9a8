package consensus

import (
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
