package disk_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/truclienthong/truc/test/faults/disk"
)

func TestMain(m *testing.M) {
	disk.Serve()
	os.Exit(m.Run())
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// file opens a file of a disk for writing.
func file(t *testing.T, d *disk.Disk, name string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(d.Dir(), name), os.O_RDWR|os.O_CREATE|flags, 0o600)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func write(t *testing.T, f *os.File, content string, off int64) {
	t.Helper()
	_, err := f.WriteAt([]byte(content), off)
	check(t, err)
}

func syncFolder(t *testing.T, d *disk.Disk, name string) {
	t.Helper()
	f, err := os.Open(filepath.Join(d.Dir(), name))
	check(t, err)
	defer f.Close()
	check(t, f.Sync())
}

// want compares a file with what it has to hold; "none" for no such file.
func want(t *testing.T, d *disk.Disk, name, content string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(d.Dir(), name))
	if errors.Is(err, os.ErrNotExist) {
		got, err = []byte("none"), nil
	}
	check(t, err)
	if string(got) != content {
		t.Errorf("%s holds %.40q, want %.40q", name, got, content)
	}
}

// A cut keeps what was synced and nothing else, by whichever call.
func TestCut(t *testing.T) {
	d := disk.Open(t, disk.Config{Seed: 1})
	cut := func() disk.Lost {
		t.Helper()
		d.Freeze()
		return d.Cut(disk.Loss{})
	}
	synced := file(t, d, "synced", 0)
	write(t, synced, "synced", 0)
	check(t, synced.Sync())
	empty := file(t, d, "empty", 0)
	write(t, empty, "not synced", 0)
	syncFolder(t, d, ".")
	write(t, synced, "SYNC", 0)
	nameless := file(t, d, "nameless", 0)
	write(t, nameless, "its folder was not synced", 0)
	check(t, nameless.Sync())
	check(t, unix.SyncFileRange(int(empty.Fd()), 0, 10, unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER))
	if lost := cut(); lost.Pages != 2 || lost.Changes != 1 {
		t.Errorf("lost %+v, want 2 pages and 1 change", lost)
	}
	want(t, d, "synced", "synced")
	want(t, d, "empty", "")
	want(t, d, "nameless", "none")
	if _, err := synced.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("a file that was open answers %v, want EIO", err)
	}

	byFlag := file(t, d, "O_DSYNC", unix.O_DSYNC)
	write(t, byFlag, "by flag", 0)
	ranged := file(t, d, "data", 0)
	write(t, ranged, "by fdatasync", 0)
	check(t, unix.Fdatasync(int(ranged.Fd())))
	old := file(t, d, "old", 0)
	write(t, old, "moved", 0)
	check(t, old.Sync())
	check(t, os.Mkdir(filepath.Join(d.Dir(), "folder"), 0o700))
	syncFolder(t, d, ".")
	check(t, os.Rename(old.Name(), filepath.Join(d.Dir(), "folder", "new")))
	check(t, os.Remove(ranged.Name()))
	cut()
	want(t, d, "O_DSYNC", "by flag")
	want(t, d, "data", "by fdatasync")
	want(t, d, "old", "moved")
	want(t, d, "folder/new", "none")

	check(t, os.Rename(filepath.Join(d.Dir(), "old"), filepath.Join(d.Dir(), "folder", "new")))
	syncFolder(t, d, "folder")
	cut()
	want(t, d, "old", "none")
	want(t, d, "folder/new", "moved")
}

// Mapped files are durable by msync only, and the next mount does not see what
// the kernel had in memory; a mount without loss of power does.
func TestMapped(t *testing.T) {
	d := disk.Open(t, disk.Config{Seed: 1})
	const size = 8192
	mapped := func() []byte {
		t.Helper()
		f := file(t, d, "mapped", 0)
		check(t, f.Truncate(size))
		m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		check(t, err)
		f.Close()
		return m
	}
	read := func(at int) string {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join(d.Dir(), "mapped"))
		check(t, err)
		return string(bytes.TrimRight(raw[at:at+4096], "\x00"))
	}
	m := mapped()
	copy(m, "one")
	check(t, unix.Msync(m, unix.MS_SYNC))
	syncFolder(t, d, ".")
	copy(m[4096:], "two")
	if got := read(4096); got != "two" {
		t.Errorf("a reader sees %q, want what is mapped", got)
	}
	d.Freeze()
	d.Cut(disk.Loss{})
	check(t, unix.Munmap(m))
	if one, two := read(0), read(4096); one != "one" || two != "" {
		t.Errorf("after the cut: %q and %q", one, two)
	}
	m = mapped()
	copy(m[4096:], "three")
	check(t, unix.Munmap(m))
	d.Evict()
	if got := read(4096); got != "three" {
		t.Errorf("without a cut: %q, want three", got)
	}
}

