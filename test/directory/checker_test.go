package directory

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

// The checker accepts what a directory may do, and nothing else.
func TestChecker(t *testing.T) {
	k := key{agencies, "x"}
	type ops = []porcupine.Operation
	op := func(from, to int64, v verb, write row, a *answer) porcupine.Operation {
		return porcupine.Operation{Input: call{k, v, write}, Output: a, Call: from, Return: to}
	}
	is := func(value string, version uint64) *answer {
		return &answer{row: row{there: true, value: value, version: version}}
	}
	at := func(version uint64) *answer { return &answer{version: version} }
	gone, no := &answer{}, &answer{reason: conflict}
	value := func(v string) row { return row{value: v} }
	const never = 1 << 40
	for _, test := range []struct {
		name    string
		history ops
		want    bool
	}{
		{"written and read", ops{op(0, 1, put, value("a"), at(3)), op(2, 3, read, row{}, is("a", 3))}, true},
		{"an old read", ops{op(0, 1, put, value("a"), at(3)), op(2, 3, put, value("b"), at(4)), op(4, 5, read, row{}, is("a", 3))}, false},
		{"another version", ops{op(0, 1, put, value("a"), at(3)), op(2, 3, read, row{}, is("a", 5))}, false},
		{"a version that goes back", ops{op(0, 1, put, value("a"), at(3)), op(2, 3, put, value("b"), at(2))}, false},
		{"lost", ops{op(0, 1, put, value("a"), at(3)), op(2, 3, read, row{}, gone)}, false},
		{"unknown and seen", ops{op(0, never, put, value("a"), nil), op(2, 3, read, row{}, is("a", 4)), op(4, 5, read, row{}, is("a", 4))}, true},
		{"unknown and never seen", ops{op(0, never, put, value("a"), nil), op(2, 3, read, row{}, gone)}, true},
		{"unknown, seen, and done again", ops{op(0, never, put, value("a"), nil), op(2, 3, read, row{}, is("a", 4)), op(4, 5, read, row{}, is("a", 6))}, false},
		{"unknown replace that may have won", ops{op(0, 1, put, value("a"), at(3)),
			op(2, never, replace, row{value: "b", version: 3}, nil), op(4, 5, replace, row{value: "c", version: 3}, no), op(6, 7, read, row{}, is("b", 4))}, true},
		{"two replaced the same", ops{op(0, 1, put, value("a"), at(3)),
			op(2, 9, replace, row{value: "b", version: 3}, at(4)), op(3, 8, replace, row{value: "c", version: 3}, at(5))}, false},
		{"created twice", ops{op(0, 9, create, value("a"), at(3)), op(1, 8, create, value("b"), at(4))}, false},
		{"created again", ops{op(0, 1, create, value("a"), at(3)), op(2, 3, remove, row{}, at(4)), op(4, 5, create, value("b"), at(5))}, true},
		{"replaced an unknown version", ops{op(0, 1, put, value("a"), at(3)), op(2, never, put, value("b"), nil),
			op(4, 5, replace, row{value: "c", version: 5}, at(6)), op(6, 7, read, row{}, is("c", 6))}, true},
	} {
		if got := porcupine.CheckOperations(model, test.history); got != test.want {
			t.Errorf("%s: linearizable is %v, want %v", test.name, got, test.want)
		}
	}
}
