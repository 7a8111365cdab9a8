package rot

import (
	"bytes"
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/test/torture/tally"
)

// place is where damage does much harm: found in the files as they are by then.
type place struct {
	name string
	find func(data string) (wound, bool)
}

// inMemory begins the names of places that are only there after a kill.
const inMemory = "tables in memory"

// TestWorstPlaces damages one relay of three where the stores keep lengths,
// positions, sequences, types, check sums and votes.
func TestWorstPlaces(t *testing.T) {
	if !tally.Long() {
		t.Skip("all the worst places are for the long form; TestBitRot has some of them")
	}
	f := newField(t, 2)
	for spool, raft := f.places(); len(spool)+len(raft) > 0 && !t.Failed(); {
		if n := min(len(raft), 12); n > 0 {
			f.worst(raft[:n], nil)
			raft = raft[n:]
		}
		if n := min(len(spool), 24); n > 0 && !t.Failed() {
			f.worst(nil, spool[:n])
			spool = spool[n:]
		}
	}
	f.report()
}

// TestContent damages what documents that wait at a relay say, and nothing else.
func TestContent(t *testing.T) {
	if !tally.Long() {
		t.Skip("for the long form; TestBitRot meets content too")
	}
	f := newField(t, 3)
	for group := 0; group < 2 && !t.Failed(); group++ {
		f.worst(nil, contentPlaces())
	}
	f.report()
}

// contentPlaces are in the records that hold most, on which documents depend.
func contentPlaces() (all []place) {
	for rank := range 5 {
		all = append(all, place{fmt.Sprintf("content of record %d by size", rank+1), inJournal(false, func(file string, r []record) (wound, bool) {
			slices.SortFunc(r, func(a, b record) int { return cmp.Compare(b.size, a.size) })
			if rank >= len(r) {
				return wound{}, false
			}
			return flip("the journal", file, r[rank].at+r[rank].size/2, rank), true
		})})
	}
	return all
}

