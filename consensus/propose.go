package consensus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// Between two tries to find or ask the leader, unless its change wakes us.
const (
	firstPause   = 20 * time.Millisecond
	longestPause = 500 * time.Millisecond
)

// catchUp bounds how long a write that another relay led waits for its own
// relay to have applied it, so that whoever wrote can read it there.
const catchUp = 2 * time.Second

// Result is the outcome of a write.
type Result struct {
	// Index in the log.
	Index uint64
	// Value is what the state machine answered. Read-only.
	Value []byte
	// Repeat: it had been applied before; Index and Value are the first ones.
	Repeat bool
}

// Propose applies one command on every member and returns when a majority of
// the voters has it on disk and the leader has applied it; normally it is then
// applied here as well. Any relay may be asked. On ErrNoLeader the outcome is
// unknown: ask again with the same request id.
func (n *Node) Propose(ctx context.Context, requestID [16]byte, command []byte) (result Result, err error) {
	start := time.Now()
	defer func() { n.meters.proposed(start, err) }()
	if err := n.checkWrite(requestID[:], command); err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ProposeTimeout)
	defer cancel()
	var forwarded bool
	err = n.onLeader(ctx, leaderCall{
		here: func(ctx context.Context) error {
			forwarded = false
			result, err = n.proposeHere(ctx, requestID, command)
			return err
		},
		there: func(ctx context.Context, client directoryv1.ReplicationServiceClient) error {
			forwarded = true
			answer, err := client.Propose(ctx, &directoryv1.ProposeRequest{RequestId: requestID[:], Command: command})
			result = Result{Index: answer.GetIndex(), Value: answer.GetResult(), Repeat: answer.GetRepeat()}
			return err
		},
	})
	if err != nil {
		return Result{}, fmt.Errorf("propose: %w", err)
	}
	if forwarded {
		ctx, cancel := context.WithTimeout(ctx, catchUp)
		defer cancel()
		// The write is done whether or not this relay has it already.
		_ = n.machine.waitApplied(ctx, n.stopping, result.Index)
	}
	return result, nil
}

func (n *Node) checkWrite(requestID, command []byte) error {
	switch {
	case len(requestID) != 16:
		return refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "request id has %d bytes; it must have 16", len(requestID))
	case len(command) == 0:
		return refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "the command is empty")
	case len(command) > MaxCommand:
		return refuse(exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE,
			"the command has %d bytes; split it into commands of at most %d", len(command), MaxCommand)
	}
	if n.cfg.Check == nil {
		return nil
	}
	if err := n.cfg.Check(command); err != nil {
		return refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "no relay would understand the command: %v", err)
	}
	return nil
}

func (n *Node) proposeHere(ctx context.Context, requestID [16]byte, command []byte) (Result, error) {
	return n.appendEntry(ctx, &directoryv1.LogEntry{
		Version: entryVersion, RequestId: requestID[:], At: timestamppb.New(n.cfg.Clock()), Command: command,
	})
}

// appendEntry takes one entry through the log; only the leader can.
func (n *Node) appendEntry(ctx context.Context, entry *directoryv1.LogEntry) (Result, error) {
	data, err := proto.Marshal(entry)
	if err != nil {
		return Result{}, fmt.Errorf("encode an entry: %w", err)
	}
	future, err := await(ctx, n, func(r *raft.Raft, wait time.Duration) raft.ApplyFuture { return r.Apply(data, wait) })
	if err != nil {
		return Result{}, err
	}
	o := future.Response().(outcome)
	if o.err != nil {
		return Result{}, errors.Join(errNotRunning, o.err)
	}
	return o.Result, nil
}

// await hands a request to Raft and waits for its answer or for ctx. Raft's
// futures can only be waited for to the end, so somebody does, and Run waits
// for them.
func await[F raft.Future](ctx context.Context, n *Node, start func(*raft.Raft, time.Duration) F) (future F, _ error) {
	if err := ctx.Err(); err != nil {
		return future, err
	}
	l, leave, err := n.enter()
	if err != nil {
		return future, err
	}
	wait := n.cfg.ProposeTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = max(time.Until(deadline), time.Millisecond) // 0 would mean for ever
	}
	type answer struct {
		future F
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		defer leave()
		f := start(l.raft, wait)
		err := f.Error()
		answered <- answer{f, err}
	}()
	select {
	case a := <-answered:
		return a.future, a.err
	case <-ctx.Done():
		return future, ctx.Err()
	}
}

// leaderCall is one request in its two forms. Either may run several times.
type leaderCall struct {
	here  func(context.Context) error
	there func(context.Context, directoryv1.ReplicationServiceClient) error
}

