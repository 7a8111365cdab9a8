package spool

import "github.com/truclienthong/truc/relay/spool/journal"

// maxReserve bounds what is reserved by default on a large disk.
const maxReserve = 4 << 30

// Space returns the bytes free on the file system of the spool, and those that
// new envelopes must leave: below, only what is in custody goes on.
func (s *Spool) Space() (free, reserve uint64, err error) {
	free, total, err := s.fs().Space(s.cfg.Dir)
	if err != nil {
		return 0, 0, err
	}
	if s.cfg.Reserve > 0 {
		return free, s.cfg.Reserve, nil
	}
	return free, max(4*uint64(s.cfg.SegmentSize), min(total/20, maxReserve)), nil
}

func (s *Spool) fs() journal.FS {
	if s.cfg.FS == nil {
		return journal.System()
	}
	return s.cfg.FS
}
