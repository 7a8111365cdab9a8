package agency

import "time"

// Quick makes the client of a test wait little between its tries.
func (c Config) Quick() Config {
	c.timing = timing{
		firstBackoff: 2 * time.Millisecond, maxBackoff: 20 * time.Millisecond, answers: 20 * time.Millisecond,
		probe: 5 * time.Second, remeasure: time.Hour, call: 10 * time.Second,
	}
	return c
}

// Remeasure sets how long a choice of relay stands.
func (c Config) Remeasure(d time.Duration) Config {
	c.timing.remeasure = d
	return c
}

// Backoff sets the waits after failures: of relays that are silent, and of
// those that answer.
func (c Config) Backoff(silent, answers time.Duration) Config {
	c.timing.firstBackoff, c.timing.maxBackoff, c.timing.answers = silent, silent, answers
	return c
}
