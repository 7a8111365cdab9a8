package directory

import (
	"slices"
)

// event is a change of a key whose version is known.
type event struct {
	version uint64
	there   bool
}

// timelines are the changes of each key by version; open are the keys with
// changes of which nobody knows whether and when they were done.
type timelines struct {
	events map[key][]event
	open   map[key]bool
}

// timelines requires mu.
func (e *epoch) timelines() timelines {
	l := timelines{map[key][]event{}, map[key]bool{}}
	for _, o := range e.history {
		c, a := o.Input.(call), o.Output.(*answer)
		switch {
		case a == nil:
			l.open[c.key] = true
		case c.verb != read && a.reason == done:
			l.events[c.key] = append(l.events[c.key], event{a.version, c.verb != remove})
		}
	}
	for _, events := range l.events {
		slices.SortFunc(events, func(a, b event) int { return int(a.version) - int(b.version) })
	}
	return l
}

// at returns the last known change of a key up to a version of the directory.
func (l timelines) at(k key, version uint64) (event, bool) {
	events := l.events[k]
	n, found := slices.BinarySearchFunc(events, version, func(e event, v uint64) int { return int(e.version) - int(v) })
	if found {
		n++
	}
	if n == 0 {
		return event{}, false
	}
	return events[n-1], true
}

// fits reports whether a key may look so in that version of the directory.
func (l timelines) fits(k key, seen row, version uint64) bool {
	last, any := l.at(k, version)
	if !seen.there {
		return l.open[k] || !any || !last.there
	}
	return seen.version <= version && (!any || last.version <= seen.version)
}

// prefixes asks that every read without a barrier is the directory of some
// version, never of an earlier one than the read before it at that relay, and
// that a version of a key looks the same to all; requires mu.
func (e *epoch) prefixes() {
	type change struct {
		key
		version uint64
	}
	looks := map[change]row{}
	same := func(k key, r row, who string) {
		r.above = 0
		if other, ok := looks[change{k, r.version}]; r.there && ok && other != r {
			e.violation("%s of version %d is %+v, and at %s %+v", k, r.version, other, who, r)
		}
		looks[change{k, r.version}] = r
	}
	for _, o := range e.history {
		if c := o.Input.(call); c.verb == read {
			same(c.key, o.Output.(*answer).row, "a read with a barrier")
		}
	}
	lines := e.timelines()
	for relay, sights := range e.stale {
		var version uint64
		for _, s := range sights {
			var keys []key
			starts := []uint64{version}
			for _, k := range e.keys {
				if k.table != s.table {
					continue
				}
				keys = append(keys, k)
				same(k, s.rows[k], relay)
				if r := s.rows[k]; r.there {
					starts = append(starts, r.version)
				} else {
					for _, ev := range lines.events[k] {
						if !ev.there {
							starts = append(starts, ev.version)
						}
					}
				}
			}
			slices.Sort(starts)
			n := slices.IndexFunc(starts, func(v uint64) bool {
				return v >= version && !slices.ContainsFunc(keys, func(k key) bool { return !lines.fits(k, s.rows[k], v) })
			})
			if n < 0 {
				e.violation("relay %s showed after %s what is no version of the directory from %d on, which it had shown before: %v",
					relay, s.at, version, rowsOf(keys, s.rows))
				continue
			}
			version = starts[n]
		}
	}
}

func rowsOf(keys []key, all map[key]row) map[string]row {
	rows := map[string]row{}
	for _, k := range keys {
		rows[k.String()] = all[k]
	}
	return rows
}
