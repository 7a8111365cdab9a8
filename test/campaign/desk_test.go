package campaign

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/history"
	"github.com/truclienthong/truc/test/mesh"
)

// desk is where an agency takes what comes, and hands over what it writes.
type desk struct {
	c      *campaign
	code   string
	folder string
	client *agency.Client
	outbox *agency.Outbox // nil: it hands over by its client alone

	mu      sync.Mutex // owns what follows
	booked  map[envelope.ID]bool
	entered chan struct{} // closed and made anew at each entry
}

// open opens the desk of an agency. What it received and wrote down is gone from
// its folder, so that only the mesh keeps a repeat away, except where a lost disk
// may make the mesh forget that it was confirmed.
func (c *campaign) open(code string, withOutbox bool) *desk {
	d := &desk{c: c, code: code, folder: filepath.Join(c.m.Layout.Dir, "folders", code), booked: map[envelope.ID]bool{}, entered: make(chan struct{})}
	if err := os.MkdirAll(d.folder, 0o755); err != nil {
		c.t.Fatal(err)
	}
	d.client = d.newClient(nil)
	if withOutbox {
		var err error
		if d.outbox, err = agency.OpenOutbox(agency.OutboxConfig{Dir: d.outboxDir(), Client: d.client}); err != nil {
			c.t.Fatal(err)
		}
		c.running.Go(func() { _ = d.outbox.Run(c.ctx) })
	}
	c.desks[code] = d
	return d
}

func (d *desk) outboxDir() string { return filepath.Join(d.c.m.Layout.Dir, "outboxes", d.code) }

// newClient is what a process of the agency that begins has.
func (d *desk) newClient(adjust func(*agency.Config)) *agency.Client {
	config, err := agency.LoadProfile(d.c.m.Layout.Profile(d.code))
	if err != nil {
		d.c.t.Fatal(err)
	}
	config.Logger = slog.New(slog.DiscardHandler)
	if adjust != nil {
		adjust(&config)
	}
	client, err := agency.New(config)
	if err != nil {
		d.c.t.Fatal(err)
	}
	return client
}

// only is a client that begins with one relay, and gives up soon.
func (d *desk) only(relay string, patience time.Duration) *agency.Client {
	return d.newClient(func(c *agency.Config) { c.Relays, c.Patience = []string{d.c.m.Address(relay)}, patience })
}

// receive takes what comes until the campaign ends. An unsteady recipient ends
// in the middle now and then, forgets to confirm, and is away for a while.
func (d *desk) receive(r *rand.Rand, unsteady bool) {
	for d.c.ctx.Err() == nil {
		ctx, cancel := d.session(r, unsteady)
		client := d.newClient(nil)
		for arrival, err := range client.Receive(ctx, agency.ReceiveOptions{}) {
			if err != nil {
				if ctx.Err() == nil {
					d.c.wrong("%s receives: %v", d.code, err)
				}
				break
			}
			d.take(ctx, arrival, unsteady && d.c.wild.Err() == nil && r.IntN(20) == 0)
		}
		crashed := ctx.Err() != nil
		cancel()
		_ = client.Close()
		if crashed && d.c.ctx.Err() == nil && d.c.wild.Err() == nil && r.IntN(3) == 0 {
			d.away(between(r, 0, 4*time.Second))
		}
	}
}

// session is how long a recipient goes on.
func (d *desk) session(r *rand.Rand, unsteady bool) (context.Context, context.CancelFunc) {
	if !unsteady || d.c.wild.Err() != nil {
		return context.WithCancel(d.c.ctx)
	}
	return context.WithTimeout(d.c.wild, between(r, 300*time.Millisecond, 8*time.Second))
}

// away waits, but not longer than until recipients behave.
func (d *desk) away(pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.c.wild.Done():
	}
}

// take saves, confirms and enters one arrival. What fails comes again.
func (d *desk) take(ctx context.Context, arrival *agency.Arrival, forget bool) {
	_, err := arrival.Save(ctx, d.folder)
	if err == nil && !forget {
		if err = arrival.Confirm(ctx); err == nil {
			d.enter(arrival.ID)
			return
		}
	}
	arrival.Release()
	if err != nil && ctx.Err() == nil {
		d.c.note("an arrival could not be saved or confirmed at once")
	}
}

