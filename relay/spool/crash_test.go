package spool_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// A workload that can be killed at any moment. Every line says what is about to
// happen ("try") or what was acknowledged ("ack"):
//
//	<try|ack> <put|copy|take|hold|hand|settle|say|revive> <seed>
//
// An envelope has recipient A in an inbox here, recipient B behind nam, and some
// a copy that is kept for C. This relay is the ingress of some, and takes over
// some of the others; of some a second copy is to be made at trung, some are
// held. Of those that were settled, some are given up, and revived.
func workload(s *spool.Spool, first, writers int, say func(string)) {
	var wg sync.WaitGroup
	n := &node{Spool: s}
	for w := range writers {
		wg.Go(func() {
			for seed := first + w; ; seed += writers {
				p := crashParcel(seed)
				do := func(what string, fn func() error) bool {
					say(fmt.Sprintf("try %s %d\n", what, seed))
					if fn() != nil {
						return false
					}
					say(fmt.Sprintf("ack %s %d\n", what, seed))
					return true
				}
				ok := do("put", func() error { _, err := n.put(p); return err })
				if ok && seed%3 == 0 {
					ok = do("copy", func() error { return s.Copy(context.Background(), envelope.Copy{ID: p.ID, Relay: "trung"}) })
				}
				if ok && seed%4 == 1 {
					ok = do("take", func() error {
						return s.TakeOver(context.Background(), envelope.TakeOver{ID: p.ID, Inboxes: []routing.AgencyCode{"C"}})
					})
				}
				if ok && seed%11 == 0 {
					ok = do("hold", func() error { return s.Hold(context.Background(), envelope.Hold{ID: p.ID, Held: true}) })
				}
				if ok && seed%7 != 0 {
					ok = do("hand", func() error {
						return s.HandOn(context.Background(), envelope.HandedOn{
							ID: p.ID, Destination: "nam", Peer: "nam", Agencies: []routing.AgencyCode{"B"},
						})
					})
				}
				if ok && seed%5 != 0 {
					ok = do("settle", func() error {
						f := envelope.Settlement{ID: p.ID, Agency: "A", Transport: done, Report: report(p, "A")}
						if seed%8 == 2 {
							f.Transport = fail
						}
						_, err := s.Settle(context.Background(), []envelope.Settlement{f})
						return err
					})
				}
				if ok && seed%2 == 0 {
					ok = do("say", func() error { return s.Say(context.Background(), saidOf(p)) })
				}
				if ok && seed%5 != 0 && seed%8 == 2 {
					ok = do("revive", func() error {
						return s.Revive(context.Background(), envelope.Revive{
							ID: p.ID, Inboxes: []routing.AgencyCode{"A"}, ExpiresAt: lifetime.Add(time.Hour),
						})
					})
				}
				if !ok {
					return
				}
			}
		})
	}
	wg.Wait()
}

func crashParcel(seed int) *parcel {
	sizes := [][]int{{500}, {100 << 10}, {400 << 10, 20}, {0}}[seed%4]
	p := newParcel(uint64(seed), sizes...).inbox("A").onward("nam", "B").until(lifetime)
	switch seed % 4 {
	case 1:
		p.keep("C")
	case 2:
		p.fromSender()
	}
	return p
}

// said is what a workload said.
type said struct {
	mu         sync.Mutex
	tried, ack map[string]map[int]bool
	last       int
}

func newSaid() *said {
	return &said{tried: make(map[string]map[int]bool), ack: make(map[string]map[int]bool)}
}

func (l *said) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var verb, what string
	var seed int
	if n, _ := fmt.Sscan(line, &verb, &what, &seed); n != 3 {
		return
	}
	to := l.tried
	if verb == "ack" {
		to = l.ack
	}
	if to[what] == nil {
		to[what] = make(map[int]bool)
	}
	to[what][seed] = true
	l.last = max(l.last, seed)
}

// verify wants what was acknowledged to be there, and nothing that was not even
// tried.
func (l *said) verify(t *testing.T, n *node) {
	t.Helper()
	for seed := range l.ack["put"] {
		p := crashParcel(seed)
		r, err := n.Record(p.ID)
		if err != nil {
			t.Errorf("envelope %d was acknowledged: %v", seed, err)
			continue
		}
		inbox := slices.Contains(r.Inboxes, "A")
		var queued, copied bool
		for _, o := range r.Onward {
			queued, copied = queued || o.Relay == "nam", copied || o.Relay == "trung"
		}
		for what, is := range map[string]bool{
			"copy": copied, "hold": r.Held, "take": r.FromSender && r.Ingress == self && slices.Contains(r.Inboxes, "C"),
			"revive": r.ExpiresAt.After(lifetime) && inbox,
		} {
			over := what == "hold" && l.tried["settle"][seed] && l.tried["hand"][seed] // with the last duty
			if l.ack[what][seed] && !is && !over || !l.tried[what][seed] && is {
				t.Errorf("envelope %d: %s %v, tried %v, acknowledged %v", seed, what, is, l.tried[what][seed], l.ack[what][seed])
			}
		}
		switch {
		case l.tried["revive"][seed]:
		case l.ack["settle"][seed] && inbox, !l.tried["settle"][seed] && !inbox:
			t.Errorf("envelope %d: in the inbox %v, settled: tried %v, acknowledged %v",
				seed, inbox, l.tried["settle"][seed], l.ack["settle"][seed])
		case l.ack["hand"][seed] && queued, !l.tried["hand"][seed] && !queued:
			t.Errorf("envelope %d: in the queue %v, handed on: tried %v, acknowledged %v",
				seed, queued, l.tried["hand"][seed], l.ack["hand"][seed])
		}
		if heard := n.heard(p, "A"); l.ack["say"][seed] && heard != 1 || !l.tried["say"][seed] && heard != 0 {
			t.Errorf("envelope %d: %d statements, tried %v, acknowledged %v", seed, heard, l.tried["say"][seed], l.ack["say"][seed])
		}
		if l.ack["settle"][seed] {
			if _, err := n.Record(report(p, "A").ID); err != nil {
				t.Errorf("envelope %d was settled, its report: %v", seed, err)
			}
		}
		if !l.tried["settle"][seed] || !l.tried["hand"][seed] || p.FromSender {
			n.wantContent(p)
		}
	}
}

