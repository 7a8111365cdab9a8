package spool

import (
	"context"
	"errors"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// Pending is a recipient, of an envelope that this relay is ingress of, whose
// outcome is not known.
type Pending struct {
	ID     envelope.ID
	Agency routing.AgencyCode
	Place  envelope.Place
	Home   routing.RelayID
}

// Recount is what Spool.Recount found.
type Recount struct {
	// Counted is the tally recounted from the records; Kept are the running
	// counters of the same instant.
	Counted, Kept Tally
	// Findings are what is not as it must be.
	Findings []Finding
}

// Recount counts again what became of every recipient.
func (s *Spool) Recount(ctx context.Context, since time.Time, each func(Pending) error) (*Recount, error) {
	return nil, errors.ErrUnsupported
}
