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

// silent is a test that may be failed.
type silent struct{ testing.TB }

func (silent) Errorf(string, ...any) {}

// What holds over all keys is checked, and only that.
func TestCheckerOverKeys(t *testing.T) {
	x, y := key{rules, "x"}, key{rules, "y"}
	write := func(from, to int64, k key, v verb, version uint64) porcupine.Operation {
		return porcupine.Operation{Input: call{k, v, row{}}, Output: &answer{version: version}, Call: from, Return: to}
	}
	history := []porcupine.Operation{write(0, 1, x, put, 2), write(2, 3, y, put, 3), write(4, 5, x, put, 4), write(6, 7, y, remove, 5)}
	is := func(xVersion, yVersion uint64) sight {
		rows := map[key]row{}
		for k, v := range map[key]uint64{x: xVersion, y: yVersion} {
			if v > 0 {
				rows[k] = row{there: true, version: v}
			}
		}
		return sight{table: rules, rows: rows}
	}
	for _, test := range []struct {
		name    string
		history []porcupine.Operation
		sights  []sight
		want    bool
	}{
		{"every version in turn", history, []sight{is(0, 0), is(2, 0), is(2, 3), is(4, 3), is(4, 0)}, true},
		{"some versions, twice", history, []sight{is(2, 3), is(2, 3), is(4, 0), is(4, 0)}, true},
		{"back to an earlier version", history, []sight{is(4, 3), is(2, 3)}, false},
		{"back to nothing", history, []sight{is(2, 3), is(0, 0)}, false},
		{"back to before a removal", history, []sight{is(4, 0), is(4, 3)}, false},
		{"the second write without the first", history, []sight{is(0, 3)}, false},
		{"one key old, the other new", history, []sight{is(2, 0), is(4, 0), is(2, 0)}, false},
		{"never together", []porcupine.Operation{write(0, 1, x, put, 2), write(2, 3, y, put, 3), write(4, 5, y, put, 4), write(6, 7, x, put, 5)},
			[]sight{is(5, 3)}, false},
		{"one version twice", []porcupine.Operation{write(0, 9, x, put, 2), write(0, 9, y, put, 2)}, nil, false},
		{"later and lower", []porcupine.Operation{write(0, 1, x, put, 3), write(2, 3, y, put, 2)}, nil, false},
		{"at the same time and lower", []porcupine.Operation{write(0, 5, x, put, 3), write(2, 3, y, put, 2)}, nil, true},
	} {
		e := &epoch{t: silent{t}, keys: []key{x, y}, history: test.history, stale: map[string][]sight{"r": test.sights}}
		e.order()
		e.prefixes()
		if got := e.broken == 0; got != test.want {
			t.Errorf("%s: accepted is %v, want %v", test.name, got, test.want)
		}
	}
}
