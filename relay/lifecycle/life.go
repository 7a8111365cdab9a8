package lifecycle

import "slices"

// maxHeard is how many statements are kept of a document at one recipient. Older
// ones count on in the state that they came to.
const maxHeard = 100

// Heard is a statement, and the id of the envelope that made it.
type Heard struct {
	Statement
	Source [16]byte
	// Outcome is what became of it when the life was told last.
	Outcome Outcome
}

// Life is what was said of a document at one recipient.
type Life struct {
	// Base is what the statements came to that are not kept any more, Dropped
	// how many these are.
	Base    State
	Dropped uint32
	// Said are the others, in the order of Before.
	Said []Heard
}

// Before orders statements: as relays accepted them, which whoever answers does
// behind the question; then as they were dated.
func (s Statement) Before(other Statement) int {
	if c := s.Heard.Compare(other.Heard); c != 0 {
		return c
	}
	return s.At.Compare(other.At)
}

// Hear adds a statement where its place is, and tells all of them again. What
// one envelope says is heard once; false: it was.
func (l *Life) Hear(h Heard) bool {
	if slices.ContainsFunc(l.Said, func(o Heard) bool { return o.Source == h.Source && o.Act == h.Act }) {
		return false
	}
	at, _ := slices.BinarySearchFunc(l.Said, h, func(o, h Heard) int {
		if c := o.Before(h.Statement); c != 0 {
			return c
		}
		return -1 // behind those of one time
	})
	l.Said = slices.Insert(slices.Clip(l.Said), at, h)
	s := l.Base
	for i := range l.Said {
		var v Verdict
		s, v = s.Next(l.Said[i].Statement)
		l.Said[i].Outcome = v.Outcome
	}
	for len(l.Said) > maxHeard {
		l.Base, _ = l.Base.Next(l.Said[0].Statement)
		l.Said = slices.Delete(l.Said, 0, 1)
		l.Dropped++
	}
	return true
}

// State is what all of it comes to.
func (l *Life) State() State {
	if l == nil {
		return State{}
	}
	s := l.Base
	for _, h := range l.Said {
		s, _ = s.Next(h.Statement)
	}
	return s
}

// OutcomeOf is what became of what an envelope said.
func (l *Life) OutcomeOf(source [16]byte) (Outcome, bool) {
	i := slices.IndexFunc(l.Said, func(h Heard) bool { return h.Source == source })
	if i < 0 {
		return 0, false
	}
	return l.Said[i].Outcome, true
}

// Clone is a copy that nothing shares.
func (l *Life) Clone() *Life {
	if l == nil {
		return nil
	}
	c := *l
	c.Said = slices.Clone(l.Said)
	return &c
}
