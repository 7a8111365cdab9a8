package consensus

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// fsm is the machine as Raft sees it on a running node.
type fsm struct {
	machine *machine
	mark    *appliedMark
	stop    func(error) // ends Run; may be called often, the first error counts
	meters  *meters
	joined  func() error // notes that this relay is a member
	// configuration is the index of the committed configuration, 0 while it is
	// known from a snapshot only.
	configuration atomic.Uint64
}

var (
	_ raft.FSM                = (*fsm)(nil)
	_ raft.ConfigurationStore = (*fsm)(nil)
)

func (f *fsm) Apply(l *raft.Log) any {
	start := time.Now()
	o := f.machine.apply(l.Index, l.Data)
	if o.err != nil {
		f.stop(o.err)
		return o
	}
	f.meters.applied(start, o.Repeat)
	if err := f.mark.write(l.Index); err != nil {
		f.stop(err)
	}
	return o
}

// StoreConfiguration is called when a configuration is committed. Without it
// Raft would not count the entry as applied, and refuse to make a snapshot
// until the next write.
func (f *fsm) StoreConfiguration(index uint64, _ raft.Configuration) {
	f.configuration.Store(index)
	if err := errors.Join(f.mark.write(index), f.joined()); err != nil {
		f.stop(err)
	}
}

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	v, err := f.machine.view()
	if err != nil {
		f.stop(err)
		return nil, err
	}
	return persisted{v}, nil
}

// Restore never returns an error: Raft answers one with a panic when it comes
// from an operator's Restore, and by trying for ever when it comes from the
// leader. Stopping the node is the one right answer to both.
func (f *fsm) Restore(source io.ReadCloser) error {
	if err := f.machine.restore(source); err != nil {
		f.stop(err)
	}
	return nil
}

// recovering is the machine during an offline recovery, where Raft wants the
// errors: it goes on to an older snapshot where the newest is damaged. Entries
// are applied without their outcome being looked at, so that failure is found
// when the new snapshot is made.
type recovering struct{ machine *machine }

var _ raft.FSM = (*recovering)(nil)

func (r *recovering) Apply(l *raft.Log) any { return r.machine.apply(l.Index, l.Data) }

func (r *recovering) Restore(source io.ReadCloser) error {
	err := r.machine.restore(source)
	if err != nil {
		r.machine = newMachine(r.machine.state)
	}
	return err
}

func (r *recovering) Snapshot() (raft.FSMSnapshot, error) {
	v, err := r.machine.view()
	if err != nil {
		return nil, err
	}
	return persisted{v}, nil
}

// persisted writes a view into a snapshot.
type persisted struct{ view *view }

func (p persisted) Persist(sink raft.SnapshotSink) error {
	if err := p.view.writeTo(sink); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (persisted) Release() {}
