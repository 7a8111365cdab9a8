package ingress

import (
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// messages reads a submit for its handler, on a goroutine of its own: a sender
// that says nothing can only be left by ending the call, and a handler that
// reads cannot end. The goroutine reads nothing that was not asked for, and ends
// with stop, or, where it is reading, with the call.
type messages struct {
	idle time.Duration
	want chan struct{}
	got  chan received
	stop func()
}

type received struct {
	message *exchangev1.SubmitRequest
	err     error
}

func readMessages(stream submitStream, idle time.Duration) *messages {
	m := &messages{idle: idle, want: make(chan struct{}, 1), got: make(chan received, 1)}
	m.stop = sync.OnceFunc(func() { close(m.want) })
	go func() {
		for range m.want {
			message, err := stream.Recv()
			m.got <- received{message, err}
		}
	}()
	return m
}

// next waits for one message; it is not called again after an error.
func (m *messages) next() (*exchangev1.SubmitRequest, error) {
	m.want <- struct{}{}
	timer := time.NewTimer(m.idle)
	defer timer.Stop()
	select {
	case r := <-m.got:
		return r.message, r.err
	case <-timer.C:
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT,
			"nothing came for %s before the commit; nothing was accepted, call again to resume", m.idle)
	}
}
