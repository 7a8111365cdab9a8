package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/raft"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// restoreTimeout bounds a restore: a copy of some tens of megabytes over a
// slow link, twice.
const restoreTimeout = 10 * time.Minute

// backupPiece is the size of the pieces in which a backup is handed on.
const backupPiece = 256 << 10

// Snapshot writes a snapshot on this relay now, and cuts the log behind it.
// Where nothing was applied since the start it returns the newest one.
func (n *Node) Snapshot(ctx context.Context) (index, size uint64, err error) {
	l := n.running()
	if l == nil {
		return 0, 0, errNotRunning
	}
	_, err = await(ctx, n, func(r *raft.Raft, _ time.Duration) raft.SnapshotFuture { return r.Snapshot() })
	if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return 0, 0, fmt.Errorf("snapshot: %w", err)
	}
	list, err := l.snapshots.List()
	if err != nil {
		return 0, 0, fmt.Errorf("list snapshots: %w", err)
	}
	if len(list) == 0 {
		return 0, 0, refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE, "nothing has been written yet, so there is nothing to copy")
	}
	return list[0].Index, uint64(list[0].Size), nil
}

// Backup writes the state as this relay has it, consistent and with check
// sums. It needs no leader; a ReadBarrier before it makes it current.
func (n *Node) Backup(ctx context.Context, w io.Writer) error {
	if n.running() == nil {
		return fmt.Errorf("backup: %w", errNotRunning)
	}
	v, err := n.machine.view()
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := v.writeTo(contextWriter{ctx, w}); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

// Restore puts a backup in place of the state on every member, request ids
// included, and returns an index: who has applied it has the restored state,
// and this relay has. The membership stays as it is. A backup that is damaged,
// or that Config.Verify does not accept, is refused before anything changes.
func (n *Node) Restore(ctx context.Context, r io.Reader) (index uint64, err error) {
	if n.running() == nil {
		return 0, fmt.Errorf("restore: %w", errNotRunning)
	}
	b, err := n.receive(r)
	if err != nil {
		return 0, fmt.Errorf("restore: %w", err)
	}
	defer b.discard()
	// Whether there is a leader at all is found out in the usual time.
	if err := n.ReadBarrier(ctx); err != nil {
		return 0, fmt.Errorf("restore: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	err = n.onLeader(ctx, leaderCall{
		here: func(ctx context.Context) (err error) {
			index, err = n.restoreHere(ctx, b)
			return err
		},
		there: func(ctx context.Context, client directoryv1.ReplicationServiceClient) (err error) {
			index, err = b.send(ctx, client)
			return err
		},
	})
	if err == nil {
		err = n.machine.waitApplied(ctx, n.stopping, index)
	}
	if err != nil {
		return 0, fmt.Errorf("restore: %w", err)
	}
	return index, nil
}

// received is a whole and verified backup in a file of its own.
type received struct {
	file    *os.File
	size    int64
	applied uint64
}

// receive keeps a backup on disk and verifies it.
func (n *Node) receive(r io.Reader) (_ *received, err error) {
	file, err := os.CreateTemp(n.cfg.Dir, "restore-*")
	if err != nil {
		return nil, err
	}
	b := &received{file: file}
	defer func() {
		if err != nil {
			b.discard()
		}
	}()
	if b.size, err = io.Copy(file, r); err != nil {
		return nil, fmt.Errorf("receive the backup: %w", err)
	}
	verify := n.cfg.Verify
	if verify == nil {
		verify = func(io.Reader) error { return nil }
	}
	b.applied, _, err = readFrames(io.NewSectionReader(file, 0, b.size), verify)
	if err != nil {
		return nil, refuse(exchangev1.ErrorReason_ERROR_REASON_DAMAGED, "the backup cannot be used: %v; nothing was changed", err)
	}
	return b, nil
}

func (b *received) discard() {
	b.file.Close()
	os.Remove(b.file.Name())
}

// send hands the backup to the leader.
func (b *received) send(ctx context.Context, client directoryv1.ReplicationServiceClient) (uint64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Restore(ctx)
	if err != nil {
		return 0, err
	}
	piece := make([]byte, backupPiece)
	r := io.NewSectionReader(b.file, 0, b.size)
	for {
		k, err := r.Read(piece)
		if k > 0 {
			// On an error the leader has answered; CloseAndRecv says what.
			if stream.Send(&directoryv1.RestoreRequest{Data: piece[:k]}) != nil {
				break
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, refuse(exchangev1.ErrorReason_ERROR_REASON_DAMAGED, "read the backup again: %v", err)
		}
	}
	answer, err := stream.CloseAndRecv()
	return answer.GetIndex(), err
}

// restoreHere replaces the state on the leader.
func (n *Node) restoreHere(ctx context.Context, b *received) (uint64, error) {
	select {
	case n.membership <- struct{}{}:
		defer func() { <-n.membership }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	// Raft replaces the leader's own state before it asks anyone, so be certain
	// to be the leader.
	if _, err := n.readIndex(ctx); err != nil {
		return 0, err
	}
	n.log.Warn("the directory is replaced by a backup", "bytes", b.size, "index", b.applied)
	_, err := await(ctx, n, func(r *raft.Raft, wait time.Duration) raft.Future {
		// Raft goes on from an index above both its own and this one, which the
		// machine relies on.
		meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: b.applied, Size: b.size}
		return done{r.Restore(meta, io.NewSectionReader(b.file, 0, b.size), wait)}
	})
	if err != nil {
		return 0, err
	}
	return n.readIndex(ctx)
}

// done is a future that has come.
type done struct{ err error }

func (d done) Error() error { return d.err }
