package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/truclienthong/truc/cmd/internal/operator"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// healthWithin is how long a relay gets to say how it is.
const healthWithin = 5 * time.Second

const healthFields = `health (null where it does not answer): serving, reason (why not), version,
started_at, in_custody (envelopes), store_size, disk_free, disk_reserve (bytes; below
the reserve nothing new is taken), damaged, repaired, quarantined (places of the store
since the start; envelopes now), dead_letters, sole_copies (envelopes that no other
relay is known to have).`

// relayShown is the JSON of `relayctl relay show`.
type relayShown struct {
	relayRow
	Health *relayHealth `json:"health"`
}

type relayHealth struct {
	Serving     bool   `json:"serving"`
	Reason      string `json:"reason"`
	Version     string `json:"version"`
	StartedAt   string `json:"started_at"`
	InCustody   uint64 `json:"in_custody"`
	StoreSize   uint64 `json:"store_size"`
	DiskFree    uint64 `json:"disk_free"`
	DiskReserve uint64 `json:"disk_reserve"`
	Damaged     uint64 `json:"damaged"`
	Repaired    uint64 `json:"repaired"`
	Quarantined uint64 `json:"quarantined"`
	DeadLetters uint64 `json:"dead_letters"`
	SoleCopies  uint64 `json:"sole_copies"`
}

func healthOf(ctx context.Context, c *operator.Conn, relay *directoryv1.Relay) (*relayHealth, error) {
	there, err := c.To(relay)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	ctx, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	h, err := there.Custody.Health(ctx, &adminv1.HealthRequest{})
	if err != nil {
		return nil, err
	}
	return &relayHealth{
		Serving: h.GetServing(), Reason: h.GetReason(), Version: h.GetVersion(), StartedAt: stamp(h.GetStartedAt()),
		InCustody: h.GetInCustody(), StoreSize: h.GetStoreSize(), DiskFree: h.GetDiskFree(), DiskReserve: h.GetDiskReserve(),
		Damaged: h.GetDamaged(), Repaired: h.GetRepaired(), Quarantined: h.GetQuarantined(),
		DeadLetters: h.GetDeadLetters(), SoleCopies: h.GetSoleCopies(),
	}, nil
}

func (r relayShown) text(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "id\t%s\nregion\t%s\naddress\t%s\nstate\t%s\nhomes\t%d\nreachable\t%s\nregistered\t%s\n",
		r.ID, r.Region, r.Address, r.State, r.Homes, yes(r.Reachable), r.Registered); err != nil {
		return err
	}
	h := r.Health
	if h == nil {
		_, err := fmt.Fprintln(w, "answers\tno")
		return err
	}
	serving := yes(h.Serving)
	if h.Reason != "" {
		serving += ": " + h.Reason
	}
	_, err := fmt.Fprintf(w, "serving\t%s\nversion\t%s\nrunning since\t%s\nin custody\t%d envelopes, %d of them nowhere else\ndead letters\t%d\n"+
		"store\t%d bytes\ndisk\t%d bytes free, %d kept in reserve\ndamage\t%d found, %d mended, %d envelopes in quarantine\n",
		serving, orDash(h.Version), h.StartedAt, h.InCustody, h.SoleCopies, h.DeadLetters,
		h.StoreSize, h.DiskFree, h.DiskReserve, h.Damaged, h.Repaired, h.Quarantined)
	return err
}
