package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// entryVersion is the one meaning of a log entry that this release knows.
const entryVersion = 1

// machine is the replicated state: the state machine and what is remembered of
// request ids, both at the same index.
//
// An index is applied at most once. At start the node applies what it knows to
// be committed before Raft runs, and Raft hands the same entries in again.
// A snapshot's own index may be lower than Raft's (entries that change nothing
// are not counted), or belong to another log after Restore; it is never higher
// than an index that Raft has already used, so nothing new is skipped.
type machine struct {
	advanced bell

	mu       sync.Mutex
	state    StateMachine
	requests memory
	applied  uint64
	failed   error // set once; nothing is applied, copied or replaced after it
}

// outcome is what became of one entry.
type outcome struct {
	Result
	err error
}

func newMachine(state StateMachine) *machine {
	return &machine{state: state, requests: newMemory()}
}

// apply applies a committed entry. An error is final: the machine has failed.
func (m *machine) apply(index uint64, data []byte) outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed != nil {
		return outcome{err: m.failed}
	}
	if index <= m.applied {
		return outcome{Result: Result{Index: index}}
	}
	o := m.applyEntry(index, data)
	if o.err != nil {
		m.failed = fmt.Errorf("apply entry %d: %w", index, o.err)
		return outcome{err: m.failed}
	}
	m.applied = index
	m.advanced.ring()
	return o
}

func (m *machine) applyEntry(index uint64, data []byte) outcome {
	var entry directoryv1.LogEntry
	if err := proto.Unmarshal(data, &entry); err != nil {
		return outcome{err: err}
	}
	if entry.GetVersion() != entryVersion {
		return outcome{err: fmt.Errorf("version %d is not known to this release, which knows %d", entry.GetVersion(), entryVersion)}
	}
	if len(entry.GetRequestId()) == 0 && len(entry.GetCommand()) == 0 {
		return outcome{Result: Result{Index: index}}
	}
	if len(entry.GetRequestId()) != len(requestID{}) {
		return outcome{err: fmt.Errorf("request id of %d bytes", len(entry.GetRequestId()))}
	}
	id := requestID(entry.GetRequestId())
	if first, ok := m.requests.recall(id, entry.GetAt().AsTime().UnixNano()); ok {
		return outcome{Result: Result{Index: first.index, Value: first.result, Repeat: true}}
	}
	value, err := m.state.Apply(entry.GetCommand())
	if err != nil {
		return outcome{err: err}
	}
	m.requests.remember(id, index, value)
	return outcome{Result: Result{Index: index, Value: value}}
}

// view returns the state as it is now, not touched by what comes later.
func (m *machine) view() (*view, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed != nil {
		return nil, m.failed
	}
	state, err := m.state.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("copy the state: %w", err)
	}
	return &view{
		applied: m.applied, latest: m.requests.latest,
		requests: slices.Clone(m.requests.order), state: state,
	}, nil
}

// restore replaces everything by what r holds. On an error the machine has
// failed: the state machine may have taken over a state whose end was missing.
func (m *machine) restore(r io.Reader) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed != nil {
		return m.failed
	}
	applied, requests, err := readFrames(r, m.state.Restore)
	if err != nil {
		m.failed = fmt.Errorf("take over a snapshot: %w", err)
		return m.failed
	}
	m.applied, m.requests = applied, requests
	m.advanced.ring()
	return nil
}

// waitApplied waits until index is in the local state.
func (m *machine) waitApplied(ctx context.Context, stopping <-chan struct{}, index uint64) error {
	for {
		advanced := m.advanced.listen()
		m.mu.Lock()
		applied, failed := m.applied, m.failed
		m.mu.Unlock()
		if failed != nil {
			return errors.Join(errNotRunning, failed)
		}
		if applied >= index {
			return nil
		}
		select {
		case <-advanced:
		case <-stopping:
			return errNotRunning
		case <-ctx.Done():
			return fmt.Errorf("wait until entry %d is applied here (now %d): %w", index, applied, ctx.Err())
		}
	}
}
