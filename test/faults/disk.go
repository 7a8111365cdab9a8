package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// SmallDisk returns an empty folder on a file system of its own that has so many
// bytes, until the test ends. Only root may make one; else the test is skipped.
func SmallDisk(t testing.TB, bytes int64) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes))
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("a small disk needs root: %v", err)
	}
	if err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// Fill takes space of a file system with a file until about so many bytes are
// left, whoever else takes some meanwhile, and returns the file: removing it
// gives the space back.
func Fill(dir string, left int64) (string, error) {
	file, err := os.CreateTemp(dir, "fill-*")
	if err != nil {
		return "", err
	}
	defer file.Close()
	size := int64(0)
	for range 20 {
		free, err := Free(dir)
		if err != nil {
			return "", errors.Join(err, os.Remove(file.Name()))
		}
		if free <= left {
			break
		}
		err = syscall.Fallocate(int(file.Fd()), 0, size, free-left)
		if err == nil {
			size += free - left
		} else if !errors.Is(err, syscall.ENOSPC) {
			return "", errors.Join(fmt.Errorf("fill %s: %w", dir, err), os.Remove(file.Name()))
		}
	}
	return file.Name(), nil
}

// Free returns the free bytes of a file system.
func Free(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// Flip flips one bit of the files below a folder whose names match, as a seed
// says, and returns what it did.
func Flip(dir, match string, seed uint64) (string, error) {
	var files []string
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if ok, _ := filepath.Match(match, d.Name()); ok && err == nil && info.Size() > 0 {
			files = append(files, path)
		}
		return err
	}); err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", fmt.Errorf("no file %s below %s", match, dir)
	}
	random := rand.New(rand.NewPCG(seed, 2))
	path := files[random.IntN(len(files))]
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	at, bit := random.Int64N(info.Size()), random.IntN(8)
	err = FlipBit(path, at, bit)
	return fmt.Sprintf("bit %d of byte %d of %s (%d bytes, seed %d)", bit, at, path, info.Size(), seed), err
}

// FlipBit flips one bit of a file.
func FlipBit(path string, at int64, bit int) error {
	return change(path, at, 1, func(b []byte) { b[0] ^= 1 << bit })
}

// Overwrite puts other bytes in the place of those that a file has there, as far
// as it goes: it does not grow.
func Overwrite(path string, at int64, other []byte) error {
	return change(path, at, len(other), func(b []byte) { copy(b, other) })
}

// change rewrites up to n bytes of a file in place.
func change(path string, at int64, n int, how func([]byte)) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	b := make([]byte, n)
	n, err = file.ReadAt(b, at)
	if n == 0 {
		return fmt.Errorf("damage %s at %d: %w", path, at, err)
	}
	how(b[:n])
	_, err = file.WriteAt(b[:n], at)
	return err
}
