package forward_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/routing"
)

func TestOneCopyPerDestination(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		for _, code := range []routing.AgencyCode{"H01", "H02", "H03"} {
			m.putAgency(code, nam)
		}
		m.start()
		id := m.nodes[bac].send("1", atTrung, atNam, "H01", "H02", "H03")
		until(t, "handed on", func() bool { return m.nodes[bac].spool.queued() == 0 })

		for relay, codes := range map[routing.RelayID][]routing.AgencyCode{
			trung: {atTrung}, nam: {atNam, "H01", "H02", "H03"},
		} {
			if got := m.nodes[relay].spool.commitsOf(id); got != 1 {
				t.Errorf("%s took custody %d times, want once", relay, got)
			}
			for _, code := range codes {
				if got := m.nodes[relay].spool.inbox(code); len(got) != 1 || got[0] != id {
					t.Errorf("inbox of %s at %s: %v, want the envelope once", code, relay, got)
				}
			}
		}
		if got := len(m.nodes[bac].spool.handOns()); got != 2 {
			t.Errorf("handed on %d times, want once for each destination relay", got)
		}
	})
}

func TestManyArriveOnce(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.start()
		const n = 700 // more than a window and several pages
		ids := make([]envelope.ID, n)
		for i := range ids {
			ids[i] = m.nodes[bac].send(fmt.Sprint(i), atNam)
		}
		until(t, "all handed on", func() bool { return m.nodes[bac].spool.queued() == 0 })
		if got := len(m.nodes[nam].spool.inbox(atNam)); got != n {
			t.Errorf("inbox holds %d, want %d", got, n)
		}
		for _, id := range ids {
			if got := m.nodes[nam].spool.commitsOf(id); got != 1 {
				t.Fatalf("%s committed %d times, want once", id, got)
			}
		}
		if got := m.nodes[nam].sessionsOpened(); got != 1 {
			t.Errorf("%d sessions were opened, want 1", got)
		}
	})
}

// large is what travels in several chunks.
const large = 3 << 20

func (n *node) sendLarge(document string, priority exchangev1.Priority, to ...routing.AgencyCode) envelope.ID {
	n.mesh.t.Helper()
	content := [][]byte{bulk(large), []byte("Phụ lục")}
	return n.accept(letter(document, priority, content...), content, to...)
}

func (n *node) has(id envelope.ID, code routing.AgencyCode) bool {
	return slices.Contains(n.spool.inbox(code), id)
}

func TestLargeArrivesWhole(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.start()
		id := m.nodes[bac].sendLarge("1", 0, atNam)
		until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) && m.nodes[bac].spool.queued() == 0 })
		if !slices.EqualFunc(m.nodes[bac].spool.bytesOf(id), m.nodes[nam].spool.bytesOf(id), bytes.Equal) {
			t.Error("content differs")
		}
	})
}

// The transfer is broken off in the middle, in each way it can be; what is
// there is not sent again.
func TestResumeAfterCut(t *testing.T) {
	for name, cut := range map[string]func(*mesh){
		"connection lost": func(m *mesh) { m.dropConns(bac, nam) },
		"link down for a minute": func(m *mesh) {
			m.cutLink(bac, nam)
			pass(time.Minute)
			m.mendLink(bac, nam)
		},
		"sender stopped": func(m *mesh) {
			m.nodes[bac].stop()
			m.nodes[bac].start()
		},
		"receiver stopped": func(m *mesh) {
			m.nodes[nam].stop()
			m.nodes[nam].start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				half := make(chan struct{})
				var once sync.Once
				m.nodes[nam].spool.onWrite = func(_ envelope.ID, offset uint64) {
					if offset >= large/2 {
						once.Do(func() { close(half) })
					}
				}
				m.start()
				id := m.nodes[bac].sendLarge("1", 0, atNam)
				<-half
				cut(m)
				until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) && m.nodes[bac].spool.queued() == 0 })
				if got, most := m.nodes[nam].spool.writtenOf(id), large+len("Phụ lục"); got != most {
					t.Errorf("%d bytes were written, want %d: nothing twice", got, most)
				}
				if got := m.nodes[nam].spool.commitsOf(id); got != 1 {
					t.Errorf("committed %d times, want once", got)
				}
			})
		})
	}
}

