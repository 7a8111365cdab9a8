package operator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

const (
	// importBatch keeps one command well below the largest that Raft takes.
	importBatch = 512 << 10
	// dropWithin is how long is spent on dropping what was staged.
	dropWithin = 10 * time.Second
	// abandonedAfter is the age from which an import that is still staged is
	// taken for one whose tool has ended: an import takes seconds.
	abandonedAfter = 15 * time.Minute
	// RelaysWithin is how long an import waits for the relays it names.
	RelaysWithin = 30 * time.Second
)

// importPatience is with one batch: a mesh that lost its leader has another by
// then, and the last batch takes as long as all agencies do.
var importPatience = patience{tries: 100, within: time.Minute, each: 10 * time.Second}

// Import is a list of agencies to be added or changed, all of them or none.
type Import struct {
	// Agencies have superiors before those below.
	Agencies []*directoryv1.Agency
	// Place says where an agency was read, for faults; nil: by its number.
	Place func(code string) string
	// Progress, if not nil, is told how many are staged, and at the end, with
	// all of them, that they take effect now.
	Progress func(staged int)
}

// Imported is what came of an import.
type Imported struct {
	// Read is how many agencies there were, Changed how many were new or other
	// than before, Version that of the directory after it.
	Read    int    `json:"read"`
	Changed uint32 `json:"changed"`
	Version uint64 `json:"version"`
}

// Import adds or changes all agencies or none: they are staged in batches and
// take effect together with the last one. A refusal names every row at fault.
// Where ctx ends before the last batch, what was staged is dropped; from there
// on the outcome is waited for. An import that was cut off may be repeated as a
// whole: what has taken effect is not changed again.
func (c *Conn) Import(ctx context.Context, list Import) (Imported, error) {
	c.dropAbandoned(ctx)
	staging, err := uuid.NewV7() // its time tells the age
	if err != nil {
		return Imported{}, err
	}
	result := Imported{Read: len(list.Agencies)}
	for start := 0; ; {
		end, size := start, 0
		for end < len(list.Agencies) && size < importBatch {
			size += proto.Size(list.Agencies[end]) + 4
			end++
		}
		batch := &directoryv1.ImportAgencies{
			Agencies: list.Agencies[start:end], Staging: staging.String(), Staged: uint32(start), Last: end == len(list.Agencies),
		}
		if list.Progress != nil {
			list.Progress(end)
		}
		if batch.GetLast() {
			ctx = context.WithoutCancel(ctx)
		}
		r, err := c.change(ctx, &directoryv1.Command{Change: &directoryv1.Command_ImportAgencies{ImportAgencies: batch}}, importPatience)
		switch {
		case err == nil && r.GetReason() != 0:
			if !batch.GetLast() {
				c.dropOwn(ctx, staging.String())
			}
			return result, fmt.Errorf("nothing was imported: %w", rowsRefused(r, list.Place))
		case err != nil && batch.GetLast():
			return result, fmt.Errorf("it is not known whether the import took effect: import the same again, which changes nothing that has: %w", err)
		case err != nil:
			c.dropOwn(ctx, staging.String())
			return result, fmt.Errorf("nothing was imported: %w", err)
		case batch.GetLast():
			result.Changed, result.Version = r.GetAgencies(), r.GetVersion()
			return result, nil
		}
		start = end
	}
}

// rowsRefused is the refusal of an import, with the place of each row at fault.
func rowsRefused(r *directoryv1.CommandResult, place func(code string) string) error {
	no := refusalOf(r)
	for _, f := range r.GetFaults() {
		at := ""
		if place != nil {
			at = place(f.GetCode())
		}
		if at == "" {
			at = fmt.Sprintf("agencies[%d]", f.GetRow())
		}
		no.Problems = append(no.Problems, envelope.Problem{Field: at, Reason: f.GetReason(), Description: f.GetCode() + ": " + f.GetMessage()})
	}
	return no
}

