package simulation

import "time"

// settling is how long relays have to give their space back once all is done.
const settling = 10 * time.Second

// afterlife has every relay recycle what has ended, and then lose its index: what
// has ended is known all the same. A document that is handed in again has the id
// that it had, and nobody is given it again (watched).
func (w *world) afterlife() {
	w.mu.Lock()
	clean, expires := w.clean, w.expires
	w.mu.Unlock()
	if !clean || expires || w.seed%4 != 0 {
		return
	}
	for range 2 { // a start ends the segments that the life before it wrote
		for _, n := range w.nodes {
			n.stopInOrder()
			if err := n.start(); err != nil {
				w.violate("stopped", "relay %s does not start: %v", n.id, err)
				return
			}
		}
		w.sleep(settling)
	}
	for _, n := range w.nodes {
		n.crash(everything, false)
		n.disk.dropIndex()
		w.count(kindEnded, w.since())
		if err := n.start(); err != nil {
			w.violate("stopped", "relay %s does not start without its index: %v", n.id, err)
			return
		}
	}
	w.say("every index was lost")
	for _, l := range w.letters {
		w.until("what has ended is handed in again: "+l.plan.id, patience, func() error { return w.again(l) })
	}
	w.sleep(settling)
	for _, l := range w.letters {
		w.until("track of "+l.plan.id+" says done once more", patience, func() error { return w.tracked(l) })
	}
	w.until("everything that was said is kept without the indexes", patience, w.heard)
	w.until("the audit balances once more", patience, w.balanced)
}

// again hands a document in that has ended.
func (w *world) again(l *letter) error {
	client, ctx := l.sender.software()
	receipt, err := client.Submit(ctx, l.document)
	if err != nil {
		return err
	}
	if receipt.ID != l.id {
		w.violate("forked", "%s handed in again is %s, and was %s", l.plan.id, receipt.ID, l.id)
	}
	return nil
}
