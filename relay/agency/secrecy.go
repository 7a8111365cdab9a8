package agency

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/truclienthong/truc/relay/envelope"
)

// lookedInto is how many files a client looks into at once, each of which it then
// has in memory.
const lookedInto = 2

// refuseMarked looks into the files before anything leaves the agency, and refuses
// a document of which one shows the mark of a state secret: STATE_SECRET, with the
// part as field ("header.parts[1]"). The relay does so again.
func (s *submission) refuseMarked(ctx context.Context) error {
	looking := 0
	// What could not be looked into the relay warns of, in the receipt.
	problems, _, err := envelope.CheckContent(ctx, s.client.secrets, len(s.sources), func(part int) (io.ReadCloser, uint64, error) {
		looking = part
		return openSized(s.sources[part])
	})
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return changed(s.sources[looking])
	}
	if err != nil {
		return fmt.Errorf("file %s: %w", s.sources[looking].Name(), err)
	}
	return envelope.RefuseProblems(problems)
}

func openSized(source Source) (io.ReadCloser, uint64, error) {
	content, err := source.Open()
	if err != nil {
		return nil, 0, err
	}
	size, err := content.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = content.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, 0, errors.Join(err, content.Close())
	}
	return content, uint64(size), nil
}
