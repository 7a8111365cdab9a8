package power

import (
	"context"
	"testing"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/test/faults/disk"
	"github.com/truclienthong/truc/test/torture/tally"
)

// Rows of the table.
const (
	failedWrite = "disk: write fails (EIO)"
	failedSync  = "disk: sync fails once, then succeeds without what it lost"
	shortWrite  = "disk: short write"
	fullDisk    = "disk: full"
	fullUntold  = "disk: full, free space says otherwise"
	slowDisk    = "disk: each sync takes 50 ms to 2 s"
	failedRead  = "disk: read fails (EIO)"
	failedStart = "disk: read fails while the relay starts"
)

// places are where a fault strikes: all of a relay's data, or one store of it.
var places = []string{"data/", "data/spool/journal/", "data/spool/register/", "data/spool/index/", "data/raft/"}

// The disk of one relay does wrong under load.
func TestDiskErrors(t *testing.T) {
	seed := tally.Seed(t)
	names := []string{failedWrite, failedSync, shortWrite, fullDisk, fullUntold, slowDisk, failedRead, failedStart}
	rows := kinds(t, "disk healed to a receipt", names...)
	s := open(t, seed, disk.Config{OwnNames: "data/spool/index/", Drift: seed%2 == 0})
	if !tally.Long() {
		// What is most likely to lose something, and one of the others.
		names = []string{failedSync, names[s.random.IntN(len(names))]}
	}
	for round := range tally.Pick(1, 8) {
		for i, name := range names {
			s.diskError(rows[name], name)
			if (round*len(names)+i)%4 == 3 {
				s.quiet()
			}
		}
	}
	s.quiet()
	t.Log(s.figures())
}

// diskError has the disk of one relay do wrong once, and the relay recover.
func (s *stand) diskError(row *tally.Faults, name string) {
	s.t.Helper()
	id := s.relays[s.random.IntN(len(s.relays))]
	d := s.disks[id]
	fault := disk.Fault{Under: places[s.random.IntN(len(places))], Skip: s.random.IntN(20), Times: 1, Left: 1 << s.random.IntN(25)}
	after := time.Duration(s.random.IntN(1000)) * time.Millisecond
	switch name {
	case failedWrite:
		fault.Kind = disk.FailWrite
	case failedSync:
		fault.Kind = disk.FailSync
		if s.random.IntN(2) == 0 {
			fault.Under = places[1] // whose syncs are what receipts rest on
		}
		after /= 10
	case shortWrite:
		fault.Kind, fault.Times = disk.ShortWrite, 1+s.random.IntN(20)
	case fullDisk, fullUntold:
		fault.Kind, fault.Untold = disk.Full, name == fullUntold
		after += time.Second
	case slowDisk:
		fault.Kind, fault.Times, fault.Min, fault.Max = disk.Slow, 0, 50*time.Millisecond, 2*time.Second
		after += 3 * time.Second
	case failedRead, failedStart:
		fault.Kind, fault.Times = disk.FailRead, 1+s.random.IntN(3)
	}
	hit := row.Inject()
	if name == failedStart {
		s.m.KillRelay(id)
		d.Evict() // what is in memory would not be read
		fault.Skip = s.random.IntN(4)
		d.Fail(fault)
		s.m.StartRelay(id)
	} else {
		d.Fail(fault)
	}
	if !s.struck(id, d) && fault.Kind != disk.Full {
		// What it is about does not happen just now: an index rests for long.
		fault.Under, fault.Skip = places[0], 0
		d.Fail(fault)
		s.struck(id, d)
	}
	<-time.After(after)
	hits := d.Heal()
	how := ""
	if name == failedSync && !s.m.Ended(id) {
		// What was lost is looked for while it is needed.
		how = "it went on so far, power cut"
		s.cut([]string{id}, s.random.IntN(2) == 0)
		s.m.StartRelay(id)
	} else {
		how = s.comeBack(id)
	}
	begun := time.Now()
	s.serving(s.relays)
	took := time.Since(begun)
	s.t.Logf("relay %s, %s under %s struck %d times; %s; a receipt after %s", id, name, fault.Under, hits, how, took.Round(time.Millisecond))
	if found := s.history.Found(); len(found) == 0 {
		hit.SurvivedIn(took)
	}
}

// struck waits for a while until a fault has struck, or the relay is gone.
func (s *stand) struck(id string, d *disk.Disk) bool {
	const enough = 2 * time.Second
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < enough; <-tick.C {
		if d.Hits() > 0 || s.m.Ended(id) {
			return true
		}
	}
	return false
}

// comeBack sees to it that the relay runs on a disk that is well again. One that
// has ended is started, sometimes after the memory of the kernel is gone, with
// what failed syncs have lost, or the power; one that has not is left alone, or
// loses its power too.
func (s *stand) comeBack(id string) (how string) {
	s.t.Helper()
	// One that is about to end gets the time for it.
	health, cancel := context.WithTimeout(s.ctx, time.Second)
	response, err := s.m.Operator(id).Custody.Health(health, &adminv1.HealthRequest{})
	cancel()
	well := err == nil && response.GetServing()
	switch {
	case s.m.Ended(id) || !well && s.endsSoon(id):
		how = "it ended: " + errorText(s.m.AwaitEnd(id))
		switch s.random.IntN(3) {
		case 0:
			s.disks[id].Evict()
			how += ", memory of the kernel lost"
		case 1:
			s.disks[id].Freeze()
			s.disks[id].Cut(disk.Loss{Torn: s.random.IntN(2) == 0, Seed: s.random.Uint64()})
			how += ", power cut"
		}
		s.m.StartRelay(id)
	case s.random.IntN(2) == 0:
		how = "it went on, power cut"
		s.cut([]string{id}, s.random.IntN(2) == 0)
		s.m.StartRelay(id)
	default:
		how = "it went on"
	}
	return how
}

func (s *stand) endsSoon(id string) bool {
	for begin := time.Now(); time.Since(begin) < 10*time.Second; {
		if s.m.Ended(id) {
			return true
		}
		<-time.After(50 * time.Millisecond) // a bound, not a step: it goes on if the relay does
	}
	return false
}

func errorText(err error) string {
	if err == nil {
		return "in order"
	}
	return err.Error()
}
