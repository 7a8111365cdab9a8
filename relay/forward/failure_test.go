package forward_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

const (
	fail             = exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL
	done             = exchangev1.TransportStatus_TRANSPORT_STATUS_DONE
	tooLarge         = exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE
	diskFull         = exchangev1.ErrorReason_ERROR_REASON_DISK_FULL
	rateLimited      = exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED
	hashMismatch     = exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH
	notServing       = exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING
	suspended        = exchangev1.ErrorReason_ERROR_REASON_SUSPENDED_RECIPIENT
	unknownRecipient = exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT
	expired          = exchangev1.ErrorReason_ERROR_REASON_EXPIRED
)

// settledAs proves that the spool holds exactly one settlement: a failure.
func settledAs(t *testing.T, m *memory, id envelope.ID, agency routing.AgencyCode, reason exchangev1.ErrorReason) envelope.Settlement {
	t.Helper()
	list := m.settlements()
	if len(list) != 1 {
		t.Fatalf("%d settlements, want 1: %v", len(list), list)
	}
	s := list[0]
	if s.ID != id || s.Agency != agency || s.Transport != fail || s.Reason != reason || s.Note == "" {
		t.Errorf("settled %s for %s as %s, %s, %q; want %s for %s as fail, %s, with a note",
			s.ID, s.Agency, s.Transport, s.Reason, s.Note, id, agency, reason)
	}
	return s
}

// A bad envelope stops itself and no other.
func TestPermanentRefusalStopsOneEnvelope(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		bad := m.nodes[bac].send("bad", atNam)
		m.nodes[nam].spool.onBegin = func(id envelope.ID) error {
			if id == bad {
				return envelope.Refuse(tooLarge, "larger than is taken")
			}
			return nil
		}
		good := m.nodes[bac].send("good", atNam)
		m.start()
		until(t, "queue empty", func() bool { return m.nodes[bac].spool.queued() == 0 })
		if !m.nodes[nam].has(good, atNam) {
			t.Error("the good one was not delivered")
		}
		if s := settledAs(t, m.nodes[bac].spool, bad, atNam, tooLarge); s.Report != nil {
			t.Error("a report was written where the ingress itself gave up")
		}
	})
}

// A temporary refusal of one envelope is tried again, longer each time, and the
// wait is in the spool; the others pass by.
func TestTemporaryRefusalDefersOneEnvelope(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		var mu sync.Mutex
		var tries []time.Time
		slow := m.nodes[bac].send("slow", atNam)
		m.nodes[nam].spool.onBegin = func(id envelope.ID) error {
			mu.Lock()
			defer mu.Unlock()
			if id != slow {
				return nil
			}
			tries = append(tries, time.Now())
			if len(tries) <= 6 {
				return envelope.Refuse(rateLimited, "later")
			}
			return nil
		}
		other := m.nodes[bac].send("other", atNam)
		m.start()
		until(t, "other delivered", func() bool { return m.nodes[nam].has(other, atNam) })
		if m.nodes[nam].has(slow, atNam) {
			t.Fatal("the slow one came first")
		}
		until(t, "slow delivered", func() bool { return m.nodes[nam].has(slow, atNam) })
		if got := m.nodes[bac].spool.deferrals(slow); got != 6 {
			t.Errorf("deferred %d times, want 6", got)
		}
		base := 200 * time.Millisecond
		for i := 1; i < len(tries); i++ {
			// Half to all of the doubled base, and what an offer takes.
			if wait, most := tries[i].Sub(tries[i-1]), base<<(i-1); wait < most/2 || wait > most+most/2 {
				t.Errorf("wait %d was %s, want %s to %s", i, wait, most/2, most)
			}
		}
	})
}

// What must not come yet, because something else has to come first, does not hold
// that up.
func TestWhatIsNotReadyHoldsNothingUp(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		var come atomic.Bool
		var tries atomic.Int32
		recall := m.nodes[bac].send("recall", atNam)
		m.nodes[nam].spool.onBegin = func(id envelope.ID) error {
			if id != recall {
				come.Store(true)
				return nil
			}
			if tries.Add(1); come.Load() {
				return nil
			}
			r := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED, "the document is on its way")
			r.RetryAfter = 2 * time.Second
			return r
		}
		m.start()
		until(t, "refused", func() bool { return tries.Load() > 2 })
		document := m.nodes[bac].send("document", atNam)
		until(t, "both delivered", func() bool { return m.nodes[nam].has(document, atNam) && m.nodes[nam].has(recall, atNam) })
	})
}

// A peer that mixes up its answers does not get custody.
func TestReceiptForSomethingElse(t *testing.T) {
	for name, change := range map[string]func(*exchangev1.Receipt){
		"another envelope": func(r *exchangev1.Receipt) { r.EnvelopeId = bytes.Repeat([]byte{1}, 16) },
		"another header":   func(r *exchangev1.Receipt) { r.HeaderSha256 = nil },
		"another relay":    func(r *exchangev1.Receipt) { r.RelayId = string(trung) },
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				m.nodes[nam].onPass = func(stream relayv1.PeerService_PassServer) error {
					for {
						request, err := stream.Recv()
						if err != nil {
							return nil
						}
						offer := request.GetOffer()
						if offer == nil {
							continue
						}
						sum := sha256.Sum256(offer.GetHeader())
						receipt := &exchangev1.Receipt{EnvelopeId: offer.GetEnvelopeId(), HeaderSha256: sum[:], RelayId: string(nam)}
						change(receipt)
						_ = stream.Send(&relayv1.PassResponse{Message: &relayv1.PassResponse_Accepted{
							Accepted: &relayv1.OfferAccepted{Number: offer.GetNumber(), Receipt: receipt},
						}})
					}
				}
				m.start()
				id := m.nodes[bac].send("1", atNam)
				until(t, "offered", func() bool { return m.nodes[nam].sessionsOpened() > 0 })
				pass(time.Minute)
				if got := m.nodes[bac].spool.handOns(); len(got) > 0 {
					t.Fatalf("handed on: %v", got)
				}
				m.nodes[nam].set(func() { m.nodes[nam].onPass = nil })
				m.dropConns(bac, nam)
				until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) })
			})
		})
	}
}

