// Package routing holds the vocabulary of the mesh and its pure decisions: the
// codes of agencies and relays, the directory that Raft replicates, groups,
// rules, and the next hop of an envelope.
//
// It promises:
//
//   - Determinism. Two directories that were given the same commands are the
//     same, to the byte of their snapshots. There is no I/O here and no clock:
//     time comes in Command.at.
//   - All or nothing. A command takes effect as a whole, adds one to the
//     version, and is seen by every View taken afterwards; or it is refused
//     with a reason, and the directory and its version are what they were.
//   - Look-ups do not wait. A View is an immutable snapshot; reading it takes
//     no lock, and looking up an agency or a relay allocates nothing.
//   - Default deny. What no rule allows is refused; a rule that denies wins.
//
// It does not know who may give a command (relay and consensus/admin ask that
// before proposing), does not reach for files or the network, and does not
// parse certificates: their parsers change between releases, and relays of two
// releases must come to the same result.
//
// Invariants of the state, kept by every command and checked by Restore:
//
//   - A code or alias means one agency; a code is never another's alias.
//   - A key hash means one agency or one gateway.
//   - The superior of an agency exists, and superiors form no circle.
//   - Every agency has a home, a registered relay that is neither retired nor
//     lost; its standby, where there is one, is another such relay.
//   - Gateways and groups name only agencies that exist, by their codes.
package routing

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// CommandVersion is the version of the commands' meaning that this release
// knows.
const CommandVersion = 1

// AdministrationRule is the id of the rule that a new directory holds: agencies
// may write to one another.
const AdministrationRule = "administration"

// Directory is the replicated state machine. Its methods may be called from
// any goroutine; Apply and Restore wait for each other, nothing else waits.
type Directory struct {
	changing sync.Mutex // held by Apply and Restore
	current  atomic.Pointer[state]
}

// NewDirectory returns a directory of version 0 that holds the shipped rule set
// "administration" and nothing else.
func NewDirectory() *Directory {
	d := new(Directory)
	t := begin(newState())
	t.version = 0 // the rules a directory is born with are no change
	t.putRule(&directoryv1.Rule{
		Id:     AdministrationRule,
		Effect: directoryv1.Effect_EFFECT_ALLOW,
		From:   new(directoryv1.Selector),
		To:     new(directoryv1.Selector),
		Note:   "Các cơ quan được gửi văn bản cho nhau (agencies may write to one another)",
	})
	d.current.Store(t.commit())
	return d
}

// CheckCommand reports whether Apply would understand the command: what it
// would answer with an error, which stops every relay that meets it in the
// log. Whoever proposes a command checks it first.
func CheckCommand(command []byte) error {
	_, err := parseCommand(command)
	return err
}

func parseCommand(command []byte) (*directoryv1.Command, error) {
	c := new(directoryv1.Command)
	if err := proto.Unmarshal(command, c); err != nil {
		return nil, fmt.Errorf("directory command of %d bytes: %w", len(command), err)
	}
	if c.GetVersion() != CommandVersion {
		return nil, fmt.Errorf("directory command has version %d, this release knows %d", c.GetVersion(), CommandVersion)
	}
	if c.GetChange() == nil {
		return nil, errors.New("directory command names no change that this release knows")
	}
	return c, nil
}

