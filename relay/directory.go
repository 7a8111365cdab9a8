package relay

import (
	"context"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/routing"
)

// Directory is the replicated directory as the relay needs it. All methods may
// be called at once.
type Directory interface {
	// View is this relay's copy, consistent and at once.
	View() routing.View
	// Changed is closed at the next change of the copy; take it before View.
	Changed() <-chan struct{}
	// Propose applies a command on every relay. It is applied once, however
	// often it is proposed with the same request id, and the caller is the one
	// who retries. Without a leader, the error carries reason NO_LEADER
	// (envelope.AsRefusal). That the state machine refused the command is no
	// error but stands in the result.
	Propose(ctx context.Context, requestID [16]byte, command *directoryv1.Command) (Proposed, error)
	// ReadBarrier returns when the copy includes every change that was finished
	// before the call. Errors are as with Propose.
	ReadBarrier(ctx context.Context) error
}

// Proposed is what came of a command.
type Proposed struct {
	// Index in the Raft log.
	Index uint64
	// Result is what the state machine answered.
	Result *directoryv1.CommandResult
	// Repeat: it had been applied before.
	Repeat bool
}
