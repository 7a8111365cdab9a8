package scenario

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/test/mesh"
)

// longestPause is what an answer may take around the death of the leader; how
// long it takes is in the log of the test, not judged by it.
const longestPause = 15 * time.Second

// The leader is killed while the directory is being written to: every write
// that was answered is there, once, and documents go on meanwhile.
func TestLeaderKilledUnderDirectoryWrites(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	leader := leaderOf(t, m)
	var others []string
	for _, r := range []string{"bac", "trung", "nam"} {
		if r != leader {
			others = append(others, r)
		}
	}
	// Sender and recipient live where no relay dies.
	codes := map[string]string{"bac": "G22", "trung": "H17", "nam": "H13"}
	sender, recipient := m.Agency(codes[others[0]]), m.Agency(codes[others[1]])
	recipient.Receive()

	const writes = 60
	operator := m.Operator(others[0])
	written := make(chan string, writes)
	var writing, documents pauses
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		defer close(done)
		defer close(written)
		writing.next()
		for i := range writes {
			name := fmt.Sprintf("write-%d", i)
			_, err := operator.Change(t.Context(), &directoryv1.Command{Change: &directoryv1.Command_SetGroup{
				SetGroup: &directoryv1.SetGroup{Group: &directoryv1.Group{Name: name, AgencyCodes: []string{"G22"}}}}})
			if err != nil {
				t.Errorf("directory write %d: %v", i, err)
				return
			}
			writing.next()
			if i == writes/3 {
				m.KillRelay(leader)
			}
			written <- name
		}
	})
	documents.next()
	for i := 0; ; i++ {
		sender.Send(mesh.Files{"cv.pdf": sample.PDF(fmt.Sprint(i), 10_000)}, recipient.Code)
		documents.next()
		select {
		case <-done:
		default:
			continue
		}
		break
	}
	group.Wait()
	t.Logf("longest pause: %s between two directory writes, %s between two of %d receipts",
		writing.longest.Round(time.Millisecond), documents.longest.Round(time.Millisecond), documents.n-1)
	for name, p := range map[string]pauses{"directory writes": writing, "documents": documents} {
		if p.longest > longestPause {
			t.Errorf("%s paused for %s, want %s at most", name, p.longest, longestPause)
		}
	}
	m.StartRelay(leader)
	m.AwaitServing()
	for _, relay := range []string{"bac", "trung", "nam"} {
		groups, err := m.Operator(relay).Directory.ListGroups(t.Context(),
			&adminv1.ListGroupsRequest{Consistency: adminv1.Consistency_CONSISTENCY_LINEARIZABLE})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(groups.GetGroups()); got != writes {
			t.Errorf("relay %s has %d groups, want %d", relay, got, writes)
		}
	}
	if n := len(written); n != writes {
		t.Errorf("%d writes answered, want %d", n, writes)
	}
}

// pauses measures the time between events that follow one another.
type pauses struct {
	last    time.Time
	longest time.Duration
	n       int
}

func (p *pauses) next() {
	now := time.Now()
	if p.n++; p.n > 1 {
		p.longest = max(p.longest, now.Sub(p.last))
	}
	p.last = now
}
