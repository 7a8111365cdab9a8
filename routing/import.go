package routing

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// applyImport stages agencies, or puts them all. A staged import that is
// refused is dropped as a whole, so that it can be sent again from its
// beginning; the directory itself is untouched either way.
func (t *tx) applyImport(c *directoryv1.ImportAgencies) (agencies uint32, err error) {
	for i, a := range c.GetAgencies() {
		if a == nil {
			return 0, refuse(invalidField, "agencies[%d] is missing", i)
		}
	}
	if c.GetStaging() == "" {
		return t.putAgencies(c.GetAgencies())
	}
	var p problems
	if p.text("staging", c.GetStaging(), 1, maxStagingName, false); p.found() {
		return 0, p.err()
	}
	waiting := t.base.staged[c.GetStaging()]
	if n := c.GetStaged(); n != 0 && int(n) != len(waiting) {
		// What is staged is left: it may be another's, and whoever sent this one
		// must not take effect with a part of what was sent.
		return 0, refuse(conflict, "%d agencies are staged under %s, not %d: the import was dropped; begin it again",
			len(waiting), c.GetStaging(), n)
	}
	t.staged = maps.Clone(t.base.staged)
	if c.GetLast() {
		t.discard = c.GetStaging()
		delete(t.staged, c.GetStaging())
		// What is staged belongs to a version that may be read just now, by a
		// snapshot; putting it completes the rows.
		rows := make([]*directoryv1.Agency, 0, len(waiting)+len(c.GetAgencies()))
		for _, a := range waiting {
			rows = append(rows, proto.CloneOf(a))
		}
		return t.putAgencies(append(rows, c.GetAgencies()...))
	}
	rows := slices.Concat(waiting, c.GetAgencies())
	if len(waiting) == 0 && len(t.base.staged) >= maxOpenStagings {
		return 0, refuse(conflict, "%d staged imports are open (%s): send the last part of one first, or discard one",
			len(t.base.staged), strings.Join(slices.Sorted(maps.Keys(t.base.staged)), ", "))
	}
	if len(rows) > maxStagedAgencies {
		t.discard = c.GetStaging()
		return 0, refuse(invalidField, "more than %d agencies are staged under %s", maxStagedAgencies, c.GetStaging())
	}
	if len(rows) == 0 {
		return 0, refuse(invalidField, "agencies are missing")
	}
	if t.staged == nil {
		t.staged = map[string][]*directoryv1.Agency{}
	}
	t.staged[c.GetStaging()] = rows
	return 0, nil
}

func (t *tx) applyDiscardImport(c *directoryv1.DiscardImport) error {
	if _, open := t.base.staged[c.GetStaging()]; !open {
		return refuse(notFound, "no import is staged under %q", c.GetStaging())
	}
	t.staged = maps.Clone(t.base.staged)
	delete(t.staged, c.GetStaging())
	return nil
}

// putAgencies puts all agencies in their order, each as PutAgency would, or
// refuses with every fault found. What an import leaves out of an agency that
// exists, it keeps: a list of names and codes neither moves an agency, nor
// resumes it, nor unbinds its certificates.
func (t *tx) putAgencies(rows []*directoryv1.Agency) (agencies uint32, err error) {
	if len(rows) == 0 {
		return 0, refuse(invalidField, "agencies are missing")
	}
	var all problems
	firstRow := make(map[string]int, len(rows))  // code -> row
	claims := make(map[string]string, len(rows)) // code or alias -> code that asks for it
	sound := make([]bool, len(rows))
	for i, a := range rows {
		var p problems
		p.agency(a)
		if j, twice := firstRow[a.GetCode()]; twice && !p.found() {
			p.add(conflict, "stands twice, first at agencies[%d]", j)
		}
		sound[i] = !p.found()
		all.row(i, a, &p)
		if !sound[i] {
			continue
		}
		firstRow[a.GetCode()] = i
		for _, name := range append([]string{a.GetCode()}, a.GetAliases()...) {
			claims[name] = a.GetCode()
		}
	}
	failed := map[string]bool{}
	for i, a := range rows {
		if !sound[i] || a.GetParentCode() != "" && failed[a.GetParentCode()] {
			failed[a.GetCode()] = true
			continue // for its own fault, or for that of its superior
		}
		var p problems
		before := t.lookup(a.GetCode())
		if before.message().GetCode() == a.GetCode() {
			keepWhatIsLeftOut(a, before.Agency)
		}
		if j, later := firstRow[a.GetParentCode()]; later && j > i && t.lookup(a.GetParentCode()) == nil {
			p.add(conflict, "parent_code: %s comes later, at agencies[%d]; superiors come first", a.GetParentCode(), j)
		} else if t.placeAgency(&p, before, a, func(name string) bool {
			by, ok := claims[name]
			return ok && by != a.GetCode()
		}) {
			agencies++
		}
		failed[a.GetCode()] = p.found()
		all.row(i, a, &p)
	}
	if err := all.err(); err != nil {
		return 0, err
	}
	return agencies, nil
}

// row adds the faults of one row of an import.
func (p *problems) row(i int, a *directoryv1.Agency, of *problems) {
	if !of.found() {
		return
	}
	message := of.err().Error()
	p.add(of.reason, "agencies[%d] %s: %s", i, a.GetCode(), message)
	if len(p.rows) < maxNamedProblems {
		p.rows = append(p.rows, &directoryv1.RowFault{
			Row: uint32(i), Code: strings.ToValidUTF8(a.GetCode(), "?"), Reason: of.reason, Message: message,
		})
	}
}

func keepWhatIsLeftOut(a, before *directoryv1.Agency) {
	a.Suspended = before.GetSuspended()
	if len(a.GetAliases()) == 0 {
		a.Aliases = slices.Clone(before.GetAliases())
	}
	if len(a.GetKeyHashes()) == 0 {
		a.KeyHashes = before.GetKeyHashes()
	}
	if len(a.GetSealingKeys()) == 0 {
		a.SealingKeys = before.GetSealingKeys()
	}
}
