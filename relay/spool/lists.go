package spool

import (
	"errors"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// Sole lists at most max envelopes behind a sequence that were accepted here,
// are not settled, and that no other relay is known to have.
func (s *Spool) Sole(after uint64, max int) ([]envelope.SoleEntry, error) {
	return nil, errors.ErrUnsupported
}

// Holders lists the relays that are known to have envelopes of which this relay
// is the ingress and that are not settled.
func (s *Spool) Holders() ([]routing.RelayID, error) { return nil, errors.ErrUnsupported }

// Away lists at most max such envelopes of one holder, behind one of them.
func (s *Spool) Away(holder routing.RelayID, after envelope.ID, max int) ([]envelope.ID, error) {
	return nil, errors.ErrUnsupported
}

// Origins lists the ingress relays of envelopes that are in custody or kept here.
func (s *Spool) Origins() ([]routing.RelayID, error) { return nil, errors.ErrUnsupported }

// Origin lists at most max such envelopes of one ingress, behind one of them.
func (s *Spool) Origin(ingress routing.RelayID, after envelope.ID, max int) ([]envelope.ID, error) {
	return nil, errors.ErrUnsupported
}

// DeadLetters lists envelopes with deliveries that were given up and with their content.
func (s *Spool) DeadLetters(after envelope.Due, max int) ([]envelope.Due, error) {
	return nil, errors.ErrUnsupported
}

// Usage returns how many envelopes of a sender, accepted here, are not settled.
func (s *Spool) Usage(sender routing.AgencyCode) (envelopes, bytes int64, err error) {
	return 0, 0, errors.ErrUnsupported
}

// Waiting returns how many envelopes wait in an inbox.
func (s *Spool) Waiting(agency routing.AgencyCode) (int64, error) { return 0, errors.ErrUnsupported }
