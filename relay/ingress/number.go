package ingress

import (
	"context"
	"fmt"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

// numberedBefore warns the sender of a document that was just accepted, if it gave
// number and notation in the same year to another one before (ND30 Art. 15, Annex VI
// III.1(h)). The document is in custody by then, so whatever goes wrong here costs
// the warning alone; and of two that are accepted at once one finds the other. Only
// this relay is asked: what was handed in elsewhere is not compared.
func (s *Service) numberedBefore(ctx context.Context, sub *submission, record *envelope.Record) []*exchangev1.Warning {
	earlier, err := s.rival(record)
	if err != nil {
		sub.log.Warn("number of the document not compared", "error", err)
	}
	if earlier == nil {
		return nil
	}
	s.metrics.numbers.Add(ctx, 1)
	return []*exchangev1.Warning{{
		Field: "header.document.code.number",
		Description: fmt.Sprintf("was given by %s, with this notation and in this year, to the document in envelope %s too, accepted %s: "+
			"a number is given once a year (Decree 30/2020/NĐ-CP Art. 15); if these are two documents, replace one of them under a number of its own",
			record.Sender, earlier.ID, earlier.AcceptedAt.UTC().Format(time.RFC3339)),
	}}
}

// rival finds another document that was accepted here under the number of this one;
// nil: there is none.
func (s *Service) rival(record *envelope.Record) (*envelope.Record, error) {
	number, ok := envelope.NumberOf(&record.Custody)
	if !ok {
		return nil, nil
	}
	id, found, err := s.config.Spool.ByNumber(number)
	if err != nil || !found || id == record.ID {
		return nil, err
	}
	earlier, theirs, err := s.headed(id)
	if isReason(err, exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND) {
		return nil, nil // its time was over just now
	}
	if err != nil {
		return nil, err
	}
	own, err := envelope.Sketch(record.Header)
	if err != nil {
		return nil, err
	}
	if one, err := s.oneDocument(record.Sender, own, theirs); one || err != nil {
		return nil, err
	}
	return earlier, nil
}

// maxAncestors bounds how many documents are read to find out of which one an
// envelope is about.
const maxAncestors = 8

// oneDocument reports whether two envelopes of one sender may bear one number,
// because one updates or replaces the other, or both do a third: directly, or by what
// this relay knows of those that the later one acts on.
func (s *Service) oneDocument(sender routing.AgencyCode, later, earlier *exchangev1.Header) (bool, error) {
	theirs := map[string]bool{}
	for _, d := range documentsOf(earlier) {
		theirs[d] = true
	}
	ours := documentsOf(later)
	known := map[string]bool{later.GetDocumentId(): true}
	for read := 0; len(ours) > 0; ours = ours[1:] {
		d := ours[0]
		if theirs[d] {
			return true, nil
		}
		if known[d] || read == maxAncestors {
			continue
		}
		known[d] = true
		read++
		id, found, err := s.config.Spool.ByDocument(sender, d)
		if err != nil {
			return false, err
		}
		if !found {
			continue
		}
		_, ancestor, err := s.headed(id)
		if isReason(err, exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND) {
			continue
		}
		if err != nil {
			return false, err
		}
		ours = append(ours, documentsOf(ancestor)...)
	}
	return false, nil
}

// documentsOf are the id of a document and those of the documents it acts on.
func documentsOf(h *exchangev1.Header) []string {
	ids := []string{h.GetDocumentId()}
	for _, saying := range lifecycle.Read(h, time.Time{}) {
		ids = append(ids, saying.Document)
	}
	return ids
}

// headed reads an envelope and what its header says of the document.
func (s *Service) headed(id envelope.ID) (*envelope.Record, *exchangev1.Header, error) {
	record, err := s.config.Spool.Record(id)
	if err != nil {
		return nil, nil, err
	}
	h, err := envelope.Sketch(record.Header)
	return record, h, err
}
