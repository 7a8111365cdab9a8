// Package faults breaks what lies between relays and under them: links, disks
// and files. Tests use it; nothing else does.
//
// A Proxy stands in front of one address and forwards TCP connections to it,
// until it is told to be worse: to cut, to refuse, to swallow, to hold, to be
// late or slow, to reset after so many bytes, to flap. It can be told while
// connections live, and Heal ends every fault. Traffic is never changed: what
// arrives is what was sent, up to where a connection was cut.
//
// Chance has a seed, so that a run can be told again.
package faults

import "time"

// Way is a direction in a connection.
type Way uint8

// Ways: Up is from who dialled to who listens.
const (
	Up Way = 1 << iota
	Down
	Both = Up | Down
)

// index of one way in an array.
func (w Way) index() int { return int(w) - 1 }

// indexes of one or both ways in an array.
func (w Way) indexes() []int {
	switch w {
	case Up, Down:
		return []int{w.index()}
	}
	return []int{Up.index(), Down.index()}
}

// arrival is what happens to a new connection.
type arrival uint8

const (
	forwarded arrival = iota
	reset             // as where nobody listens
	swallowed         // taken, and never answered
)

// condition is what a link is like; the zero one is a good link.
type condition struct {
	arrival arrival
	ways    [2]way
}

func (c condition) loses() bool {
	return c.arrival == swallowed || c.ways[0].lost || c.ways[1].lost
}

// way is what a link is like in one direction.
type way struct {
	// lost bytes never arrive, and neither does the end of the connection.
	lost bool
	// held bytes arrive once they are not held any more.
	held          bool
	delay, jitter time.Duration
	// rate is in bytes per second; 0: as fast as it goes.
	rate int64
}
