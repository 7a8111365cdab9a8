package mesh

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/truclienthong/truc/cmd/relayd/dev"
	"github.com/truclienthong/truc/cmd/relayd/node"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
)

// StartRelay starts a relay of the layout, or one that was stopped or killed.
func (m *Mesh) StartRelay(id string) {
	m.t.Helper()
	file := m.Layout.RelayConfig(id)
	var r relay
	var err error
	if m.config.Processes {
		var within []string
		if m.config.Within != nil {
			within = m.config.Within(id)
		}
		r, err = startProcess(m.t, within, file, m.logFile(id))
	} else {
		r, err = startNode(file, m.logFile(id))
	}
	m.check("start relay "+id, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.relays[id] = r
	if conn, ok := m.conns[id]; ok {
		// It waits longer and longer for a relay that was away.
		m.retired = append(m.retired, conn)
		delete(m.conns, id)
	}
}

// joinNonvoters brings those into Raft that are no first voters.
func (m *Mesh) joinNonvoters() {
	m.t.Helper()
	for _, id := range m.config.Nonvoters {
		i := slices.IndexFunc(m.config.Relays, func(r dev.Relay) bool { return !slices.Contains(m.config.Nonvoters, r.ID) })
		m.Await("relay "+id+" joins", func(ctx context.Context) error {
			_, err := m.Operator(m.config.Relays[i].ID).Raft.AddNonvoter(ctx, &adminv1.AddNonvoterRequest{RelayId: id, Address: m.Address(id)})
			return err
		})
	}
}

// AddRelay starts a relay that is no first voter; bring it into Raft next. With
// Config.Links, relays that run already reach it as agencies do.
func (m *Mesh) AddRelay(r dev.Relay) {
	m.t.Helper()
	m.check("lay out relay "+r.ID, m.Layout.AddRelay(r))
	if m.links != nil {
		m.openLinksOf(r)
	}
	m.check("adjust relay "+r.ID, m.rewriteRelay(r.ID))
	m.StartRelay(r.ID)
}

// StopRelay ends a relay in order.
func (m *Mesh) StopRelay(id string) {
	m.t.Helper()
	m.check("stop relay "+id, m.EndRelay(id))
}

// EndRelay asks a relay to end, and returns how it did: in order, or because it
// was failing just then.
func (m *Mesh) EndRelay(id string) error {
	m.t.Helper()
	return m.take(id).stop()
}

// KillRelay ends a relay between two of its instructions (SIGKILL). It needs
// processes.
func (m *Mesh) KillRelay(id string) {
	m.t.Helper()
	m.check("kill relay "+id, m.take(id).kill())
}

func (m *Mesh) take(id string) relay {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.relays[id]
	if !ok {
		m.t.Fatalf("relay %s does not run", id)
	}
	delete(m.relays, id)
	return r
}

// Ended reports whether a relay has ended by itself; AwaitEnd says how.
func (m *Mesh) Ended(id string) bool {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.relays[id]
	return ok && r.over()
}

// AwaitEnd waits until a relay ends by itself, and returns how it did.
func (m *Mesh) AwaitEnd(id string) error {
	m.t.Helper()
	err, ended := m.take(id).ended(patience)
	if !ended {
		m.t.Fatalf("relay %s still runs after %s", id, patience)
	}
	return err
}

// PauseRelay stops a relay process in its tracks (SIGSTOP): connections stay,
// nothing answers. ResumeRelay lets it go on.
func (m *Mesh) PauseRelay(id string) {
	m.t.Helper()
	m.check("pause relay "+id, m.process(id).pause())
}

// ResumeRelay ends a PauseRelay.
func (m *Mesh) ResumeRelay(id string) {
	m.t.Helper()
	m.check("resume relay "+id, m.process(id).resume())
}

// Reconfigure changes relay.yaml of a relay that does not run.
func (m *Mesh) Reconfigure(id string, change func(*node.Config)) {
	m.t.Helper()
	if m.runs(id) {
		m.t.Fatalf("relay %s runs: stop it before its configuration is changed", id)
	}
	file := m.Layout.RelayConfig(id)
	config, err := node.Load(file)
	m.check("configuration of "+id, err)
	change(&config)
	m.check("configuration of "+id, config.Write(file))
}

// Data is the folder of a relay's spool ("spool") or directory ("raft").
func (m *Mesh) Data(id, part string) string {
	m.t.Helper()
	config, err := node.Load(m.Layout.RelayConfig(id))
	m.check("configuration of "+id, err)
	return filepath.Join(config.Data, part)
}

// WipeSpool takes all documents from a relay that does not run.
func (m *Mesh) WipeSpool(id string) { m.t.Helper(); m.wipe(id, "spool") }

// WipeRaft takes the directory and the votes from a relay that does not run.
func (m *Mesh) WipeRaft(id string) { m.t.Helper(); m.wipe(id, "raft") }

func (m *Mesh) wipe(id, part string) {
	m.t.Helper()
	if m.runs(id) {
		m.t.Fatalf("relay %s runs: stop it before its disk is wiped", id)
	}
	m.check("wipe "+part+" of "+id, os.RemoveAll(m.Data(id, part)))
}

func (m *Mesh) runs(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.relays[id]
	return ok
}

// inProcess is a relay in this process.
type inProcess struct {
	cancel context.CancelFunc
	done   chan error
}

func startNode(file, logFile string) (relay, error) {
	config, err := node.Load(file)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n, err := node.New(ctx, config, node.Options{Logger: node.NewLogger(config, log), Version: "test"})
	if err != nil {
		cancel()
		return nil, err
	}
	r := &inProcess{cancel: cancel, done: make(chan error, 1)}
	go func() {
		defer log.Close()
		r.done <- n.Run(ctx)
	}()
	return r, nil
}

func (r *inProcess) stop() error {
	r.cancel()
	select {
	case err := <-r.done:
		return err
	case <-time.After(patience):
		return fmt.Errorf("still running %s after it was told to stop", patience)
	}
}

func (r *inProcess) kill() error {
	return fmt.Errorf("a relay in this process cannot be killed: set Config.Processes")
}

func (r *inProcess) over() bool { return len(r.done) > 0 }

func (r *inProcess) ended(within time.Duration) (error, bool) {
	select {
	case err := <-r.done:
		r.cancel()
		return err, true
	case <-time.After(within):
		return nil, false
	}
}
