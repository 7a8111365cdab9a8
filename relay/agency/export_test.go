package agency

import "time"

// Quick makes the client of a test wait little between its tries.
func (c Config) Quick() Config {
	c.timing = timing{
		firstBackoff: 2 * time.Millisecond, maxBackoff: 20 * time.Millisecond, answers: 20 * time.Millisecond,
		probe: 5 * time.Second, remeasure: time.Hour, away: time.Hour, call: 10 * time.Second,
	}
	return c
}

// Remeasure sets how long a choice of relay stands.
func (c Config) Remeasure(d time.Duration) Config {
	c.timing.remeasure = d
	return c
}

// Away sets how long a choice outside the home region stands.
func (c Config) Away(d time.Duration) Config {
	c.timing.away = d
	return c
}

// Backoff sets the waits after failures: of relays that are silent, and of
// those that answer.
func (c Config) Backoff(silent, answers time.Duration) Config {
	c.timing.firstBackoff, c.timing.maxBackoff, c.timing.answers = silent, silent, answers
	return c
}

// Disk is what makes a document in an outbox last.
type Disk = disk

// OSDisk is the real one.
var OSDisk Disk = osDisk{}

// On puts the outbox of a test on a disk of its own.
func (c OutboxConfig) On(d Disk) OutboxConfig {
	c.disk = d
	return c
}

// Quick makes Run look again after moments.
func (c OutboxConfig) Quick() OutboxConfig {
	c.passes = passes{first: 2 * time.Millisecond, most: 20 * time.Millisecond}
	return c
}