func crashConfig(dir string) spool.Config {
	return spool.Hurried(spool.Config{
		Dir: dir, Self: self, SegmentSize: 512 << 10, IndexMemory: 8 << 20, IndexOverlay: 128 << 10,
	})
}

const killDir = "SPOOL_KILL_DIR"

// TestVictim is the process that TestKill kills.
func TestVictim(t *testing.T) {
	dir := os.Getenv(killDir)
	if dir == "" {
		t.Skip("only for TestKill")
	}
	var first int
	fmt.Sscan(os.Getenv("SPOOL_KILL_FIRST"), &first)
	s, err := spool.Open(crashConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	go s.Run(context.Background())
	workload(s, first, 6, func(line string) { os.Stdout.WriteString(line) })
}

// Kill the process at any moment, again and again: what was acknowledged is
// there, and the crash rule holds.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	cfg := crashConfig(t.TempDir())
	log := newSaid()
	for round := range 20 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$")
		cmd.Env = append(os.Environ(), killDir+"="+cfg.Dir, fmt.Sprintf("SPOOL_KILL_FIRST=%d", log.last+1))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		spared := 1 + random.IntN(300)
		var after <-chan time.Time
		killed := make(chan struct{})
		for n := 0; lines.Scan(); n++ {
			log.add(lines.Text())
			if n == spared {
				after = time.After(time.Duration(random.IntN(3000)) * time.Microsecond)
				go func() {
					<-after
					cmd.Process.Kill()
					close(killed)
				}()
			}
		}
		if after != nil {
			<-killed
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("round %d: the victim ended by itself: %v", round, err)
		}
		if round%5 != 4 {
			continue // the next start recovers
		}
		check(t, cfg)
		n := start(t, cfg)
		log.verify(t, n)
		n.end()
		if t.Failed() {
			return
		}
	}
	t.Logf("%d envelopes acknowledged", len(log.ack["put"]))
}

// Cut the power at any write: what was not synced is lost in any selection, and
// the same holds, with and without the index, which is synced apart and must never
// be ahead.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for round := range 3 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Logf("seed %d", seed)
			d := newDisk(seed)
			cfg := crashConfig(t.TempDir())
			cfg.FS = d
			log := newSaid()
			for life := range 4 {
				s, err := spool.Open(cfg)
				if err != nil {
					t.Fatal(err)
				}
				failed := make(chan error, 1)
				go func() { failed <- s.Run(context.Background()) }()
				d.cutAfter(1 + d.rand.IntN(400))
				workload(s, log.last+1, 4, log.add)
				if err := <-failed; !errors.Is(err, errPowerCut) {
					t.Fatalf("Run ended with %v, want the failure of the disk", err)
				}
				if _, err := s.Begin(context.Background(), &crashParcel(1).Custody); err == nil {
					t.Error("a spool that failed takes envelopes")
				}
				if err := s.Close(); err != nil {
					t.Log(err)
				}
				d.restore()
				if life%2 == 1 {
					withoutIndex(t, cfg)
				}
				check(t, cfg)
				n := start(t, cfg)
				log.verify(t, n)
				n.end()
				if t.Failed() {
					return
				}
			}
			t.Logf("%d envelopes acknowledged", len(log.ack["put"]))
		})
	}
}

// Records that nobody waits for to be durable reach the index all the same, but
// not before they are.
func TestTheIndexIsNeverAhead(t *testing.T) {
	d := newDisk(1)
	cfg := config(t)
	cfg.FS = d
	s, err := spool.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.Background()) }()
	n := &node{Spool: s, t: t}
	p := newParcel(1, 10).onward("nam", "A")
	n.mustPut(p)
	for i := range uint32(100) {
		if err := s.Defer(context.Background(), p.ID, "nam", i+1, time.Now(), "down"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the index", s.Flushed)
	d.cutAfter(1)
	if _, err := n.put(newParcel(2, 10)); err == nil {
		t.Error("a disk without power takes envelopes")
	}
	<-ran
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	d.restore()
	check(t, cfg)
	n = start(t, cfg)
	if got := n.queueOf("nam"); len(got) != 1 || got[0].Tries != 100 {
		t.Errorf("queue: %+v, want the hundredth try", got)
	}
}

// A release that is stated again is that of an earlier life.
func TestARepeatedReleaseSparesALaterLife(t *testing.T) {
	n := start(t, config(t))
	n.mustPut(newParcel(1, 10).inbox("A"))
	p := newParcel(2, 10).inbox("A")
	n.mustPut(p)
	if err := n.Bury(p.ID, 2); err != nil {
		t.Fatal(err)
	}
	n.wantContent(p)
	if got := n.inboxOf("A"); len(got) != 2 {
		t.Errorf("inbox holds %d, want 2", len(got))
	}
}
