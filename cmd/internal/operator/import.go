package operator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

const (
	// importBatch keeps one command well below the largest that Raft takes.
	importBatch = 512 << 10
	// RelaysWithin is how long an import waits for the relays it names.
	RelaysWithin = 30 * time.Second
)

// Imported is what came of an import.
type Imported struct {
	// Read is how many agencies there were, Changed how many were new or other
	// than before, Version that of the directory after it.
	Read    int    `json:"read"`
	Changed uint32 `json:"changed"`
	Version uint64 `json:"version"`
}

// Import adds or changes all agencies or, on an error, none: they are staged in
// batches and take effect together with the last one. Progress, if not nil, is
// told how many are staged.
func (c *Conn) Import(ctx context.Context, agencies []*directoryv1.Agency, progress func(staged int)) (Imported, error) {
	staging := uuid.New().String()
	result := Imported{Read: len(agencies)}
	for start := 0; ; {
		end, size := start, 0
		for end < len(agencies) && size < importBatch {
			size += proto.Size(agencies[end]) + 4
			end++
		}
		last := end == len(agencies)
		r, err := c.Change(ctx, &directoryv1.Command{Change: &directoryv1.Command_ImportAgencies{
			ImportAgencies: &directoryv1.ImportAgencies{Agencies: agencies[start:end], Staging: staging, Last: last}}})
		if err != nil {
			return result, fmt.Errorf("nothing was imported: %w", err)
		}
		if progress != nil {
			progress(end)
		}
		if last {
			result.Changed, result.Version = r.GetAgencies(), r.GetVersion()
			return result, nil
		}
		start = end
	}
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
			return fmt.Errorf("nothing was imported: no relay is registered as %s; start it, or mend the columns home and standby", names)
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
