package history_test

import (
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/history"
)

var (
	one, two = envelope.ID{1}, envelope.ID{2}
	bytes1   = history.SumOf(map[string][]byte{"a": []byte("một")})
	bytes2   = history.SumOf(map[string][]byte{"a": []byte("hai")})
	noon     = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
)

// begun is a history in which document d of S was handed in for A and B and
// promised as envelope one, and document e of S was handed in without answer.
func begun() *history.History {
	h := &history.History{}
	h.HandIn(history.Document{Sender: "S", ID: "d", To: []string{"A", "B"}, Sum: bytes1})
	h.HandIn(history.Document{Sender: "S", ID: "e", To: []string{"A"}, Sum: bytes2})
	h.Promised("S", "d", one, noon)
	return h
}

func TestRules(t *testing.T) {
	t.Parallel()
	all := func(h *history.History) {
		h.Took("A", one, "S", "d", bytes1, noon)
		h.Took("B", one, "S", "d", bytes1, noon)
	}
	for _, test := range []struct {
		name string
		then func(*history.History)
		want []string
	}{
		{"all is well", all, nil},
		{"promised again", func(h *history.History) { all(h); h.Promised("S", "d", one, noon) }, nil},
		{"without an answer it may arrive", func(h *history.History) { all(h); h.Took("A", two, "S", "e", bytes2, noon) }, nil},
		{"one recipient lacks it", func(h *history.History) { h.Took("A", one, "S", "d", bytes1, noon) }, []string{"lost"}},
		{"excused", func(h *history.History) {
			h.Took("A", one, "S", "d", bytes1, noon)
			h.Excuse("S", "d", "B", "recipient closed")
		}, nil},
		{"taken twice", func(h *history.History) { all(h); h.Took("B", one, "S", "d", bytes1, noon) }, []string{"doubled"}},
		{"taken twice without an answer", func(h *history.History) {
			all(h)
			h.Took("A", two, "S", "e", bytes2, noon)
			h.Took("A", two, "S", "e", bytes2, noon)
		}, []string{"doubled"}},
		{"twice under two ids", func(h *history.History) { all(h); h.Took("A", two, "S", "d", bytes1, noon) }, []string{"forked"}},
		{"two receipts with two ids", func(h *history.History) { all(h); h.Promised("S", "d", two, noon) }, []string{"forked"}},
		{"one id for two documents", func(h *history.History) { all(h); h.Promised("S", "e", one, noon) }, []string{"forked", "lost"}},
		{"other bytes", func(h *history.History) {
			h.Took("A", one, "S", "d", bytes2, noon)
			h.Took("B", one, "S", "d", bytes1, noon)
		}, []string{"changed"}},
		{"the content of a neighbour", func(h *history.History) { all(h); h.Took("A", two, "S", "e", bytes1, noon) }, []string{"changed"}},
		{"another desk", func(h *history.History) { all(h); h.Took("C", one, "S", "d", bytes1, noon) }, []string{"wrong desk"}},
		{"out of nowhere", func(h *history.History) { all(h); h.Took("A", two, "S", "f", bytes1, noon) }, []string{"wrong desk"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := begun()
			test.then(h)
			var got []string
			for _, v := range h.Violations() {
				got = append(got, v.Rule)
			}
			if len(got) != len(test.want) {
				t.Fatalf("found %v, want %v", h.Violations(), test.want)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("found %v, want %v", h.Violations(), test.want)
				}
			}
		})
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	h := begun()
	h.Took("B", one, "S", "d", bytes1, noon)
	lacks, promised := h.Missing()
	if promised != 2 || len(lacks) != 1 || lacks[0].Recipient != "A" || lacks[0].ID != one {
		t.Errorf("%d promised, missing %v", promised, lacks)
	}
	if handedIn, promised, taken := h.Counts(); handedIn != 2 || promised != 1 || taken != 1 {
		t.Errorf("%d handed in, %d promised, %d taken", handedIn, promised, taken)
	}
}
