package spool

import (
	"maps"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
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
	s.damage.mu.Lock()
	defer s.damage.mu.Unlock()
	out.Damaged, out.LostRecords = len(s.damage.envelopes), s.damage.records
	return out
}

// assess finds out what damage that the journal has found did to envelopes.
func (s *Spool) assess() error {
	all := s.journal.Damage()
	if len(all) == 0 {
		return nil
	}
	for _, d := range all {
		if d.First > 0 {
			s.damage.records += d.Last - d.First + 1
		}
	}
	s.log.Error("journal is damaged: envelopes may lack content or duties, other relays have copies",
		"places", len(all), "records", s.damage.records)
	hit := func(p journal.Position) bool {
		for _, d := range all {
			if p.Segment == d.Segment && p.Offset >= d.Offset && p.Offset < d.Offset+d.Length {
				return true
			}
		}
		return false
	}
	v := s.store.View()
	defer v.Close()
	return v.Each(index.Envelopes(), func(key, value []byte) error {
		st, err := decodeState(value)
		if err != nil || st.released() {
			return err
		}
		id := index.ParseID(key)
		if st.Whole != nil && hit(st.Whole.Position) {
			s.damaged(id, 0, errMissing)
		}
		if st.Generation == 0 {
			return nil
		}
		return s.assessChunks(v, id, st, hit)
	})
}

func (s *Spool) assessChunks(v *index.View, id envelope.ID, st *state, hit func(journal.Position) bool) error {
	var here uint64
	last := 0
	err := v.Each(index.Chunks(id, st.Generation), func(key, value []byte) error {
		l, err := decodeLocation(value)
		if err != nil {
			return err
		}
		last, _ = index.ParseChunkKey(key)
		if hit(l.Position) {
			s.damaged(id, last, errMissing)
		}
		here += uint64(l.Length)
		return nil
	})
	if err == nil && here < st.Size {
		s.damaged(id, last, errMissing)
	}
	return err
}
