package spool

import (
	"fmt"
	"path/filepath"
	"time"
)

// Vigilant looks for damage, mends and keeps the reserve without pause; nothing
// is written again but for damage.
func Vigilant(cfg Config) Config {
	cfg = Hurried(cfg)
	cfg.CopyAfter = time.Hour
	cfg.ScrubRate, cfg.ScrubEvery = 1<<30, 5*time.Millisecond
	cfg.scrubAfter, cfg.mendAgain, cfg.stuckFor = time.Millisecond, time.Millisecond, time.Millisecond
	cfg.reserveEvery = 5 * time.Millisecond
	return cfg
}

// Careless never looks for damage by itself.
func Careless(cfg Config) Config {
	cfg = Vigilant(cfg)
	cfg.ScrubEvery, cfg.scrubAfter = time.Hour, time.Hour
	return cfg
}

// Failing is closed when the spool has failed.
func (s *Spool) Failing() <-chan struct{} { return s.failing.Done() }

// Counted reports whether the index still counts the segment in a file.
func (s *Spool) Counted(file string) bool {
	var n uint64
	fmt.Sscanf(filepath.Base(file), "%x.segment", &n)
	s.machine.mu.Lock()
	defer s.machine.mu.Unlock()
	return s.machine.segments[n] != nil
}