// A torn cut leaves some sectors of what was not synced, never half of one, and
// what was synced stays.
func TestTorn(t *testing.T) {
	d := disk.Open(t, disk.Config{Seed: 3, Drift: true})
	const size = 64 << 10
	old, late := bytes.Repeat([]byte{'a'}, size), bytes.Repeat([]byte{'b'}, size)
	mixed, names := 0, 0
	for seed := range uint64(30) {
		f := file(t, d, "torn", 0)
		write(t, f, string(old), 0)
		check(t, f.Sync())
		kept := file(t, d, "kept", 0)
		write(t, kept, "kept", 0)
		check(t, kept.Sync())
		syncFolder(t, d, ".")
		write(t, f, string(late), 0)
		file(t, d, "maybe", 0)
		d.Freeze()
		d.Cut(disk.Loss{Torn: true, Seed: seed})
		got, err := os.ReadFile(filepath.Join(d.Dir(), "torn"))
		check(t, err)
		if len(got) != size {
			t.Fatalf("seed %d: %d bytes", seed, len(got))
		}
		both := 0
		for s := range slices.Chunk(got, 512) {
			if !bytes.Equal(s, old[:512]) && !bytes.Equal(s, late[:512]) {
				t.Fatalf("seed %d: half of a sector", seed)
			}
			if s[0] == 'b' {
				both++
			}
		}
		if both > 0 && both < size/512 {
			mixed++
		}
		want(t, d, "kept", "kept")
		if os.Remove(filepath.Join(d.Dir(), "maybe")) == nil {
			names++
		}
	}
	if mixed == 0 || names == 0 || names == 30 {
		t.Errorf("of 30 cuts %d left both old and new sectors, %d the name of a new file", mixed, names)
	}
}

func TestJournaled(t *testing.T) {
	d := disk.Open(t, disk.Config{Seed: 1, Journaled: true})
	f := file(t, d, "new", 0)
	write(t, f, "by the sync of the file", 0)
	check(t, f.Sync())
	d.Freeze()
	d.Cut(disk.Loss{})
	want(t, d, "new", "by the sync of the file")
}

func TestOwnNames(t *testing.T) {
	d := disk.Open(t, disk.Config{Seed: 1, OwnNames: "kind/"})
	for _, folder := range []string{"kind", "letter"} {
		check(t, os.Mkdir(filepath.Join(d.Dir(), folder), 0o700))
	}
	syncFolder(t, d, ".")
	for _, name := range []string{"kind/other", "kind/new", "letter/new"} {
		write(t, file(t, d, name, 0), "mine", 0)
	}
	for _, name := range []string{"kind/new", "letter/new"} {
		check(t, file(t, d, name, 0).Sync())
	}
	d.Freeze()
	d.Cut(disk.Loss{})
	want(t, d, "kind/new", "mine")
	want(t, d, "kind/other", "none")
	want(t, d, "letter/new", "none")
}

func TestFaults(t *testing.T) {
	d := disk.Open(t, disk.Config{Seed: 1, Size: 64 << 20})
	f := file(t, d, "f", 0)
	write(t, f, "first", 0)
	check(t, f.Sync())
	syncFolder(t, d, ".")

	d.Fail(disk.Fault{Kind: disk.FailSync, Times: 1})
	write(t, f, "FIRST", 0)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("the sync that fails: %v", err)
	}
	check(t, f.Sync()) // and says that all is well
	want(t, d, "f", "FIRST")
	if hits := d.Heal(); hits != 1 {
		t.Errorf("%d hits", hits)
	}
	f.Close()
	d.Evict()
	want(t, d, "f", "first")

	f = file(t, d, "f", 0)
	d.Fail(disk.Fault{Kind: disk.FailWrite, Skip: 1, Times: 1})
	write(t, f, "one", 0)
	if _, err := f.WriteAt([]byte("two"), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("the write that fails: %v", err)
	}
	d.Fail(disk.Fault{Kind: disk.ShortWrite, Times: 1})
	if n, err := unix.Pwrite(int(f.Fd()), bytes.Repeat([]byte{'x'}, 10_000), 0); err != nil || n == 0 || n >= 10_000 {
		t.Errorf("short write: %d, %v", n, err)
	}

	d.Fail(disk.Fault{Kind: disk.Full, Left: 8192})
	if _, err := f.WriteAt(make([]byte, 1<<20), 1<<20); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full disk: %v", err)
	}
	var st unix.Statfs_t
	check(t, unix.Statfs(d.Dir(), &st))
	if st.Bavail != 0 {
		t.Errorf("%d blocks free", st.Bavail)
	}
	d.Heal()
	check(t, os.Remove(f.Name()))
	check(t, unix.Statfs(d.Dir(), &st))
	if st.Bavail != st.Blocks {
		t.Errorf("%d of %d blocks free", st.Bavail, st.Blocks)
	}

	f = file(t, d, "g", 0)
	write(t, f, "read me", 0)
	d.Fail(disk.Fault{Kind: disk.FailRead, Under: "g"})
	if _, err := f.ReadAt(make([]byte, 7), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("the read that fails: %v", err)
	}
	d.Fail(disk.Fault{Kind: disk.Slow, Min: 20 * time.Millisecond, Max: 30 * time.Millisecond})
	begin := time.Now()
	check(t, f.Sync())
	if took := time.Since(begin); took < 20*time.Millisecond {
		t.Errorf("a slow sync took %s", took)
	}
}