// receiveByProcess does what receive does with the connector, which is killed
// again and again.
func (d *desk) receiveByProcess(r *rand.Rand) {
	for d.c.ctx.Err() == nil {
		cmd := exec.CommandContext(d.c.ctx, mesh.Binary(d.c.t, "connector"), "receive", "--out", d.folder, "--watch", "--no-outbox",
			"-o", "json", "--profile", d.c.m.Layout.Profile(d.code))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			d.c.wrong("connector: %v", err)
			return
		}
		var timer *time.Timer
		if d.c.wild.Err() == nil {
			timer = time.AfterFunc(between(r, 500*time.Millisecond, 10*time.Second), func() {
				if cmd.Process.Kill() == nil {
					d.c.note("recipient's connector killed")
				}
			})
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var line struct {
				EnvelopeID string `json:"envelope_id"`
			}
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				continue // cut short by the kill
			}
			if id, err := envelope.ParseID(line.EnvelopeID); err == nil {
				d.enter(id)
			}
		}
		_ = cmd.Wait()
		if timer != nil {
			timer.Stop()
		}
	}
}

// described is what envelope.json says, as far as it matters here.
type described struct {
	Files []struct {
		Name, File string
	}
	Envelope struct {
		Header struct {
			DocumentID string `json:"document_id"`
			Sender     struct{ Code string }
		}
	}
}

// enter writes an envelope that is in the folder into the history, and takes it
// away from there.
func (d *desk) enter(id envelope.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.c.disksLost && d.booked[id] {
		return
	}
	dir := filepath.Join(d.folder, id.String())
	said, sum, err := read(dir)
	if errors.Is(err, fs.ErrNotExist) && d.booked[id] {
		return // confirmed again, and never given out again
	}
	if err != nil {
		d.c.wrong("%s took envelope %s: %v", d.code, id, err)
		return
	}
	d.c.history.Took(d.code, id, said.Envelope.Header.Sender.Code, said.Envelope.Header.DocumentID, sum, time.Now())
	d.booked[id] = true
	close(d.entered)
	d.entered = make(chan struct{})
	if d.c.disksLost {
		for _, f := range said.Files {
			err = errors.Join(err, os.Truncate(filepath.Join(dir, f.File), 0))
		}
	} else {
		err = os.RemoveAll(dir)
	}
	if err != nil {
		d.c.wrong("%s clears its folder: %v", d.code, err)
	}
}

// read reads a folder as a program of the agency does.
func read(dir string) (said described, sum [32]byte, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, "envelope.json"))
	if err != nil {
		return said, sum, err
	}
	if err := json.Unmarshal(raw, &said); err != nil {
		return said, sum, fmt.Errorf("envelope.json: %w", err)
	}
	files := map[string][]byte{}
	for _, f := range said.Files {
		if files[f.Name], err = os.ReadFile(filepath.Join(dir, f.File)); err != nil {
			return said, sum, err
		}
	}
	return said, history.SumOf(files), nil
}

// saved says whether an envelope is in the history or in the folder.
func (d *desk) saved(id envelope.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := os.Stat(filepath.Join(d.folder, id.String()))
	return err == nil || d.booked[id]
}

// enterRest enters what is in the folder and was not confirmed as far as the
// recipient knows. Nothing may come any more.
func (d *desk) enterRest() {
	entries, err := os.ReadDir(d.folder)
	if err != nil {
		d.c.wrong("%s: %v", d.code, err)
	}
	for _, e := range entries {
		if id, err := envelope.ParseID(e.Name()); err == nil {
			d.enter(id)
		}
	}
}

// await waits until an envelope is entered.
func (d *desk) await(ctx context.Context, id envelope.ID) error {
	for {
		d.mu.Lock()
		entered, there := d.entered, d.booked[id]
		d.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-entered:
		case <-ctx.Done():
			return fmt.Errorf("%s does not have envelope %s", d.code, id)
		}
	}
}
