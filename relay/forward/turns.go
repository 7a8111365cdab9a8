package forward

import (
	"context"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
)

// turnShare bounds how long an urgent lane may keep those below it waiting: when
// a feeder has picked so many entries in lane order, the next is one of a lower
// lane, if one waits. So the lower lanes of the urgent stream together get at
// least one offer in turnShare and one, about 6 in 100, each in its turn.
// Ordinary documents are a stream of their own, where no lane is above them.
const turnShare = 16

// pick is an entry that may be offered.
type pick struct {
	envelope.QueueEntry
	// turn: it was picked out of lane order, and is not to be overtaken.
	turn bool
}

// turnDue reports whether a lower lane is to be looked at. One whose large entry
// was owed its turn when all places were taken waits until there is a place.
func (fd *feeder) turnDue() bool {
	return fd.row >= turnShare && !(fd.owed && fd.transfer == fd.f.Transfers)
}

// turn picks the next entry of the lower lane whose turn it is, or of the one
// after it; the lowest begins. It looks at one page of each at most.
func (fd *feeder) turn(ctx context.Context, now time.Time) (pick, bool) {
	fd.row, fd.owed = 0, false
	lower := fd.lanes[1:]
	for range lower {
		lane := lower[len(lower)-1-fd.turns%len(lower)]
		if lane == fd.current {
			fd.turns++
			continue
		}
		page, err := fd.f.Queues.Queue(fd.d.relay, fd.place.after(lane), pageSize)
		if err != nil {
			fd.f.Logger.ErrorContext(ctx, "queue cannot be read", "peer", fd.d.relay, "error", err)
			return pick{}, false
		}
		for _, e := range page {
			if e.Lane != lane {
				break
			}
			fd.place[lane] = e.Sequence
			if fd.ready(e, now) {
				fd.turns++
				return pick{e, true}, true
			}
		}
		fd.turns++
	}
	return pick{}, false
}

// picked counts an entry whose offer was started.
func (fd *feeder) picked(e pick) {
	if !e.turn {
		fd.row++
	}
}

// owe gives a large entry that found no place its turn back.
func (fd *feeder) owe(e pick) {
	if e.turn {
		fd.row, fd.owed = turnShare, true
		fd.turns += len(fd.lanes) - 2 // the same lane again
	}
}
