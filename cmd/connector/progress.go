package main

import (
	"fmt"
	"io"
	"time"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/relay/agency"
)

// worthShowing is from how many bytes on people wonder how far it is.
const worthShowing = 4 << 20

// progress draws one line on a terminal.
type progress struct {
	w     io.Writer
	what  string
	total uint64
	last  time.Time
	drawn bool
}

// newProgress draws nothing where w is no terminal or little is to move. What
// says what is done, until bytes are sent.
func newProgress(w io.Writer, what string, total uint64) *progress {
	if total < worthShowing || !cli.Terminal(w) {
		w = nil
	}
	return &progress{w: w, what: what, total: total}
}

func (p *progress) show(at agency.Progress) {
	if p.w == nil || time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last, p.drawn = time.Now(), true
	what := p.what
	if at.Sending {
		what = "sending"
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s %d%% of %d MB", what, min(at.Done*100/max(p.total, 1), 100), p.total/1_000_000)
}

// end wipes the line.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