// places are all of them, in an order that the seed chooses.
func (f *field) places() (spool, raft []place) {
	spool, raft = spoolPlaces(), raftPlaces()
	for _, all := range [][]place{spool, raft} {
		slices.SortFunc(all, func(a, b place) int { return strings.Compare(a.name, b.name) })
		f.chance.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	return spool, raft
}

// worst is one group: places of the directory, then others. A relay that is far
// while these are damaged is missing where the directory has to be changed.
func (f *field) worst(raft, spool []place) {
	f.t.Helper()
	near, far := f.draw()
	if raft == nil {
		f.m.Between(far, f.victim).Cut()
		f.m.Between(far, near).Cut()
	}
	f.fill(near, far)
	for _, p := range raft {
		_, err := f.m.Operator(f.victim).Raft.Snapshot(f.ctx, &adminv1.SnapshotRequest{})
		f.note("snapshot of %s: %v", f.victim, err)
		f.change(near)
		f.place(p, near, far)
		if f.t.Failed() || !f.sameDirectory() {
			return
		}
	}
	for _, p := range spool {
		f.place(p, near, far)
		if f.t.Failed() {
			return
		}
	}
	f.finish()
}

// place damages one place.
func (f *field) place(p place, near, far string) {
	f.t.Helper()
	f.trickle(near, far)
	f.halt(f.chance.IntN(2) == 0 || strings.HasPrefix(p.name, inMemory))
	w, ok := p.find(f.m.Data(f.victim, ""))
	if !ok || w.at < 0 || w.at >= sizeOf(w.file) { // it may have been cut short before
		f.note("nothing to damage: %s", p.name)
		f.begin(nil)
		return
	}
	f.note("worst place: %s", p.name)
	f.inflict(w)
}

// bits are places by offset from somewhere in a file.
type bits map[string]int64

// spoolPlaces are those of journal and index.
func spoolPlaces() (all []place) {
	head := bits{"check sum": 0, "check sum of the payload": 4, "type": 8, "filler": 9, "length": 12, "length, high byte": 15,
		"sequence": 16, "sequence, high byte": 23, "what is synced": 24, "what is synced, high byte": 31, "payload": recordHead}
	for which, pick := range map[string]func([]record) record{
		"first record":  func(r []record) record { return r[0] },
		"middle record": func(r []record) record { return r[len(r)/2] },
		"last record":   func(r []record) record { return r[len(r)-1] },
	} {
		for field, offset := range head {
			all = append(all, place{which + ": " + field, inJournal(false, func(file string, r []record) (wound, bool) {
				if len(r) == 0 {
					return wound{}, false
				}
				return flip("the journal", file, pick(r).at+offset, 0), true
			})})
		}
	}
	frame := bits{"word": 0, "version": 8, "check sum": 12, "id": 16, "number": 32, "size": 40, "size, high byte": 47, "first sequence": 48}
	for field, offset := range frame {
		for _, sealed := range []bool{false, true} {
			all = append(all, place{fmt.Sprintf("head of a segment, %v: %s", sealed, field), inJournal(sealed, func(file string, _ []record) (wound, bool) {
				return flip("the journal", file, offset, 1), true
			})})
		}
		all = append(all, place{"copy of the head: " + field, inJournal(true, func(file string, _ []record) (wound, bool) {
			return flip("the journal", file, sizeOf(file)-segmentHead+offset, 1), true
		})})
	}
	for field, offset := range (bits{"check sum": 0, "length": 12, "sequence": 16, "end": 32, "end, high byte": 39, "records": 40}) {
		all = append(all, place{"seal: " + field, inJournal(true, func(file string, _ []record) (wound, bool) {
			return flip("the journal", file, sizeOf(file)-2*segmentHead+offset, 1), true
		})})
	}
	for name, back := range (bits{"in the last record": 1, "behind the last record": 0, "in the tail": -5000}) {
		all = append(all,
			place{"bit " + name, inJournal(false, func(file string, r []record) (wound, bool) {
				at := endOf(r) - back
				return flip("the journal", file, at, 3), at < sizeOf(file)
			})},
			place{"noise " + name, inJournal(false, func(file string, r []record) (wound, bool) {
				at := endOf(r) - back
				return garble("the journal", file, at, bytes.Repeat([]byte{0x5a}, sector), "noise"), at < sizeOf(file)
			})},
			place{"cut " + name, inJournal(false, func(file string, r []record) (wound, bool) {
				return cut("the journal", file, endOf(r)-back), true
			})})
	}
	for _, sealed := range []bool{false, true} {
		for name, size := range (bits{"nothing": 0, "half a head": 40, "a head": segmentHead, "all but a byte": -1, "all but the copy of the head": -segmentHead, "all but the seal": -2 * segmentHead}) {
			all = append(all, place{fmt.Sprintf("of a segment, %v, is left: %s", sealed, name), inJournal(sealed, func(file string, _ []record) (wound, bool) {
				if size < 0 {
					return cut("the journal", file, sizeOf(file)+size), true
				}
				return cut("the journal", file, size), true
			})})
		}
	}
	for name, file := range map[string]string{"table": "*.sst", "list of tables": "MANIFEST", "keys": "KEYREGISTRY", inMemory: "*.mem", "value log": "*.vlog", "discard": "DISCARD"} {
		for what, at := range (bits{"first byte": 0, "fourth byte": 4, "eighth byte": 8, "twelfth byte": 12, "sixteenth byte": 16, "21st byte": 20, "last byte": -1, "fifth to last": -5, "ninth to last": -9, "twelfth to last": -12, "middle": 1 << 40}) {
			all = append(all, place{name + ": " + what, inIndex(file, func(file string, used int64) (wound, bool) {
				at := offset(at, used)
				return flip("the index", file, at, int(at)%8), at >= 0 && at < used
			})})
		}
		for what, size := range (bits{"nothing": 0, "seven bytes": 7, "half": 1 << 40, "all but a byte": -1}) {
			all = append(all, place{name + ", left: " + what, inIndex(file, func(file string, used int64) (wound, bool) {
				at := offset(size, used)
				return cut("the index", file, at), at >= 0 && at < used
			})})
		}
	}
	return all
}

// offset is a place from the beginning, the end, or in the middle of what is used.
func offset(at, used int64) int64 {
	switch {
	case at < 0:
		return used + at
	case at == 1<<40:
		return used / 2
	}
	return at
}

func endOf(r []record) int64 {
	if len(r) == 0 {
		return segmentHead
	}
	return r[len(r)-1].at + r[len(r)-1].size
}

// inJournal finds the segment that was written to last, or one that is sealed.
func inJournal(sealed bool, in func(file string, r []record) (wound, bool)) func(string) (wound, bool) {
	return func(data string) (wound, bool) {
		files := filesBelow(data, "spool/journal/*.segment")
		if len(files) == 0 || sealed && len(files) < 2 {
			return wound{}, false
		}
		file := files[len(files)-1]
		if sealed {
			file = files[0]
		} else if len(recordsOf(file)) == 0 && len(files) > 1 {
			file = files[len(files)-2]
		}
		return in(file, recordsOf(file))
	}
}

func inIndex(pattern string, in func(file string, used int64) (wound, bool)) func(string) (wound, bool) {
	return func(data string) (wound, bool) {
		files := filesBelow(data, filepath.Join("spool/index", pattern))
		if len(files) == 0 {
			return wound{}, false
		}
		file := files[len(files)-1]
		used := sizeOf(file)
		if pattern == "*.mem" || pattern == "DISCARD" {
			used = max(written(file), 24)
		}
		return in(file, used)
	}
}
