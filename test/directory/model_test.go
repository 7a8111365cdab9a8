package directory

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// table is where a key lives.
type table uint8

const (
	agencies table = iota
	groups
	rules
	relays
	tables // how many
)

func (t table) String() string { return [...]string{"agency", "group", "rule", "relay"}[t] }

// key names one register.
type key struct {
	table table
	name  string
}

func (k key) String() string { return k.table.String() + " " + k.name }

// row is what a register holds. Rows are compared.
type row struct {
	there bool
	// value is the name of an agency, the members of a group, the note of a rule,
	// the region of a relay.
	value string
	// home and standby are an agency's.
	home, standby string
	// flag: a suspended agency, a draining relay.
	flag bool
	// version is that of the last change; 0: it got no answer, and nobody has read
	// its version yet. It is then higher than above.
	version, above uint64
}

// verb is what is done to a register.
type verb uint8

const (
	read    verb = iota
	put          // whatever is there
	create       // unless something is there
	replace      // if it has this version
	move         // to another home
	flag         // suspend, drain
	remove
)

func (v verb) String() string {
	return [...]string{"read", "put", "create", "replace", "move", "flag", "remove"}[v]
}

// call is one operation.
type call struct {
	key
	verb
	// row is what to write; version is what replace asks for.
	row row
}

// answer is what became of it; nil where nobody knows.
type answer struct {
	// reason is empty where it was done.
	reason  exchangev1.ErrorReason
	version uint64
	row     row // of a read
}

const (
	done     = exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED
	notFound = exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND
	conflict = exchangev1.ErrorReason_ERROR_REASON_CONFLICT
)

// step returns the states that an operation may leave behind; none: it cannot
// have happened here.
func step(before row, c call, a *answer) []row {
	if c.verb == read {
		return reading(before, a.row)
	}
	var states []row
	for _, reason := range outcomes(before, c) {
		if a != nil && a.reason != reason {
			continue
		}
		if reason != done {
			states = append(states, before)
			continue
		}
		after := apply(before, c)
		after.above = max(before.above, before.version)
		if a != nil {
			if a.version <= after.above {
				continue // versions only grow
			}
			if after.version = a.version; !after.there {
				after.version, after.above = 0, a.version
			}
		}
		states = append(states, after)
	}
	return states
}

func reading(before, seen row) []row {
	if !seen.there {
		if before.there {
			return nil
		}
		return []row{before}
	}
	after := before
	if before.version == 0 && seen.version > before.above {
		after.version = seen.version
	}
	after.above, seen.above = 0, 0
	if after != seen {
		return nil
	}
	after.above = before.above
	return []row{after}
}

// outcomes are the answers that an operation may get.
func outcomes(before row, c call) []exchangev1.ErrorReason {
	switch c.verb {
	case put:
		return []exchangev1.ErrorReason{done}
	case create:
		if before.there {
			return []exchangev1.ErrorReason{conflict}
		}
		return []exchangev1.ErrorReason{done}
	}
	switch {
	case !before.there:
		return []exchangev1.ErrorReason{notFound}
	case c.verb != replace || before.version == c.row.version:
		return []exchangev1.ErrorReason{done}
	case before.version == 0 && c.row.version > before.above:
		return []exchangev1.ErrorReason{done, conflict}
	}
	return []exchangev1.ErrorReason{conflict}
}

// apply returns what is there after an operation that was done, its version
// unknown.
func apply(before row, c call) row {
	after := before
	switch c.verb {
	case put, create, replace:
		after = c.row
		if c.table == relays { // its state is a matter of its own
			after.flag = before.flag && before.there
		}
		after.there = true
	case move:
		after.home, after.standby = c.row.home, c.row.standby
	case flag:
		after.flag = c.row.flag
	case remove:
		after = row{}
	}
	after.version = 0
	return after
}

// model is the directory as porcupine sees it, a register for each key.
var model = (&porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
		place := map[key]int{}
		for _, o := range history {
			k := o.Input.(call).key
			if _, ok := place[k]; !ok {
				place[k] = len(parts)
				parts = append(parts, nil)
			}
			parts[place[k]] = append(parts[place[k]], o)
		}
		return parts
	},
	Init: func() []any { return []any{row{}} },
	Step: func(state, input, output any) (next []any) {
		for _, after := range step(state.(row), input.(call), output.(*answer)) {
			next = append(next, after)
		}
		return next
	},
	DescribeOperation: func(input, output any) string { return describe(input.(call), output.(*answer)) },
	DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
}).ToModel()

func describe(c call, a *answer) string {
	switch {
	case a == nil:
		return fmt.Sprintf("%s %s %+v: unknown", c.verb, c.key, c.row)
	case c.verb == read && !a.row.there:
		return fmt.Sprintf("read %s: not there", c.key)
	case c.verb == read:
		return fmt.Sprintf("read %s: %+v", c.key, a.row)
	case a.reason != done:
		return fmt.Sprintf("%s %s %+v: %s", c.verb, c.key, c.row, a.reason)
	}
	return fmt.Sprintf("%s %s %+v: version %d", c.verb, c.key, c.row, a.version)
}

// checkWithin bounds what porcupine may take for one epoch.
const checkWithin = time.Minute

// linearizable checks a history and says where a picture of it is if it is not.
func linearizable(t testing.TB, history []porcupine.Operation) {
	t.Helper()
	switch porcupine.CheckOperationsTimeout(model, history, checkWithin) {
	case porcupine.Ok:
		return
	case porcupine.Unknown:
		t.Errorf("no answer within %s whether a history of %d operations is linearizable", checkWithin, len(history))
		return
	}
	// The smallest bad part is enough to look at.
	for _, part := range model.Partition(history) {
		result, info := porcupine.CheckOperationsVerbose(model, part, checkWithin)
		if result != porcupine.Illegal {
			continue
		}
		k := part[0].Input.(call).key
		t.Errorf("%s: %d operations are not linearizable", k, len(part))
		file, err := os.CreateTemp("", "truc-directory-*.html")
		if err != nil {
			t.Log(err)
			continue
		}
		if err := porcupine.Visualize(model, info, file); err != nil {
			t.Log(err)
		}
		file.Close()
		t.Logf("see %s", file.Name())
	}
}
