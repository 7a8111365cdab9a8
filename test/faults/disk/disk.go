// Package disk is a disk that forgets: a file system of the tests, mounted with
// FUSE, that tells what is durable from what is only written. Cut takes its power
// away: what no sync has covered is gone, or, torn, any selection of it is.
//
// What counts as durable:
//
//   - the content and size of a file by fsync or fdatasync of it, by msync of a
//     mapping, by O_SYNC and O_DSYNC; not by sync_file_range, close or time;
//   - a name by fsync of the folder it is in. A rename between folders reaches
//     the disk whole. A file whose name is not durable is gone, however well its
//     content was synced; a name that is durable may lead to an empty file;
//   - with Config.Journaled, the kinder rule of ext4 and its like: every sync
//     commits all changes to folders there are; with Config.OwnNames, the rule
//     that every file system in use keeps: a sync of a file keeps its own name.
//
// Programs use it through the page cache of the kernel, mapped files included;
// each Cut mounts anew, so that nothing of that cache outlives it. Besides, the
// disk fails as told (Fault): writes, syncs, reads, space, time. A sync that fails
// has lost what it was to write, and the next one succeeds without it, as Linux
// does it.
//
// It does not look at users and rights, and knows neither links nor extended
// attributes. What it holds is in the memory of a process of its own, because a
// process that maps a file which it serves itself stops for good. TestMain of a
// package that uses it calls Serve first.
package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Config of a disk.
type Config struct {
	// Seed of everything that the disk leaves to chance.
	Seed uint64
	// Size in bytes; 0: 8 GiB. Memory is taken for what is written only.
	Size int64
	// Journaled commits all changes to folders with every sync.
	Journaled bool
	// OwnNames is the beginning of the paths of files whose sync makes their own
	// name durable too, but no other; empty: of none.
	OwnNames string
	// Drift lets some of what is dirty reach the disk by itself now and then, as
	// kernels do, so that a Cut finds older states too.
	Drift bool
}

// Loss is what becomes of what no sync has covered: all of it is forgotten, or,
// torn, any selection of the sectors and of the changes to folders stays.
type Loss struct {
	Torn bool
	Seed uint64
}

// Lost is what a Cut took: pages of files, and changes to folders, that programs
// had seen and that no sync had covered, whether some of it stayed or not.
type Lost struct{ Pages, Changes int }

// Kind of a fault.
type Kind string

// Kinds of faults.
const (
	// FailWrite fails a write with EIO; the first part of it may be there.
	FailWrite Kind = "write fails"
	// FailSync fails a sync with EIO.
	FailSync Kind = "sync fails"
	// ShortWrite takes only the first part of a write, and says so.
	ShortWrite Kind = "short write"
	// Full leaves so many bytes, see Fault.Left.
	Full Kind = "full"
	// Slow lets each sync take its time, see Fault.Min and Fault.Max.
	Slow Kind = "slow"
	// FailRead fails a read with EIO; a program that reads a mapped file gets
	// SIGBUS.
	FailRead Kind = "read fails"
)

// Fault is what a disk does wrong.
type Fault struct {
	Kind Kind
	// Under is the beginning of the paths of files that it hits, as "spool/".
	Under string
	// Skip is how many such operations go well before; Times how many go wrong, 0:
	// all until Heal.
	Skip, Times int
	// Left are the bytes a full disk still takes; Untold: programs that ask how
	// many are free are told otherwise, as by a disk that is shared.
	Left   int64
	Untold bool
	// Min and Max are what a sync of a slow disk takes.
	Min, Max time.Duration
}

// Counts are how often programs did what, since the disk was opened.
type Counts struct{ Writes, Reads, Syncs, FolderSyncs, Changes int }

// Disk is one disk, mounted until the test ends.
type Disk struct {
	t    testing.TB
	dir  string
	link *rpc.Client
}

// environment tells Serve what to serve.
const environment = "TRUC_TEST_DISK"

// settings travel in the environment.
type settings struct {
	Config
	Dir string
}

// Open mounts an empty disk. It skips the test, with the reason, where that is
// not possible.
func Open(t testing.TB, config Config) *Disk {
	t.Helper()
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("a disk that forgets needs root and FUSE: %v", err)
	}
	fuse.Close()
	if config.Size == 0 {
		config.Size = 8 << 30
	}
	d := &Disk{t: t, dir: t.TempDir()}
	program, err := os.Executable()
	if err != nil {
		t.Fatalf("disk: %v", err)
	}
	raw, err := json.Marshal(settings{config, d.dir})
	if err != nil {
		t.Fatalf("disk: %v", err)
	}
	// Without Serve in TestMain this runs no test, and answers nothing.
	cmd := exec.Command(program, "-test.run=^$")
	cmd.Env = append(os.Environ(), environment+"="+string(raw))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("disk: %v", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("disk: %v", err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("disk: %v", err)
	}
	d.link = rpc.NewClient(pipes{out, in})
	t.Cleanup(func() {
		// The process unmounts when nobody talks to it any more.
		d.link.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("disk: %v", err)
		}
	})
	var refused string
	if err := d.link.Call("Disk.Mount", struct{}{}, &refused); err != nil {
		t.Fatalf("disk (does TestMain call disk.Serve?): %v", err)
	}
	if refused != "" {
		t.Skipf("a disk that forgets needs the right to mount: %s", refused)
	}
	return d
}

// pipes are the standard input and output of the process that serves.
type pipes struct {
	io.ReadCloser
	w io.WriteCloser
}

func (p pipes) Write(b []byte) (int, error) { return p.w.Write(b) }
func (p pipes) Close() error                { return errors.Join(p.w.Close(), p.ReadCloser.Close()) }

// Dir is where the disk is mounted.
func (d *Disk) Dir() string { return d.dir }

func (d *Disk) call(method string, args, reply any) {
	d.t.Helper()
	if err := d.link.Call("Disk."+method, args, reply); err != nil {
		d.t.Fatalf("disk: %s: %v", method, err)
	}
}

// Freeze takes the power away: nothing is done any more, who asks waits. Send
// SIGKILL to the programs that use the disk, then Cut.
func (d *Disk) Freeze() {
	d.t.Helper()
	d.call("Freeze", struct{}{}, &struct{}{})
}

// Cut forgets what is not durable, answers EIO to whoever waits, and mounts what
// is left. Programs that used the disk must have got SIGKILL.
func (d *Disk) Cut(loss Loss) (lost Lost) {
	d.t.Helper()
	d.call("Cut", loss, &lost)
	return lost
}

// Evict mounts anew without loss of power, and drops what failed syncs have lost,
// which programs could read until now. No program may use the disk.
func (d *Disk) Evict() (pages int) {
	d.t.Helper()
	d.call("Evict", struct{}{}, &pages)
	return pages
}

// Fail has the disk do wrong from now on; it replaces the fault before.
func (d *Disk) Fail(f Fault) {
	d.t.Helper()
	d.call("Fail", f, &struct{}{})
}

// Hits is how often the last Fault has struck.
func (d *Disk) Hits() (hits int) {
	d.t.Helper()
	d.call("Hits", struct{}{}, &hits)
	return hits
}

// Heal ends the fault, and says how often it struck.
func (d *Disk) Heal() (hits int) {
	d.t.Helper()
	d.call("Heal", struct{}{}, &hits)
	return hits
}

// Counts returns what programs have done.
func (d *Disk) Counts() (c Counts) {
	d.t.Helper()
	d.call("Counts", struct{}{}, &c)
	return c
}

func (d *Disk) String() string { return fmt.Sprintf("disk at %s", d.dir) }