// dropAbandoned drops imports that were begun long ago and never took effect,
// for instance because the tool was killed: only so many may be open. That it
// cannot is no reason not to try an import.
func (c *Conn) dropAbandoned(ctx context.Context) {
	open, err := c.Directory.ListImports(ctx, &adminv1.ListImportsRequest{})
	if err != nil {
		return // a relay of the release before does not know it either
	}
	for _, o := range open.GetImports() {
		id, err := uuid.Parse(o.GetStaging())
		if err != nil || id.Version() != 7 {
			c.logger.Warn("an import is open; unless it is under way, drop it: relayctl agency import --drop " + o.GetStaging())
			continue
		}
		begun := time.Unix(id.Time().UnixTime())
		if time.Since(begun) < abandonedAfter {
			c.logger.Warn("another import is under way, or was cut off", "name", o.GetStaging(), "begun", begun.Format(time.RFC3339), "staged", o.GetAgencies())
			continue
		}
		if _, err := c.DropImport(ctx, o.GetStaging()); err != nil && !NotFound(err) {
			c.logger.Warn("an import that was cut off is still there", "name", o.GetStaging(), "error", err)
			continue
		}
		c.logger.Warn("dropped an import that was cut off", "name", o.GetStaging(), "begun", begun.Format(time.RFC3339), "staged", o.GetAgencies())
	}
}

// dropOwn drops what an import that failed or was interrupted has staged.
func (c *Conn) dropOwn(ctx context.Context, staging string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropWithin)
	defer cancel()
	if _, err := c.DropImport(ctx, staging); err != nil && !NotFound(err) {
		c.logger.Warn("what was staged is dropped by an import that begins in a quarter of an hour or later", "name", staging, "error", err)
	}
}

// ErrOlderRelays says that not every relay in service is known to understand a
// command: those that do not would stop at it.
var ErrOlderRelays = errors.New("not every relay is known to understand that, so it is not asked for while relays are away or of an older release")

// DropImport drops a staged import; no part of it takes effect later.
func (c *Conn) DropImport(ctx context.Context, staging string) (*directoryv1.CommandResult, error) {
	mesh, err := c.Mesh(ctx, "")
	if err != nil {
		return nil, err
	}
	defer mesh.Close()
	failures := append(mesh.Silent, mesh.Each(ctx, func(ctx context.Context, m Member) error {
		_, err := m.Conn.Directory.ListImports(ctx, &adminv1.ListImportsRequest{})
		return err
	})...)
	if len(failures) > 0 {
		return nil, fmt.Errorf("relay %s: %w", failures[0].Relay, errors.Join(ErrOlderRelays, failures[0].Err))
	}
	return c.Change(ctx, &directoryv1.Command{Change: &directoryv1.Command_DiscardImport{
		DiscardImport: &directoryv1.DiscardImport{Staging: staging}}})
}

// AwaitRelays waits until the relays that the agencies name as homes have
// registered, at least one in any case: right after the first start of a mesh
// that takes a moment. Waiting, if not nil, is told once which are missing.
func (c *Conn) AwaitRelays(ctx context.Context, agencies []*directoryv1.Agency, waiting func(missing string)) error {
	missing := map[string]bool{}
	for _, a := range agencies {
		for _, id := range []string{a.GetHomeRelayId(), a.GetStandbyRelayId()} {
			if id != "" {
				missing[id] = true
			}
		}
	}
	deadline := time.Now().Add(RelaysWithin)
	for first := true; ; first = false {
		r, err := c.Directory.ListRelays(ctx, &adminv1.ListRelaysRequest{})
		if err != nil {
			return err
		}
		for _, v := range r.GetRelays() {
			delete(missing, v.GetRelay().GetId())
		}
		if len(missing) == 0 && len(r.GetRelays()) > 0 {
			return nil
		}
		names := strings.Join(slices.Sorted(maps.Keys(missing)), ", ")
		if names == "" {
			names = "any"
		}
		if time.Now().After(deadline) {
			return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND,
				"nothing was imported: no relay is registered as %s; start it, or mend the columns home and standby", names)
		}
		if first && waiting != nil {
			waiting(names)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
