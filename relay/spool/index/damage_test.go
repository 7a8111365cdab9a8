package index_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/truclienthong/truc/relay/spool/index"
)

// writeKilled writes batches, one transaction each, and gives a copy of the files
// as a kill would leave them: tables of several levels, and a log of what is not
// in a table yet.
func writeKilled(t testing.TB, written int) (dir string) {
	t.Helper()
	from := t.TempDir()
	var sealed sealed
	s := open(t, sealed.config(from))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	for n := range written {
		var b index.Batch
		for _, change := range batch(n) {
			b.Put([]byte(change.key), change.value)
		}
		sealed.batches++
		s.Apply(&b)
		if err := s.Freeze(ctx); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 50 { // badger may be moving tables about
		dir = t.TempDir()
		copyFiles(t, from, dir)
		trial := t.TempDir()
		copyFiles(t, dir, trial)
		if got, err := reopen(t, trial, written, "as it was written"); got == "whole" {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return dir
		} else if !errors.Is(err, index.ErrDamaged) {
			t.Fatalf("an index as it was written is %s: %v", got, err)
		}
	}
	t.Fatal("badger does not come to rest")
	return ""
}

// copyFiles copies a directory, and leaves out the zeros at the end of files
// that badger makes larger than it needs.
func copyFiles(t testing.TB, from, to string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if os.IsNotExist(err) {
			continue // compacted away
		}
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(to, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write(bytes.TrimRight(b, "\x00"))
		if err == nil {
			err = f.Truncate(int64(len(b)))
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

type change struct {
	key   string
	value []byte
}

// batch is one transaction: keys of its own, and keys that many share.
func batch(n int) (out []change) {
	for i := range 20 {
		out = append(out, change{fmt.Sprintf("\x05own %04d %02d", n, i), bytes.Repeat([]byte{byte(n), byte(i)}, 1000)})
	}
	for i := range 10 {
		out = append(out, change{fmt.Sprintf("\x05shared %02d", (n*7+i)%50), fmt.Appendf(nil, "%d", n)})
	}
	return out
}

// Whatever bit of whatever file is turned: Open says so, or what it opens is the
// index as it was at the moment that it names. It never takes the process along,
// and never lacks something in the middle.
func TestEveryFlipIsFoundOrHarmless(t *testing.T) {
	t.Parallel()
	const written = 260
	flips := 40
	if testing.Short() {
		flips = 16
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	dir := writeKilled(t, written)
	var names []string
	var tables int
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(e.Name(), ".sst") {
			tables++
		}
		if info.Size() > 0 && e.Name() != "LOCK" {
			names = append(names, e.Name())
		}
	}
	if tables < 2 {
		t.Fatalf("only %d tables", tables)
	}
	states := map[string]int{}
	for i := range flips {
		name := names[i%len(names)]
		work := t.TempDir()
		copyFiles(t, dir, work)
		at, bit := flip(t, random, filepath.Join(work, name))
		what := fmt.Sprintf("%s byte %d bit %d", name, at, bit)
		got, _ := reopen(t, work, written, what)
		states[name[strings.LastIndex(name, ".")+1:]+" "+got]++
		os.RemoveAll(work)
	}
	t.Logf("%v", states)
}

// flip turns a bit somewhere, mostly near one end, where what is not content is.
func flip(t testing.TB, random *rand.Rand, name string) (at int64, bit int) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	length := len(bytes.TrimRight(b, "\x00"))
	at = int64(random.IntN(max(length, 1)))
	switch random.IntN(4) {
	case 0:
		at = int64(max(0, length-1-random.IntN(64)))
	case 1:
		at = int64(random.IntN(min(64, max(length, 1))))
	}
	bit = random.IntN(8)
	turn(t, name, at, bit)
	return at, bit
}

func turn(t testing.TB, name string, at int64, bit int) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << bit
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// reopen says what became of an index: refused, whole, or that of an earlier
// moment; anything else fails the test.
func reopen(t testing.TB, dir string, written int, what string) (string, error) {
	t.Helper()
	s, err := index.Open(new(sealed).config(dir))
	if err != nil {
		return "refused", err
	}
	defer s.Close()
	v := s.View()
	defer v.Close()
	b, found, err := v.Get(index.PositionKey())
	if err != nil || !found {
		t.Fatalf("%s: opened, and says nothing of the moment it reflects: %v", what, err)
	}
	moment := binary.BigEndian.Uint64(b)
	want := make(map[string]string)
	for n := range int(moment) {
		for _, c := range batch(n) {
			want[c.key] = string(c.value)
		}
	}
	got := contents(t, v, []byte{5})
	if len(got) != len(want) {
		t.Fatalf("%s: opened as of batch %d with %d keys, want %d", what, moment, len(got), len(want))
	}
	for key, value := range want {
		if got[key] != value {
			t.Fatalf("%s: opened as of batch %d, and %q is not what it was", what, moment, key)
		}
	}
	if int(moment) < written {
		return "earlier", nil
	}
	return "whole", nil
}

// What takes transactions out of the middle is found, although every file that is
// left is as it was written.
func TestAGapIsFound(t *testing.T) {
	t.Parallel()
	const written = 120
	dir := writeKilled(t, written) // one table, and a log that goes on from it
	for name, ruin := range map[string]func(dir string) error{
		// The list does not name the table any more: the log stands upon nothing.
		"end of the list of tables": func(dir string) error {
			name := filepath.Join(dir, "MANIFEST")
			info, err := os.Stat(name)
			if err != nil {
				return err
			}
			return os.Truncate(name, info.Size()-3)
		},
		"list of tables": func(dir string) error { return os.Remove(filepath.Join(dir, "MANIFEST")) },
	} {
		t.Run(name, func(t *testing.T) {
			work := t.TempDir()
			copyFiles(t, dir, work)
			if err := ruin(work); err != nil {
				t.Fatal(err)
			}
			got, err := reopen(t, work, written, name)
			if got != "refused" || !errors.Is(err, index.ErrDamaged) {
				t.Errorf("the index is %s, %v, want it refused as damaged", got, err)
			}
			t.Log(err)
		})
	}
}

// A log that was made and never got its size, as by a cut of the power, is no
// damage.
func TestALogWithoutSizeIsNoDamage(t *testing.T) {
	t.Parallel()
	const written = 120
	dir := writeKilled(t, written)
	for _, name := range []string{"00099.mem", "000099.vlog"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := reopen(t, dir, written, "unborn"); got != "whole" || err != nil {
		t.Errorf("the index is %s, %v", got, err)
	}
}

// Damage that comes while the index is open is found by the next look.
func TestProveFindsDamageOfAnOpenIndex(t *testing.T) {
	dir := writeKilled(t, 120)
	s := open(t, new(sealed).config(dir))
	defer s.Close()
	if err := s.Prove(t.Context(), nil); err != nil {
		t.Fatalf("an index as it was written: %v", err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	info, err := os.Stat(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	turn(t, tables[0], info.Size()/3, 5)
	if err := s.Prove(t.Context(), nil); err == nil || !strings.Contains(err.Error(), filepath.Base(tables[0])) {
		t.Errorf("prove: %v, want the table named", err)
	}
	read := 0
	err = s.Prove(t.Context(), func(_ context.Context, n int) error { read += n; return nil })
	if err == nil || read == 0 {
		t.Errorf("prove with a pace: %v after %d bytes", err, read)
	}
}

// Where badger panics over damage that came while the index is open, the reader
// has an error, or what looks like an end, and the owner is told.
func TestDamageOfAnOpenIndexIsTold(t *testing.T) {
	const written = 40
	dir := writeKilled(t, written)
	cfg := new(sealed).config(dir)
	if err := open(t, cfg).Close(); err != nil { // now it is one table, and badger has nothing to do by itself
		t.Fatal(err)
	}
	told := 0
	cfg.OnDamage = func(err error) {
		// Whether it is damage or a disk that gave no answer is for Open to say.
		if told++; !errors.Is(err, index.ErrUnread) || errors.Is(err, index.ErrDamaged) {
			t.Errorf("told of %v", err)
		}
	}
	s := open(t, cfg)
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatalf("%d tables, %v; want one", len(tables), err)
	}
	f, err := os.OpenFile(tables[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	// Its index stands at the end.
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xb4}, 3000), size-3000); err != nil {
		t.Fatal(err)
	}
	v := s.View()
	_ = v.Each([]byte{5}, func(_, _ []byte) error { return nil })
	for n := range written {
		if value, found, err := v.Get([]byte(fmt.Sprintf("\x05own %04d 00", n))); err == nil && found && value[0] != byte(n) {
			t.Errorf("key of batch %d is %x", n, value[:2])
		}
	}
	s.Size()
	v.Close()
	if told == 0 {
		t.Error("nobody was told")
	}
	_ = s.Close()
	cfg.OnDamage = func(error) {}
	if s, err := index.Open(cfg); !errors.Is(err, index.ErrDamaged) {
		t.Errorf("the next start says %v", err)
		if err == nil {
			s.Close()
		}
	}
}