// The ordinary session is stuck in the middle of a file; hỏa tốc goes by.
func TestUrgentOvertakesBulk(t *testing.T) {
	for name, size := range map[string]int{"small": 1000, "large": large} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				stuck, free := make(chan struct{}), make(chan struct{})
				var file envelope.ID
				var once sync.Once
				m.nodes[nam].spool.onWrite = func(id envelope.ID, offset uint64) {
					if id == file && offset > 0 {
						once.Do(func() { close(stuck) })
						<-free
					}
				}
				file = m.nodes[bac].sendLarge("file", exchangev1.Priority_PRIORITY_THUONG, atNam)
				m.start()
				<-stuck
				content := bulk(size)
				urgent := m.nodes[bac].accept(letter("urgent", exchangev1.Priority_PRIORITY_HOA_TOC, content), [][]byte{content}, atNam)
				until(t, "urgent delivered", func() bool { return m.nodes[nam].has(urgent, atNam) })
				if m.nodes[nam].has(file, atNam) {
					t.Fatal("the file came first")
				}
				close(free)
				until(t, "file delivered", func() bool { return m.nodes[nam].has(file, atNam) })
			})
		})
	}
}

// An envelope that comes in while others wait for a place in the window goes
// before those of lower lanes.
func TestLanesInOneSession(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.nodes[bac].tune = func(c *forward.Config) { c.Window = 1 }
		first, free := make(chan struct{}), make(chan struct{})
		var once sync.Once
		m.nodes[nam].spool.onCommit = func(envelope.ID) {
			once.Do(func() { close(first); <-free })
		}
		lane := func(document string, p exchangev1.Priority) envelope.ID {
			content := []byte(document)
			return m.nodes[bac].accept(letter(document, p, content), [][]byte{content}, atNam)
		}
		var want []envelope.ID
		for i := range 3 {
			want = append(want, lane(fmt.Sprint("khẩn ", i), exchangev1.Priority_PRIORITY_KHAN))
		}
		m.start()
		<-first
		synctest.Wait()
		very := lane("thượng khẩn", exchangev1.Priority_PRIORITY_THUONG_KHAN)
		at := lane("hỏa tốc", exchangev1.Priority_PRIORITY_HOA_TOC)
		close(free)
		until(t, "all delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
		want = slices.Insert(want, 1, at, very)
		if got := m.nodes[nam].spool.inbox(atNam); !slices.Equal(got, want) {
			t.Errorf("arrived in order\n%v, want\n%v", got, want)
		}
	})
}

// The queue is read from its beginning again and again while entries are under
// way: none is offered twice.
func TestOneOfferAtATime(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.nodes[bac].tune = func(c *forward.Config) { c.Window, c.Rescan = 3, 5*time.Millisecond }
		var mu sync.Mutex
		offers := make(map[envelope.ID]int)
		m.nodes[nam].spool.onBegin = func(id envelope.ID) error {
			mu.Lock()
			defer mu.Unlock()
			offers[id]++
			return nil
		}
		m.nodes[nam].spool.onCommit = func(id envelope.ID) { pass(time.Duration(id[0]) * time.Millisecond / 8) }
		for i := range 60 {
			m.nodes[bac].send(fmt.Sprint(i), atNam)
		}
		m.start()
		until(t, "all delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
		for id, n := range offers {
			if n != 1 {
				t.Errorf("%s was offered %d times", id, n)
			}
		}
	})
}

// In one session, a small envelope goes between the chunks of a large one.
func TestSmallGoesBetweenChunks(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		started := make(chan struct{})
		var once sync.Once
		var file envelope.ID
		m.nodes[nam].spool.onWrite = func(id envelope.ID, _ uint64) {
			if id == file {
				once.Do(func() { close(started) })
				pass(10 * time.Millisecond) // a slow disk
			}
		}
		file = m.nodes[bac].sendLarge("file", 0, atNam)
		m.start()
		<-started
		small := m.nodes[bac].send("small", atNam)
		until(t, "both delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
		if got := m.nodes[nam].spool.inbox(atNam); !slices.Equal(got, []envelope.ID{small, file}) {
			t.Errorf("arrived in order %v, want the small one %s first", got, small)
		}
	})
}