// onLeader asks the leader, whoever it is, again and again until it gives a
// definite answer, ctx ends or this node stops.
func (n *Node) onLeader(ctx context.Context, call leaderCall) error {
	var handed bool // a leader had the request and may have done it
	var last error
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		select {
		case <-n.stopping:
			if handed {
				return &noLeader{handed: true, cause: errNotRunning}
			}
			return errNotRunning
		default:
		}
		if err := ctx.Err(); err != nil {
			if last != nil && !errors.Is(last, err) {
				err = fmt.Errorf("%w (last answer: %v)", err, last)
			}
			return &noLeader{handed: handed, cause: err}
		}
		changed := n.leaderChanged.listen()
		switch id, address := n.leader(); id {
		case "":
		case n.cfg.ID:
			err := call.here(ctx)
			if err == nil {
				return nil
			}
			if ctx.Err() == nil && !mayRetryHere(err) {
				return err
			}
			handed = handed || mayHaveHappened(err) || ctx.Err() != nil
			last = err
		default:
			err, retry := n.ask(ctx, id, address, call.there)
			if err == nil {
				return nil
			}
			if !retry {
				return err
			}
			handed, last = true, err
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-changed:
		case <-timer.C:
		case <-n.stopping:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// leader returns who leads as far as this relay knows, or nothing.
func (n *Node) leader() (id, address string) {
	l := n.running()
	if l == nil {
		return "", ""
	}
	a, i := l.raft.LeaderWithID()
	return string(i), string(a)
}

// ask forwards to the leader, for as long as it is believed to be the leader:
// one that was cut off would let us wait to the end.
func (n *Node) ask(ctx context.Context, id, address string, there func(context.Context, directoryv1.ReplicationServiceClient) error) (_ error, retry bool) {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer cancel()
		for {
			changed := n.leaderChanged.listen()
			if now, _ := n.leader(); now != id {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() {
		cancel()
		<-watched
	}()
	conn, err := n.cfg.DialPeer(ctx, id, address)
	if err != nil {
		return fmt.Errorf("dial the leader %s at %s: %w", id, address, err), true
	}
	err = there(ctx, directoryv1.NewReplicationServiceClient(conn))
	if err == nil {
		return nil, false
	}
	err, retry = fromLeader(err)
	if retry {
		err = fmt.Errorf("ask the leader %s at %s: %w", id, address, err)
	}
	return err, retry
}

// ReadBarrier returns when the local state includes every write that was
// finished before the call.
func (n *Node) ReadBarrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ProposeTimeout)
	defer cancel()
	var index uint64
	err := n.onLeader(ctx, leaderCall{
		here: func(ctx context.Context) (err error) {
			index, err = n.readIndex(ctx)
			return err
		},
		there: func(ctx context.Context, client directoryv1.ReplicationServiceClient) error {
			answer, err := client.ReadIndex(ctx, &directoryv1.ReadIndexRequest{})
			index = answer.GetIndex()
			return err
		},
	})
	if err == nil {
		err = n.machine.waitApplied(ctx, n.stopping, index)
	}
	if err != nil {
		return fmt.Errorf("read barrier: %w", err)
	}
	return nil
}

// readTurns lets all barriers that wait at the same time share one entry.
type readTurns struct {
	mu   sync.Mutex
	next *readTurn  // not begun; may be joined
	turn sync.Mutex // held while one runs
}

type readTurn struct {
	done  chan struct{}
	index uint64
	err   error
}

// readIndex returns an index that includes every write finished before. It is
// that of a barrier entry in the log: Raft's VerifyLeader would be cheaper, but
// in 1.8.0 it counts the answers of non-voters (verifyFuture.vote), of which
// this mesh has many, so that a leader cut off from the other voters could
// still call itself the leader; and it says nothing of entries that a new
// leader has not committed yet.
func (n *Node) readIndex(ctx context.Context) (uint64, error) {
	n.reads.mu.Lock()
	t := n.reads.next
	if t == nil {
		_, leave, err := n.enter()
		if err != nil {
			n.reads.mu.Unlock()
			return 0, err
		}
		t = &readTurn{done: make(chan struct{})}
		n.reads.next = t
		go func() {
			defer leave()
			n.takeTurn(t)
		}()
	}
	n.reads.mu.Unlock()
	select {
	case <-t.done:
		return t.index, t.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (n *Node) takeTurn(t *readTurn) {
	n.reads.turn.Lock()
	defer n.reads.turn.Unlock()
	n.reads.mu.Lock()
	n.reads.next = nil // who comes now may have seen a write that t does not cover
	n.reads.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.ProposeTimeout)
	defer cancel()
	result, err := n.appendEntry(ctx, &directoryv1.LogEntry{Version: entryVersion, At: timestamppb.New(n.cfg.Clock())})
	t.index, t.err = result.Index, err
	close(t.done)
}
