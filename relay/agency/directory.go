package agency

import (
	"context"
	"fmt"
	"iter"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// Attach asks the nearest relay about itself and the mesh.
func (c *Client) Attach(ctx context.Context) (*exchangev1.AttachResponse, error) {
	var answer *exchangev1.AttachResponse
	err := c.call(ctx, "attach", envelope.ID{}, func(ctx context.Context, r *relay) (err error) {
		answer, err = r.exchange.Attach(ctx, &exchangev1.AttachRequest{AgencyCode: c.config.Agency})
		return err
	})
	return answer, err
}

// Track tells what became of an envelope, to its sender and its recipients,
// with the events of every relay.
func (c *Client) Track(ctx context.Context, id envelope.ID) (*exchangev1.TrackResponse, error) {
	return c.track(ctx, id, &exchangev1.TrackRequest{
		AgencyCode: c.config.Agency, AllRelays: true,
		Envelope: &exchangev1.TrackRequest_EnvelopeId{EnvelopeId: id[:]},
	})
}

// TrackDocument is Track by the document id that the agency gave as sender.
func (c *Client) TrackDocument(ctx context.Context, documentID string) (*exchangev1.TrackResponse, error) {
	return c.track(ctx, envelope.ID{}, &exchangev1.TrackRequest{
		AgencyCode: c.config.Agency, AllRelays: true,
		Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: documentID},
	})
}

func (c *Client) track(ctx context.Context, id envelope.ID, request *exchangev1.TrackRequest) (*exchangev1.TrackResponse, error) {
	var answer *exchangev1.TrackResponse
	err := c.call(ctx, "track", id, func(ctx context.Context, r *relay) (err error) {
		answer, err = r.exchange.Track(ctx, request)
		return err
	})
	return answer, err
}

// Query selects agencies of the directory.
type Query struct {
	// Code finds one agency, by either form of its code.
	Code string
	// Under selects agencies at or below this code, Tier those of one tier (1
	// central to 4 commune; 0: all), Search those where each of these words
	// begins a word of the name, in any order, with or without diacritics.
	Under  string
	Tier   int
	Search string
}

// MaxPage is the most agencies that one call looks up.
const MaxPage = 1000

// Lookup finds agencies in the directory, in order of code, page by page as they
// are asked for. An error is the last.
func (c *Client) Lookup(ctx context.Context, query Query) iter.Seq2[*exchangev1.AgencyInfo, error] {
	return func(yield func(*exchangev1.AgencyInfo, error) bool) {
		for after := ""; ; {
			page, next, err := c.LookupPage(ctx, query, MaxPage, after)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, info := range page {
				if !yield(info, nil) {
					return
				}
			}
			if after = next; after == "" {
				return
			}
		}
	}
}

// LookupPage finds at most size agencies, 1 to MaxPage, 0: 100, in order of code.
// After is the next of the page before, empty for the first; next is empty at the
// end. What changes in the directory meanwhile neither repeats an agency nor
// leaves out one that stays.
func (c *Client) LookupPage(ctx context.Context, query Query, size int, after string) (page []*exchangev1.AgencyInfo, next string, err error) {
	if size < 0 || size > MaxPage {
		return nil, "", envelope.RefuseProblems([]envelope.Problem{{
			Field: "page_size", Reason: exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD,
			Description: fmt.Sprintf("is %d, 0 to %d are allowed", size, MaxPage),
		}})
	}
	request := &exchangev1.LookupRequest{
		Code: query.Code, Under: query.Under, Tier: uint32(max(query.Tier, 0)), Search: query.Search,
		PageSize: uint32(size), PageToken: after,
	}
	err = c.call(ctx, "look up agencies", envelope.ID{}, func(ctx context.Context, r *relay) error {
		answer, err := r.exchange.Lookup(ctx, request)
		page, next = answer.GetAgencies(), answer.GetNextPageToken()
		return err
	})
	return page, next, err
}