// Damage on the way is tried again; a copy that is damaged for good ends as a
// failure.
func TestDamage(t *testing.T) {
	for name, damaged := range map[string]int{"twice on the way": 2, "always": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				n := 0
				m.nodes[nam].spool.spoil = func(envelope.ID) bool { n++; return n <= damaged }
				m.start()
				id := m.nodes[bac].send("1", atNam)
				until(t, "queue empty", func() bool { return m.nodes[bac].spool.queued() == 0 })
				if damaged == 2 {
					if !m.nodes[nam].has(id, atNam) {
						t.Error("not delivered")
					}
					if got := m.nodes[bac].spool.deferrals(id); got != 2 {
						t.Errorf("deferred %d times, want 2", got)
					}
					return
				}
				if m.nodes[nam].has(id, atNam) {
					t.Error("damaged content was delivered")
				}
				settledAs(t, m.nodes[bac].spool, id, atNam, hashMismatch)
			})
		})
	}
}

// This relay's own copy cannot be read: that envelope waits, others go on.
func TestUnreadableContentDefers(t *testing.T) {
	for name, size := range map[string]int{"small": 10, "large": large} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				content := bulk(size)
				id := m.nodes[bac].accept(letter("damaged", 0, content), [][]byte{content}, atNam)
				mended := make(chan struct{})
				m.nodes[bac].spool.onRead = func(read envelope.ID) error {
					select {
					case <-mended:
						return nil
					default:
						if read == id {
							return errors.New("checksum differs")
						}
						return nil
					}
				}
				m.start()
				other := m.nodes[bac].send("other", atNam)
				until(t, "other delivered", func() bool { return m.nodes[nam].has(other, atNam) })
				until(t, "deferred", func() bool { return m.nodes[bac].spool.deferrals(id) >= 3 })
				if e, ok := m.nodes[bac].spool.entry(id); !ok || e.LastError == "" {
					t.Errorf("entry %v, want it queued with its error", e)
				}
				close(mended)
				until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) })
				if got := m.nodes[nam].spool.begun; got != 0 {
					t.Errorf("%d takings are still open", got)
				}
			})
		})
	}
}

// A relay whose journal lost what it knew of the end of a delivery has the duty
// again, and may find the content damaged, which nobody else keeps any more. The
// peer has had it, and says so.
func TestUnreadableContentThatThePeerHasHad(t *testing.T) {
	for name, size := range map[string]int{"small": 10, "large": large} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				content := bulk(size)
				n := m.nodes[bac]
				id := n.accept(letter("damaged", 0, content), [][]byte{content}, atNam)
				m.start()
				until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) && n.spool.queued() == 0 })
				n.spool.mu.Lock()
				n.spool.onRead = func(envelope.ID) error { return errors.New("checksum differs") }
				n.spool.enqueue(n.spool.records[id], envelope.Onward{Relay: nam, Agencies: []routing.AgencyCode{atNam}})
				n.spool.mu.Unlock()
				until(t, "queue empty", func() bool { return n.spool.queued() == 0 })
			})
		})
	}
}

func TestSuspendedRecipientFails(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.putAgency("H30", nam)
		id := m.nodes[bac].send("1", atNam, "H30")
		m.suspend("H30")
		m.start()
		until(t, "queue empty", func() bool { return m.nodes[bac].spool.queued() == 0 })
		if !m.nodes[nam].has(id, atNam) {
			t.Error("not delivered to the other recipient")
		}
		settledAs(t, m.nodes[bac].spool, id, "H30", suspended)
		if got := m.nodes[bac].spool.handOns(); len(got) != 1 || len(got[0].Agencies) != 1 || got[0].Agencies[0] != atNam {
			t.Errorf("handed on %v, want for %s alone", got, atNam)
		}
	})
}

// Neither side knows the recipient any more: tried for a while, then failed.
func TestUnknownRecipientFails(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.putAgency("H30", nam)
		id := m.nodes[bac].send("1", "H30")
		m.change(removal("H30"))
		m.start()
		until(t, "queue empty", func() bool { return m.nodes[bac].spool.queued() == 0 })
		settledAs(t, m.nodes[bac].spool, id, "H30", unknownRecipient)
		if got := m.nodes[bac].spool.deferrals(id); got < 5 {
			t.Errorf("given up after %d tries, want time for a directory that is behind", got)
		}
	})
}

func TestExpiredIsGivenUp(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.start()
		until(t, "link up", func() bool { return m.nodes[bac].forwarder.Reachable(nam) })
		m.nodes[nam].set(func() { m.nodes[nam].accepting = envelope.Refuse(notServing, "draining") })
		pass(5 * time.Second)
		h := letter("1", 0)
		h.ExpiresAt = timestamppb.New(time.Now().Add(time.Minute))
		id := m.nodes[bac].accept(h, nil, atNam)
		pass(time.Minute)
		m.nodes[nam].set(func() { m.nodes[nam].accepting = nil })
		until(t, "queue empty", func() bool { return m.nodes[bac].spool.queued() == 0 })
		settledAs(t, m.nodes[bac].spool, id, atNam, expired)
		if got := m.nodes[nam].sessionsOpened(); got != 0 {
			t.Error("it was offered after its lifetime")
		}
	})
}
