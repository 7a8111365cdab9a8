package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/hashicorp/raft"
)

// AppendEntry writes a command behind the last entry of a log nobody runs on.
func AppendEntry(dir string, data []byte) (err error) {
	s, err := openStore(dir, func(error) {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	var l raft.Log
	if err := s.GetLog(last, &l); err != nil {
		return err
	}
	return s.StoreLog(&raft.Log{Index: last + 1, Term: l.Term, Type: raft.LogCommand, Data: data})
}

// CutLog takes the last n entries off a log nobody runs on.
func CutLog(dir string, n uint64) (err error) {
	s, err := openStore(dir, func(error) {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	return s.DeleteRange(last-n+1, last)
}

// Contents returns all that a member would start with: votes, entries, and the
// state after the last of them, in words that can be compared.
func Contents(dir string, sm StateMachine) (_ string, err error) {
	var stopped error
	s, err := openStore(dir, func(err error) { stopped = err })
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, stopped, s.Close()) }()
	snapshots, err := openSnapshots(dir, &bridge{logger: slog.New(slog.DiscardHandler), name: "raft"})
	if err != nil {
		return "", err
	}
	mark, err := openMark(dir, func(error) {})
	if err != nil {
		return "", err
	}
	defer mark.close()
	last, err := s.LastIndex()
	if err != nil {
		return "", err
	}
	// What the mark claims is judged; then all is applied that is there.
	if _, err := load(newMachine(nothing{}), s, snapshots, mark.read()); err != nil {
		return "", err
	}
	configuration, err := load(newMachine(sm), s, snapshots, last)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration %d\n", configuration)
	for _, key := range voteKeys {
		value, err := s.Get([]byte(key))
		fmt.Fprintf(&b, "%s %x %v\n", key, value, err)
	}
	first, err := s.FirstIndex()
	if err != nil {
		return "", err
	}
	for index := first; index <= last; index++ {
		var l raft.Log
		err := s.GetLog(index, &l)
		fmt.Fprintf(&b, "%d %d %d %d %x %x %v\n", index, l.Index, l.Term, l.Type, l.Data, l.Extensions, err)
	}
	state, err := sm.Snapshot()
	if err != nil {
		return "", err
	}
	_, err = state.WriteTo(&b)
	return b.String(), err
}

// nothing takes every command and keeps nothing.
type nothing struct{}

func (nothing) Apply([]byte) ([]byte, error)   { return nil, nil }
func (nothing) Snapshot() (io.WriterTo, error) { return new(bytes.Buffer), nil }
func (nothing) Restore(r io.Reader) error      { _, err := io.Copy(io.Discard, r); return err }