// More large envelopes than places wait their turn, and small ones behind them
// do not.
func TestLargeOnesWaitForPlaces(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		free := make(chan struct{})
		m.nodes[bac].tune = func(c *forward.Config) { c.Transfers = 2 }
		m.nodes[nam].spool.onCommit = func(id envelope.ID) {
			if m.nodes[nam].spool.writtenOf(id) > large {
				<-free
			}
		}
		for i := range 7 {
			m.nodes[bac].sendLarge(fmt.Sprint("file ", i), 0, atNam)
		}
		small := m.nodes[bac].send("small", atNam)
		m.start()
		until(t, "small delivered", func() bool { return m.nodes[nam].has(small, atNam) })
		synctest.Wait()
		if got := len(m.nodes[nam].spool.inbox(atNam)); got != 1 {
			t.Errorf("%d arrived, want the small one alone", got)
		}
		close(free)
		until(t, "all delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
		if got := m.nodes[nam].spool.mostBegun; got > 3 {
			t.Errorf("%d were taken at once, want at most 2 large ones and the small one", got)
		}
	})
}

// The receiver does not get on: what is under way stays within the windows of
// both sides.
func TestWindows(t *testing.T) {
	for name, c := range map[string]struct {
		window, places, want int
	}{
		"of the sender":   {window: 5, places: 100, want: 5},
		"of the receiver": {window: 100, places: 7, want: 7},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				free := make(chan struct{})
				m.nodes[bac].tune = func(f *forward.Config) { f.Window = c.window }
				m.nodes[nam].tune = func(f *forward.Config) { f.MaxOffers = c.places }
				m.nodes[nam].spool.onCommit = func(envelope.ID) { <-free }
				for i := range 50 {
					m.nodes[bac].send(fmt.Sprint(i), atNam)
				}
				m.start()
				until(t, "window full", func() bool {
					m.nodes[nam].spool.mu.Lock()
					defer m.nodes[nam].spool.mu.Unlock()
					return m.nodes[nam].spool.begun == c.want
				})
				close(free)
				until(t, "all delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
				if got := m.nodes[nam].spool.mostBegun; got != c.want {
					t.Errorf("%d were under way at most, want %d", got, c.want)
				}
			})
		})
	}
}

// The answer is lost after the commit: the sender offers again, and the
// receiver answers with its first receipt.
func TestRepeatIsDropped(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		var once sync.Once
		m.nodes[nam].spool.onCommit = func(envelope.ID) {
			once.Do(func() { m.dropConns(bac, nam) })
		}
		m.start()
		id := m.nodes[bac].send("1", atNam)
		until(t, "handed on", func() bool { return m.nodes[bac].spool.queued() == 0 })
		if got := m.nodes[nam].sessionsOpened(); got != 2 {
			t.Errorf("%d sessions, want 2: the first was cut", got)
		}
		if got := m.nodes[nam].spool.inbox(atNam); len(got) != 1 {
			t.Errorf("inbox holds %d, want 1", len(got))
		}
		if got := m.nodes[nam].spool.commitsOf(id); got != 1 {
			t.Errorf("committed %d times, want once", got)
		}
		if got := len(m.nodes[bac].spool.handOns()); got != 1 {
			t.Errorf("handed on %d times, want once", got)
		}
	})
}

// An entry that is held is not offered, and goes on once it is released.
func TestHeldWaits(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		id := m.nodes[bac].send("1", atNam)
		hold := func(held bool) {
			m.nodes[bac].spool.mu.Lock()
			defer m.nodes[bac].spool.mu.Unlock()
			m.nodes[bac].spool.queues[nam][0].Held = held
		}
		hold(true)
		m.start()
		other := m.nodes[bac].send("2", atNam)
		until(t, "the other delivered", func() bool { return m.nodes[nam].has(other, atNam) })
		pass(time.Minute)
		if m.nodes[nam].has(id, atNam) {
			t.Fatal("delivered though held")
		}
		hold(false)
		until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) })
	})
}
