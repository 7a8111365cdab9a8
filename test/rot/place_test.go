package rot

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/truclienthong/truc/test/faults"
)

// wound is one damage to be: to a file, at an offset.
type wound struct {
	// of says what is damaged, for people: "the journal".
	of   string
	file string
	at   int64
	how  string
	do   func() error
}

func (w wound) String() string {
	return fmt.Sprintf("%s: %s at %d of %s", w.kind(), w.how, w.at, filepath.Base(w.file))
}

// kind is the row in the table.
func (w wound) kind() string {
	switch {
	case strings.HasPrefix(w.how, "cut"):
		return w.of + " cut short"
	case strings.HasPrefix(w.how, "sector"):
		return "sector garbled in " + w.of
	}
	return "bit flipped in " + w.of
}

const sector = 512

func flip(of, file string, at int64, bit int) wound {
	return wound{of, file, at, fmt.Sprintf("bit %d", bit), func() error { return faults.FlipBit(file, at, bit) }}
}

func garble(of, file string, at int64, with []byte, how string) wound {
	at &^= sector - 1
	return wound{of, file, at, "sector of " + how, func() error { return faults.Overwrite(file, at, with) }}
}

func cut(of, file string, at int64) wound {
	return wound{of, file, at, "cut", func() error { return os.Truncate(file, at) }}
}

// choose makes a wound of a place that chance has chosen. Running processes map
// files into memory, so what runs is not cut short there.
func choose(chance *rand.Rand, of, file string, at int64, mayCut bool) wound {
	at = max(0, min(at, sizeOf(file)-1)) // it may have been cut short before
	switch n := chance.IntN(10); {
	case n < 2 && mayCut:
		return cut(of, file, at)
	case n < 4:
		return garble(of, file, at, make([]byte, sector), "zeros")
	case n < 5:
		other := make([]byte, sector)
		for i := range other {
			other[i] = byte(chance.Uint32())
		}
		return garble(of, file, at, other, "noise")
	}
	return flip(of, file, at, chance.IntN(8))
}

// filesBelow lists the files of a folder by a pattern of their path in it, the
// newest last where names count.
func filesBelow(dir string, patterns ...string) (files []string) {
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			panic(err)
		}
		for _, file := range found {
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
				files = append(files, file)
			}
		}
	}
	return files
}

func sizeOf(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

// record is where a record of the journal lies: see journal/record.go.
type record struct {
	at, size int64
}

const (
	recordHead  = 32
	segmentHead = 64
)

// recordsOf finds the records of a segment, as far as heads lead from one to the
// next.
func recordsOf(file string) (all []record) {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	for at := int64(segmentHead); ; {
		var head [recordHead]byte
		if _, err := f.ReadAt(head[:], at); err != nil || binary.LittleEndian.Uint64(head[16:]) == 0 {
			return all
		}
		length := int64(binary.LittleEndian.Uint32(head[12:]))
		size := recordHead + (length+7)/8*8
		if length > 4<<20 || at+size > sizeOf(file) {
			return all
		}
		all = append(all, record{at, size})
		at += size
	}
}

// logPlace chooses a place in the journal or the register: mostly in a record,
// more often in its head than its length would have it, else around the records.
func logPlace(chance *rand.Rand, log string) (file string, at int64) {
	files := filesBelow(log, "*.segment")
	if len(files) == 0 {
		return "", 0
	}
	if chance.IntN(20) == 0 {
		files = append(files, filesBelow(log, "*.free")...)
	}
	// The last ones have what is new.
	file = files[len(files)-1-min(chance.IntN(len(files)), chance.IntN(len(files)))]
	size, records := sizeOf(file), recordsOf(file)
	switch n := chance.IntN(20); {
	case n == 0:
		return file, chance.Int64N(segmentHead)
	case n == 1:
		return file, size - 1 - chance.Int64N(128)
	case n == 2 || len(records) == 0:
		return file, chance.Int64N(size)
	}
	r := records[chance.IntN(len(records))]
	if chance.IntN(3) == 0 {
		return file, r.at + chance.Int64N(recordHead)
	}
	return file, r.at + chance.Int64N(r.size)
}

// written is how much of a file that was made larger in advance is in use: to
// the last byte that is not zero, looked for in the beginning.
func written(file string) int64 {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	b := make([]byte, 4<<20)
	n, _ := f.ReadAt(b, 0)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return int64(n)
}

// indexPlace chooses a place in the files of badger.
func indexPlace(chance *rand.Rand, spool string) (file string, at int64) {
	for range 20 {
		pattern := []string{"*.sst", "*.sst", "*.sst", "*.mem", "*.mem", "MANIFEST", "MANIFEST", "*.vlog", "KEYREGISTRY", "DISCARD"}[chance.IntN(10)]
		files := filesBelow(spool, "index/"+pattern)
		if len(files) == 0 {
			continue
		}
		file = files[chance.IntN(len(files))]
		used := written(file)
		if used == 0 || chance.IntN(10) == 0 {
			used = sizeOf(file)
		}
		if pattern == "*.sst" && chance.IntN(3) == 0 {
			return file, sizeOf(file) - 1 - chance.Int64N(min(sizeOf(file), 200)) // what says where the blocks are
		}
		return file, chance.Int64N(used)
	}
	return "", 0
}

// anyPlace chooses a place in any of the files.
func anyPlace(chance *rand.Rand, files []string) (file string, at int64) {
	if len(files) == 0 {
		return "", 0
	}
	file = files[chance.IntN(len(files))]
	return file, chance.Int64N(sizeOf(file))
}

// smallFiles are what stands beside the stores.
func smallFiles(data string) []string {
	return filesBelow(data, "raft.member", "raft/applied", "spool/index.*", "spool/ballast", "spool/*/LOCK", "spool/LOCK", "spool/index.damaged/MANIFEST")
}

// snapshotFiles of Raft.
func snapshotFiles(data string) []string {
	return filesBelow(data, "raft/snapshots/*/state.bin", "raft/snapshots/*/meta.json", "raft/snapshots/*/sum")
}
