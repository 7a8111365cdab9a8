package spool

import (
	"maps"

	"github.com/truclienthong/truc/routing"
)

// Stats is the spool at one moment.
type Stats struct {
	Counters
	// Queues is the length of every queue that is not empty.
	Queues map[routing.RelayID]int64
	// Segments are the journal's, JournalBytes what they take on disk, of which
	// LiveBytes are needed. IndexBytes is what the index takes.
	Segments                            int
	JournalBytes, LiveBytes, IndexBytes int64
	// Damaged counts envelopes whose content was found damaged, Repaired those
	// that were mended, LostRecords the records that are missing in the journal
	// and that the index did not know either, all since Open. Quarantined are
	// the envelopes whose content is damaged now.
	Damaged, Repaired, Quarantined int
	LostRecords                    uint64
}

// Stats returns figures as of now. They cost no look at the disk.
func (s *Spool) Stats() Stats {
	infos := s.journal.Segments()
	m := s.machine
	m.mu.Lock()
	out := Stats{Counters: m.counters, Queues: maps.Clone(m.lengths), Segments: len(infos)}
	for _, seg := range m.segments {
		out.LiveBytes += seg.live
	}
	m.mu.Unlock()
	maps.DeleteFunc(out.Queues, func(_ routing.RelayID, n int64) bool { return n == 0 })
	for _, info := range infos {
		out.JournalBytes += info.Size
	}
	out.IndexBytes = s.store.Size()
	q := s.quarantine
	q.mu.Lock()
	defer q.mu.Unlock()
	out.Damaged, out.Repaired, out.Quarantined, out.LostRecords = q.found, q.mended, len(q.hurt), q.records
	return out
}
