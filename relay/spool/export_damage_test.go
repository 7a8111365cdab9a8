package spool

import "time"

// Vigilant looks for damage, mends and keeps the reserve without pause.
func Vigilant(cfg Config) Config {
	cfg = Hurried(cfg)
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
