package mesh

import "github.com/truclienthong/truc/relay/envelope"

// StrikeRelay sends SIGKILL to a relay process and does not wait for its end:
// one whose disk does not answer cannot end yet. KillRelay, afterwards, waits.
func (m *Mesh) StrikeRelay(id string) {
	m.t.Helper()
	_ = m.process(id).cmd.Process.Kill() // an error says that it has ended
}

// Trace is what the relays say of an envelope, for people.
func (m *Mesh) Trace(id envelope.ID) string { return m.traceOf(id) }
