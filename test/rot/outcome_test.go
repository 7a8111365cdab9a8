package rot

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/truclienthong/truc/cmd/relayd/node"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
)

// log of a relay, from an offset on.
func (f *field) log(id string, from int) string {
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(f.m.Layout.RelayConfig(id)), "relay.log"))
	if err != nil || len(raw) < from {
		f.t.Fatalf("log of %s: %v", id, err)
	}
	return string(raw[from:])
}

// stack is what Go and badger print where they give up.
var stack = regexp.MustCompile(`(?m)^(panic: |fatal error: |unexpected fault address|SIG[A-Z]+: |goroutine \d+ \[|\[signal SIG).*`)

// crashed returns the line that begins a stack.
func crashed(log string) string { return stack.FindString(log) }

// halt ends the victim, in order or between two instructions.
func (f *field) halt(kill bool) {
	if f.m.Ended(f.victim) {
		f.revive()
	}
	if kill {
		f.m.KillRelay(f.victim)
		return
	}
	from := len(f.log(f.victim, 0))
	if err := f.m.EndRelay(f.victim); err != nil {
		f.judge(err, max(0, from-20_000)) // it was failing when it was asked to end
	}
}

// begin starts the victim and waits until it serves, doing what it asks for if
// it does not.
func (f *field) begin(h *hit) {
	f.t.Helper()
	if h != nil {
		h.From()
	}
	began := time.Now()
	for range 4 {
		from := len(f.log(f.victim, 0))
		f.m.StartRelay(f.victim)
		if f.serves(began) {
			f.count("serves")
			f.modest()
			if h != nil {
				h.served = time.Since(began)
			}
			return
		}
		if !f.ended(from) {
			break
		}
	}
	f.t.Fatalf("seed %d: relay %s does not come back", f.seed, f.victim)
}

// serves waits until the victim does, or has ended.
func (f *field) serves(began time.Time) bool {
	f.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if f.m.Ended(f.victim) {
			return false
		}
		err := f.serving()
		if err == nil {
			return true
		}
		if time.Since(began) > patience {
			f.t.Fatalf("seed %d: relay %s neither serves nor ends: %v", f.seed, f.victim, err)
		}
		<-tick.C
	}
}

// serving asks the victim. Before it listens, it is not asked: who dials in vain
// waits before the next time.
func (f *field) serving() error {
	conn, err := net.DialTimeout("tcp", f.m.Layout.Address(f.victim), time.Second)
	if err != nil {
		return err
	}
	conn.Close()
	ctx, cancel := context.WithTimeout(f.ctx, 5*time.Second)
	defer cancel()
	health, err := f.health(ctx, f.victim)
	if err == nil && !health.GetServing() {
		err = fmt.Errorf("it says: %s", health.GetReason())
	}
	return err
}

// revive starts the victim again, if it has ended by itself.
func (f *field) revive() {
	f.t.Helper()
	if !f.m.Ended(f.victim) {
		return
	}
	f.count("stopped by itself, to be started again")
	if f.ended(max(0, len(f.log(f.victim, 0))-20_000)) {
		f.begin(nil)
	}
}

// ended judges how the victim ended by itself: with a word about what is
// damaged. What that asks for is done; false: there is nothing to be done.
func (f *field) ended(from int) bool {
	f.t.Helper()
	return f.judge(f.m.AwaitEnd(f.victim), from)
}

func (f *field) judge(err error, from int) bool {
	f.t.Helper()
	log := f.log(f.victim, from)
	if line := crashed(log); line != "" {
		f.wrong("relay %s crashed (%v): %s\n%s", f.victim, err, line, end(log, 6000))
		f.count("CRASHED")
		return true
	}
	last := lastLine(log)
	f.note("%s ended (%v): %s", f.victim, err, last)
	if err == nil || err.Error() != "exit status 1" {
		f.wrong("relay %s ended with %v, want exit status 1", f.victim, err)
	}
	if !strings.Contains(last, f.m.Data(f.victim, "")) {
		f.wrong("relay %s ended and names no file: %s", f.victim, last)
	}
	switch {
	case strings.Contains(last, "relayctl raft remove"):
		f.count("refused: the directory's files are damaged")
		f.rejoin()
	case strings.Contains(last, "take the index away"):
		// What the index reflects was durable: damage there is no end of the journal.
		f.wrong("relay %s has taken damage for the end of its journal: %s", f.victim, last)
		f.check("take the index away", os.RemoveAll(f.m.Data(f.victim, "spool/index")))
	case strings.Contains(last, "the next start builds it"), strings.Contains(last, "index"):
		f.count("ended: its index was damaged")
	default:
		f.wrong("relay %s does not say what to do: %s", f.victim, last)
		return false
	}
	return true
}

// rejoin does what docs/operating.md says of a voter that lost its disk.
func (f *field) rejoin() {
	f.t.Helper()
	v, others := f.victim, f.others()
	f.m.Await("remove "+v+" from Raft", func(ctx context.Context) error {
		for _, by := range others {
			members, err := f.m.Operator(by).Raft.Remove(ctx, &adminv1.RemoveRequest{RelayId: v})
			if err == nil || strings.Contains(err.Error(), "is not a member") {
				return nil
			}
			_ = members
			if by == others[len(others)-1] {
				return err
			}
		}
		return nil
	})
	for _, name := range []string{"raft", "raft.member"} {
		f.check("move "+name+" away", os.RemoveAll(f.m.Data(v, name)))
	}
	f.m.Reconfigure(v, func(c *node.Config) { c.Voters = nil })
	f.m.StartRelay(v)
	f.m.Await("add "+v+" to Raft", func(ctx context.Context) error {
		_, err := f.m.Operator(others[0]).Raft.AddVoter(ctx, &adminv1.AddVoterRequest{RelayId: v, Address: f.m.Address(v)})
		return err
	})
	f.m.StopRelay(v) // begin starts it
}

func (f *field) check(what string, err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatalf("%s: %v", what, err)
	}
}

// lastLine is what a relay said last: why it failed, where it was failing by
// itself when it was interrupted.
func lastLine(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	last := lines[len(lines)-1]
	if strings.HasSuffix(last, "relayd: interrupted") {
		for _, line := range lines {
			if strings.Contains(line, `msg="relay fails"`) {
				last = line
			}
		}
	}
	return last
}

func end(s string, n int) string { return s[max(0, len(s)-n):] }

// modest demands that no length that was damaged was believed.
func (f *field) modest() {
	f.t.Helper()
	const most, more = 512 << 20, 1 << 30
	if got := f.m.Memory(f.victim, "VmHWM"); got > most {
		f.wrong("relay %s took %d MiB of memory", f.victim, got>>20)
	}
	if got := f.m.Memory(f.victim, "VmPeak"); got > f.peak+more {
		f.wrong("relay %s asked for %d MiB of memory, one that is well for %d MiB", f.victim, got>>20, f.peak>>20)
	}
}

// count counts what became of damages.
func (f *field) count(outcome string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.outcomes[outcome]++
}
