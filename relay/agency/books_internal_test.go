package agency

import (
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
)

// What is given back is given out again not before its pause is over, which grows; and
// not at all where it came anew, or was confirmed, in between.
func TestBooksGiveOutAgainAfterAPause(t *testing.T) {
	b := newBooks(func(n int) time.Duration { return time.Duration(n) * time.Hour })
	a := &Arrival{ID: envelope.ID{1}}
	b.take(a.ID)
	for n := 1; n <= 2; n++ {
		_, _, changed := b.again(time.Now())
		b.release(a)
		select {
		case <-changed:
		default:
			t.Error("nobody is told that it was given back")
		}
		now := time.Now()
		again, wait, _ := b.again(now)
		if again != nil || wait < time.Duration(n)*time.Hour-time.Minute || wait > time.Duration(n)*time.Hour {
			t.Fatalf("time %d: given out again %v, after a pause of %s, want %d h", n, again, wait, n)
		}
		if again, _, _ = b.again(now.Add(wait)); again == nil || again.ID != a.ID {
			t.Fatalf("time %d: not given out again after its pause", n)
		}
		a = again
	}

	later := time.Now().Add(24 * time.Hour)
	b.release(a)
	if b.take(a.ID) != takenNow {
		t.Error("what was given back does not come anew on a stream")
	}
	if again, _, _ := b.again(later); again != nil {
		t.Error("given out again beside what came anew")
	}
	b.release(a)
	b.confirmed([]envelope.ID{a.ID})
	if again, _, _ := b.again(later); again != nil {
		t.Error("given out again after it was confirmed")
	}
	b.release(a) // too late
	if again, _, _ := b.again(later); again != nil {
		t.Error("given back after it was confirmed, and given out again")
	}
}