// Apply executes one directoryv1.Command and answers a
// directoryv1.CommandResult; a refusal is an answer too. An error means that
// the command is not understood (see CheckCommand): nothing changed, and the
// relay must stop rather than diverge from those that understand it.
func (d *Directory) Apply(command []byte) (result []byte, err error) {
	c, err := parseCommand(command)
	if err != nil {
		return nil, err
	}
	d.changing.Lock()
	defer d.changing.Unlock()

	base := d.current.Load()
	t := begin(base)
	t.at = c.GetAt()
	answer := new(directoryv1.CommandResult)
	agencies, err := t.change(c)
	var no *refusal
	switch {
	case errors.As(err, &no):
		t.abort()
		answer.Version, answer.Reason, answer.Message, answer.Faults = base.version, no.reason, no.message, no.rows
		if t.discard != "" {
			d.current.Store(base.withoutStaged(t.discard))
		}
	case err != nil:
		t.abort()
		return nil, err
	default:
		next := t.commit()
		d.current.Store(next)
		close(base.changed)
		answer.Version, answer.Agencies = next.version, agencies
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(answer)
}

// change dispatches the command and returns how many agencies it added or
// changed. Command.actor is for the log's readers; nothing depends on it.
func (t *tx) change(c *directoryv1.Command) (agencies uint32, err error) {
	if c.GetAt() != nil && !c.GetAt().IsValid() {
		return 0, refuse(invalidField, "at: no valid time")
	}
	switch x := c.GetChange().(type) {
	case *directoryv1.Command_PutRelay:
		return 0, t.applyPutRelay(x.PutRelay)
	case *directoryv1.Command_SetRelayState:
		return t.applySetRelayState(x.SetRelayState)
	case *directoryv1.Command_RemoveRelay:
		return 0, t.applyRemoveRelay(x.RemoveRelay)
	case *directoryv1.Command_RetireRelay:
		return t.applyRetireRelay(x.RetireRelay)
	case *directoryv1.Command_PutAgency:
		return 1, t.applyPutAgency(x.PutAgency)
	case *directoryv1.Command_MoveAgency:
		return 1, t.applyMoveAgency(x.MoveAgency)
	case *directoryv1.Command_SuspendAgency:
		return 1, t.applySuspendAgency(x.SuspendAgency)
	case *directoryv1.Command_RemoveAgency:
		return 0, t.applyRemoveAgency(x.RemoveAgency)
	case *directoryv1.Command_ImportAgencies:
		return t.applyImport(x.ImportAgencies)
	case *directoryv1.Command_DiscardImport:
		return 0, t.applyDiscardImport(x.DiscardImport)
	case *directoryv1.Command_SetGroup:
		return 0, t.applySetGroup(x.SetGroup)
	case *directoryv1.Command_RemoveGroup:
		return 0, t.applyRemoveGroup(x.RemoveGroup)
	case *directoryv1.Command_PutRule:
		return 0, t.applyPutRule(x.PutRule)
	case *directoryv1.Command_RemoveRule:
		return 0, t.applyRemoveRule(x.RemoveRule)
	case *directoryv1.Command_PutGateway:
		return 0, t.applyPutGateway(x.PutGateway)
	case *directoryv1.Command_RemoveGateway:
		return 0, t.applyRemoveGateway(x.RemoveGateway)
	case *directoryv1.Command_PutTrustRoot:
		return 0, t.applyPutTrustRoot(x.PutTrustRoot)
	case *directoryv1.Command_RemoveTrustRoot:
		return 0, t.applyRemoveTrustRoot(x.RemoveTrustRoot)
	case *directoryv1.Command_RevokeCertificate:
		return 0, t.applyRevokeCertificate(x.RevokeCertificate)
	default:
		return 0, fmt.Errorf("directory command %T is not known to this release", x)
	}
}

// View returns the directory as it is now.
func (d *Directory) View() View { return View{d.current.Load()} }

// Changed returns a channel that is closed at the next change. Take it before
// the View: a change between the two then closes it.
func (d *Directory) Changed() <-chan struct{} { return d.current.Load().changed }

// Snapshot returns a consistent copy of the directory as it is now, a stream
// of SnapshotRecord; writing it out may go on while Apply does.
func (d *Directory) Snapshot() (io.WriterTo, error) {
	return snapshot{d.current.Load()}, nil
}

// Restore puts the snapshot that r carries in the place of the directory. If it
// is damaged, cut short, or breaks an invariant, the directory stays as it is.
func (d *Directory) Restore(r io.Reader) error {
	next, err := readSnapshot(r)
	if err != nil {
		return fmt.Errorf("restore directory: %w", err)
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	before := d.current.Swap(next)
	close(before.changed)
	return nil
}

// refusal is the "no" of a command; it becomes a CommandResult.
type refusal struct {
	reason  exchangev1.ErrorReason
	message string
	rows    []*directoryv1.RowFault // of an import
}

func (r *refusal) Error() string { return r.message }

const (
	invalidField = exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	conflict     = exchangev1.ErrorReason_ERROR_REASON_CONFLICT
	notFound     = exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND
)

func refuse(reason exchangev1.ErrorReason, format string, args ...any) error {
	return &refusal{reason: reason, message: fmt.Sprintf(format, args...)}
}
