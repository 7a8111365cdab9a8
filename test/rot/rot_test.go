package rot

import (
	"path/filepath"
	"testing"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/test/torture/tally"
)

const measured = "start to serving, and then to all delivered, mended and audited"

// TestBitRot damages one relay of three at places that a seed chooses. Its short
// form ends with some of the worst places, on the same mesh.
func TestBitRot(t *testing.T) {
	f := newField(t, 1)
	if !tally.Long() {
		f.spoolGroup(8)
		if spool, raft := f.places(); !t.Failed() {
			f.worst(raft[:3], spool[:4])
		}
		f.report()
		return
	}
	for end := time.Now().Add(4 * time.Minute); time.Now().Before(end) && !t.Failed(); {
		f.spoolGroup(24)
		f.directoryGroup(7)
	}
	f.report()
}

// spoolGroup damages the stores of documents of one relay, again and again, with
// documents that stay where they are meanwhile.
func (f *field) spoolGroup(damages int) {
	f.t.Helper()
	near, far := f.draw()
	f.m.Between(far, f.victim).Cut()
	f.m.Between(far, near).Cut()
	f.fill(near, far)
	for range damages {
		f.trickle(near, far)
		f.damage(f.spoolWound)
		if f.t.Failed() {
			return
		}
	}
	// What turned in the index of a relay that runs is found at its next start.
	f.halt(f.chance.IntN(2) == 0)
	f.begin(nil)
	f.finish()
}

// draw chooses whom it hits.
func (f *field) draw() (near, far string) {
	at := f.chance.IntN(len(f.relays))
	f.victim = f.relays[at]
	near, far = f.relays[(at+1)%3], f.relays[(at+2)%3]
	if f.chance.IntN(2) == 0 {
		near, far = far, near
	}
	f.note("-- %s is damaged; %s is near, %s is far", f.victim, near, far)
	return near, far
}

// damage does damage, mostly between two lives of the victim.
func (f *field) damage(choose func(running bool) wound) {
	f.t.Helper()
	if f.chance.IntN(6) == 0 {
		f.whileRunning(choose(true))
		return
	}
	f.halt(f.chance.IntN(2) == 0)
	f.inflict(choose(false))
}

// spoolWound chooses a damage to the store of documents.
func (f *field) spoolWound(running bool) wound {
	data := f.m.Data(f.victim, "")
	if small := smallFiles(data); f.chance.IntN(12) == 0 && len(small) > 0 {
		file, at := anyPlace(f.chance, small)
		return choose(f.chance, "a relay's small files", file, at, !running)
	}
	if f.chance.IntN(5) < 2 {
		if file, at := indexPlace(f.chance, filepath.Join(data, "spool")); file != "" {
			return choose(f.chance, "the index", file, at, !running)
		}
	}
	if f.chance.IntN(6) == 0 {
		if file, at := logPlace(f.chance, filepath.Join(data, "spool", "register")); file != "" {
			return choose(f.chance, "the register", file, at, true)
		}
	}
	file, at := logPlace(f.chance, filepath.Join(data, "spool", "journal"))
	return choose(f.chance, "the journal", file, at, true)
}

// raftWound chooses a damage to the directory.
func (f *field) raftWound(running bool) wound {
	data := f.m.Data(f.victim, "")
	of, files := "the Raft log", filesBelow(data, "raft/raft.db")
	if snapshots := snapshotFiles(data); len(snapshots) > 0 && f.chance.IntN(3) == 0 {
		of, files = "a Raft snapshot", snapshots
	}
	file, at := anyPlace(f.chance, files)
	return choose(f.chance, of, file, at, !running)
}

// inflict damages the victim, which is stopped, and starts it.
func (f *field) inflict(w wound) {
	f.t.Helper()
	h := f.hit(w.kind())
	f.note("%s %s", f.victim, w)
	f.check(w.String(), w.do())
	f.begin(h)
}

func (f *field) hit(kind string) *hit {
	if f.kinds[kind] == nil {
		f.kinds[kind] = tally.Kind(f.t, kind, measured)
	}
	h := &hit{Hit: f.kinds[kind].Inject()}
	f.hits = append(f.hits, h)
	return h
}

// whileRunning damages it while it serves. It goes on, or ends and is started.
func (f *field) whileRunning(w wound) {
	f.t.Helper()
	h := f.hit(w.kind() + " of a running relay")
	f.note("%s runs; %s", f.victim, w)
	began := time.Now()
	f.check(w.String(), w.do())
	f.revive()
	if f.serves(began) {
		h.served = time.Since(began)
	} else {
		f.revive()
	}
}

// directoryGroup damages what a relay has of the directory.
func (f *field) directoryGroup(damages int) {
	f.t.Helper()
	near, far := f.draw()
	f.fill(near, far)
	for range damages {
		if f.chance.IntN(2) == 0 {
			_, err := f.m.Operator(f.victim).Raft.Snapshot(f.ctx, &adminv1.SnapshotRequest{})
			f.note("snapshot of %s: %v", f.victim, err)
		}
		f.change(near)
		f.trickle(near, far)
		f.damage(f.raftWound)
		f.change(f.relays[f.chance.IntN(len(f.relays))])
		if !f.sameDirectory() || f.t.Failed() {
			return
		}
	}
	f.halt(false)
	f.begin(nil)
	f.finish()
}
