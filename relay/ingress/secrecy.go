package ingress

import (
	"context"
	"io"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// refuseMarked looks into the files that came, once they are here and before they
// are accepted, and refuses those that show the mark of a state secret (DESIGN §3.8).
// The connector did so too; relays do not rely on it. What is refused is given up,
// so that no relay keeps a secret for a resume.
func (s *Service) refuseMarked(ctx context.Context, parts []envelope.PartSum, incoming Incoming) ([]*exchangev1.Warning, error) {
	for i, have := range incoming.Offsets() {
		if have != parts[i].Size {
			return nil, nil // Commit refuses it, and says of which part bytes are missing
		}
	}
	problems, warnings, err := envelope.CheckContent(ctx, s.secrets, len(parts), func(part int) (io.ReadCloser, uint64, error) {
		content, err := incoming.Content(ctx, part)
		return content, parts[part].Size, err
	})
	if err != nil {
		return nil, err
	}
	if len(problems) == 0 {
		s.metrics.unread.Add(ctx, int64(len(warnings)))
		return warnings, nil
	}
	if err := incoming.Abandon(ctx); err != nil {
		return nil, err
	}
	return nil, refuseAll(problems)
}
