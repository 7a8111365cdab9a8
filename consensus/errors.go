package consensus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/raft"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// errorDomain is the domain of google.rpc.ErrorInfo in every status.
const errorDomain = "truc"

// ErrNoLeader says that no leader could be asked in time. A write that ended
// so may still have been applied: hand it in again with the same request id.
// On the wire it is UNAVAILABLE with reason NO_LEADER.
var ErrNoLeader error = &noLeader{}

type noLeader struct {
	// handed is set when a leader had got the request before it was lost.
	handed bool
	cause  error
}

func (e *noLeader) Error() string {
	text := "the directory has no leader just now; changes wait"
	if e.handed {
		text = "the leader was lost before it answered; ask again with the same request id"
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

func (e *noLeader) Is(target error) bool { return target == ErrNoLeader }
func (e *noLeader) Unwrap() error        { return e.cause }

// GRPCStatus is what grpc sends for it.
func (e *noLeader) GRPCStatus() *status.Status {
	return statusOf(codes.Unavailable, exchangev1.ErrorReason_ERROR_REASON_NO_LEADER, e.Error())
}

// Refusal is a definite no: the same request gets it again until something
// else changes. It is the same value on the relay that asked the leader.
type Refusal struct {
	// Reason is one of the contract's reasons.
	Reason exchangev1.ErrorReason
	// Message says what is wrong and what to do next.
	Message string
}

func (r *Refusal) Error() string { return r.Message }

// GRPCStatus is what grpc sends for it.
func (r *Refusal) GRPCStatus() *status.Status {
	code, ok := codeOf[r.Reason]
	if !ok {
		code = codes.FailedPrecondition
	}
	return statusOf(code, r.Reason, r.Message)
}

var codeOf = map[exchangev1.ErrorReason]codes.Code{
	exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD: codes.InvalidArgument,
	exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE:     codes.InvalidArgument,
	exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND:     codes.NotFound,
	exchangev1.ErrorReason_ERROR_REASON_CONFLICT:      codes.FailedPrecondition,
	exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE:   codes.FailedPrecondition,
	exchangev1.ErrorReason_ERROR_REASON_DAMAGED:       codes.DataLoss,
}

func refuse(reason exchangev1.ErrorReason, format string, args ...any) error {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

const reasonPrefix = "ERROR_REASON_"

func statusOf(code codes.Code, reason exchangev1.ErrorReason, message string) *status.Status {
	st := status.New(code, message)
	detailed, err := st.WithDetails(&errdetails.ErrorInfo{
		Reason: strings.TrimPrefix(reason.String(), reasonPrefix), Domain: errorDomain,
	})
	if err != nil {
		return st
	}
	return detailed
}

// errNotRunning is what calls get before Run has loaded the state and after it
// has begun to stop.
var errNotRunning error = notRunning{}

type notRunning struct{}

func (notRunning) Error() string { return "the directory is not running on this relay" }

func (e notRunning) GRPCStatus() *status.Status {
	return statusOf(codes.Unavailable, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING, e.Error())
}

// errElsewhere sends the caller to look for the leader again.
var errElsewhere = errors.New("leadership was handed over")

// mayRetryHere reports whether the local Raft's answer means only that another
// member must be asked, or the same one later.
func mayRetryHere(err error) bool {
	for _, transient := range []error{
		raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrLeadershipTransferInProgress,
		raft.ErrEnqueueTimeout, raft.ErrAbortedByRestore, raft.ErrRaftShutdown,
		errNotRunning, errElsewhere,
	} {
		if errors.Is(err, transient) {
			return true
		}
	}
	return false
}

// mayHaveHappened reports whether the local Raft had taken the entry before it
// failed.
func mayHaveHappened(err error) bool {
	return errors.Is(err, raft.ErrLeadershipLost) || errors.Is(err, raft.ErrRaftShutdown)
}

// fromLeader turns the status of a forwarded call into what the same call
// would have returned on the leader; retry reports that another try may end
// otherwise.
func fromLeader(err error) (_ error, retry bool) {
	st := status.Convert(err)
	switch st.Code() {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.Unknown:
		return err, true
	}
	for _, detail := range st.Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != errorDomain {
			continue
		}
		if reason, known := exchangev1.ErrorReason_value[reasonPrefix+info.GetReason()]; known {
			return &Refusal{Reason: exchangev1.ErrorReason(reason), Message: st.Message()}, false
		}
	}
	return err, false
}

// onWire is what a service of ours answers for err: everything that has no
// status of its own and may end otherwise elsewhere becomes NO_LEADER.
func onWire(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	if mayRetryHere(err) {
		return &noLeader{handed: mayHaveHappened(err), cause: err}
	}
	return err
}
