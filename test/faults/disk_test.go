package faults_test

import (
	"bytes"
	"errors"
	"math/bits"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/truclienthong/truc/test/faults"
)

func TestSmallDisk(t *testing.T) {
	dir := faults.SmallDisk(t, 1<<20)
	fill, err := faults.Fill(dir, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	if free, err := faults.Free(dir); err != nil || free > 64<<10 {
		t.Errorf("%d bytes are free, %v; want at most 64 KiB", free, err)
	}
	file := filepath.Join(dir, "a")
	if err := os.WriteFile(file, make([]byte, 200<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("writing more than there is: %v, want ENOSPC", err)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, make([]byte, 200<<10), 0o600); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

func TestFlip(t *testing.T) {
	dir := t.TempDir()
	was := bytes.Repeat([]byte{0x55}, 1000)
	file := filepath.Join(dir, "a.seg")
	for seed := range uint64(20) {
		for name, content := range map[string][]byte{file: was, filepath.Join(dir, "other"): was} {
			if err := os.WriteFile(name, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		what, err := faults.Flip(dir, "*.seg", seed)
		if err != nil {
			t.Fatal(err)
		}
		is, err := os.ReadFile(file)
		if err != nil || len(is) != len(was) {
			t.Fatalf("%d bytes, %v", len(is), err)
		}
		flipped := 0
		for i := range is {
			flipped += bits.OnesCount8(is[i] ^ was[i])
		}
		if flipped != 1 {
			t.Errorf("%s: %d bits differ, want 1", what, flipped)
		}
	}
	if _, err := faults.Flip(dir, "*.none", 1); err == nil {
		t.Error("flipped a bit of no file")
	}
}

func TestOverwriteDoesNotGrow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(file, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := faults.Overwrite(file, 7, []byte("abcdef")); err != nil {
		t.Fatal(err)
	}
	if err := faults.FlipBit(file, 0, 0); err != nil {
		t.Fatal(err)
	}
	if is, err := os.ReadFile(file); err != nil || string(is) != "1123456abc" {
		t.Errorf("%q, %v", is, err)
	}
	if err := faults.Overwrite(file, 10, []byte("x")); err == nil {
		t.Error("overwrote what is not there")
	}
}
