package agency

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/proto"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/tls"
)

// submission is one document on its way.
type submission struct {
	client    *Client
	header    *exchangev1.Header
	canonical [32]byte
	id        envelope.ID
	sources   []Source
	progress  func(Progress)
	total     uint64
}

// prepare completes the header and finds what is wrong with it before anything
// leaves the machine: a document marked as a state secret never does.
func (c *Client) prepare(ctx context.Context, document Document) (*submission, error) {
	s, err := c.outline(document)
	if err != nil {
		return nil, err
	}
	if err := s.hash(ctx); err != nil {
		return nil, err
	}
	if err := s.seal(); err != nil {
		return nil, err
	}
	return s, s.refuseMarked(ctx)
}

// outline is what can be said of a document before its files are read.
func (c *Client) outline(document Document) (*submission, error) {
	if document.Header == nil {
		return nil, envelope.RefuseProblems([]envelope.Problem{{
			Field: "header", Reason: exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, Description: "is missing",
		}})
	}
	s := &submission{
		client: c, header: proto.CloneOf(document.Header), sources: document.Parts, progress: document.Progress,
	}
	if s.progress == nil {
		s.progress = func(Progress) {}
	}
	if err := describe(s.header, s.sources); err != nil {
		return nil, err
	}
	c.complete(s.header)
	for i, part := range s.header.GetParts() {
		if part.GetName() == "" {
			part.Name = s.sources[i].Name()
		}
		if part.GetMediaType() == "" {
			part.MediaType = mediaType(part.GetName())
		}
	}
	return s, nil
}

// hash reads every file for its size and SHA-256.
func (s *submission) hash(ctx context.Context) error {
	s.total = 0
	for i, source := range s.sources {
		hashed := s.total
		size, sum, err := digest(ctx, source, io.Discard, func(n int) {
			hashed += uint64(n)
			s.progress(Progress{Done: hashed})
		})
		if err != nil {
			return err
		}
		if err := s.found(i, size, sum); err != nil {
			return err
		}
	}
	return nil
}

// found notes what a file holds; that must be what the header says of it.
func (s *submission) found(i int, size uint64, sum [32]byte) error {
	part := s.header.GetParts()[i]
	if part.GetSize() != 0 && part.GetSize() != size || len(part.GetSha256()) > 0 && !bytes.Equal(part.GetSha256(), sum[:]) {
		return fmt.Errorf("file %s is not the one that the header describes", s.sources[i].Name())
	}
	part.Size, part.Sha256 = size, sum[:]
	s.total += size
	return nil
}

// seal checks the whole header and gives the submission its id.
func (s *submission) seal() error {
	if err := check(s.header); err != nil {
		return err
	}
	id, canonical, err := envelope.HeaderID(s.header)
	if err != nil {
		return err
	}
	s.id, s.canonical = id, sha256.Sum256(canonical)
	return nil
}

// check finds what every relay would refuse. How large a part may be is the
// relay's to say.
func check(header *exchangev1.Header) error {
	problems, _ := envelope.Check(header, envelope.Limits{MaxPartSize: math.MaxUint64, MaxRecipients: math.MaxInt})
	return envelope.RefuseProblems(problems)
}

// complete fills in what the client knows better than its caller.
func (c *Client) complete(header *exchangev1.Header) {
	if header.Sender == nil {
		header.Sender = new(exchangev1.Organization)
	}
	if header.Sender.GetCode() == "" {
		header.Sender.Code = c.speaksFor()
	}
	if header.GetKind() == exchangev1.Kind_KIND_UNSPECIFIED {
		header.Kind = exchangev1.Kind_KIND_DOCUMENT
		if header.Status != nil {
			header.Kind = exchangev1.Kind_KIND_STATUS
		}
	}
}

// speaksFor is the agency of the configuration, else the one that the
// certificate names; empty for a gateway that names none.
func (c *Client) speaksFor() string {
	if c.config.Agency != "" {
		return c.config.Agency
	}
	if identity := c.endpoint.Identity(); identity.Kind == tls.KindAgency {
		return identity.Name
	}
	return ""
}
