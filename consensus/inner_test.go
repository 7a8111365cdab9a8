package consensus

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// The bounds of what is remembered are too far for a cluster in a test.
func TestMemoryIsBounded(t *testing.T) {
	id := func(i int) (r requestID) {
		binary.BigEndian.PutUint64(r[:], uint64(i))
		return r
	}
	t.Run("by count", func(t *testing.T) {
		m := newMemory()
		for i := range rememberCount + 10 {
			m.recall(id(i), 1)
			m.remember(id(i), uint64(i), nil)
		}
		if len(m.order) != rememberCount || len(m.byID) != rememberCount {
			t.Fatalf("remembers %d and %d, want %d", len(m.order), len(m.byID), rememberCount)
		}
		for i, want := range map[int]bool{9: false, 10: true, rememberCount + 9: true} {
			if _, got := m.recall(id(i), 1); got != want {
				t.Errorf("request %d: remembered %v, want %v", i, got, want)
			}
		}
	})
	t.Run("by bytes", func(t *testing.T) {
		m := newMemory()
		for i := range 10 {
			m.remember(id(i), uint64(i), make([]byte, rememberBytes/4))
		}
		if len(m.order) != 4 || m.bytes > rememberBytes {
			t.Fatalf("remembers %d, %d bytes", len(m.order), m.bytes)
		}
		m.remember(id(99), 99, make([]byte, rememberBytes+1))
		if _, ok := m.recall(id(99), 0); !ok || len(m.order) != 1 {
			t.Fatalf("the newest is not kept: %d are", len(m.order))
		}
	})
}

// Members that were restored from a copy must forget like those that were not.
func TestMemoryIsAFunctionOfTheLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one, other := newMemory(), newMemory()
		for range rapid.IntRange(1, 60).Draw(t, "entries") {
			id := requestID{byte(rapid.IntRange(0, 20).Draw(t, "id"))}
			at := int64(time.Duration(rapid.IntRange(0, 60).Draw(t, "hour")) * time.Hour)
			a, knownOne := one.recall(id, at)
			b, knownOther := other.recall(id, at)
			if knownOne != knownOther || knownOne && a.index != b.index {
				t.Fatalf("one knows %v, the other %v", knownOne, knownOther)
			}
			if !knownOne {
				index := uint64(len(one.order) + 1)
				one.remember(id, index, nil)
				other.remember(id, index, nil)
			}
			if rapid.IntRange(0, 9).Draw(t, "copied") == 0 {
				restored := newMemory()
				restored.latest = other.latest
				for _, r := range other.order {
					restored.insert(r)
				}
				other = restored
			}
		}
	})
}

// A log that cannot be written stops the node; Raft would step down and go on.
func TestFailedWriteStops(t *testing.T) {
	var stopped []error
	s, err := openStore(t.TempDir(), func(err error) { stopped = append(stopped, err) })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(&raft.Log{Index: 1}); err != nil || len(stopped) > 0 {
		t.Fatalf("a good write: %v, %v", err, stopped)
	}
	s.Close()
	for name, write := range map[string]func() error{
		"StoreLog":    func() error { return s.StoreLog(&raft.Log{Index: 2}) },
		"StoreLogs":   func() error { return s.StoreLogs([]*raft.Log{{Index: 2}}) },
		"DeleteRange": func() error { return s.DeleteRange(1, 1) },
		"Set":         func() error { return s.Set([]byte("k"), nil) },
		"SetUint64":   func() error { return s.SetUint64([]byte("k"), 1) },
	} {
		before := len(stopped)
		if err := write(); err == nil || len(stopped) != before+1 {
			t.Errorf("%s: %v, stopped %v", name, err, stopped)
		}
	}
}

// After a start Raft hands in again what is behind the last snapshot: who is
// killed meanwhile still knows how far it was.
func TestMarkNeverGoesBack(t *testing.T) {
	dir := t.TempDir()
	for _, indexes := range [][]uint64{{1, 2, 77}, {1, 2, 3}, {3}} {
		mark, err := openMark(dir, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		for _, index := range indexes {
			if err := mark.write(index); err != nil {
				t.Fatal(err)
			}
		}
		if got := mark.read(); got != 77 {
			t.Errorf("after %v: %d, want 77", indexes, got)
		}
		mark.close()
	}
}

// A mark that was torn claims nothing.
func TestMarkIsAHint(t *testing.T) {
	dir := t.TempDir()
	mark, err := openMark(dir, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := mark.write(77); err != nil || mark.read() != 77 {
		t.Fatalf("read %d, %v", mark.read(), err)
	}
	if _, err := mark.file.WriteAt([]byte{1}, 3); err != nil || mark.read() != 0 {
		t.Fatalf("torn: read %d, %v", mark.read(), err)
	}
	mark.close()
}
