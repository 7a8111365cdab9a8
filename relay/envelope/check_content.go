package envelope

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope/secrecy"
)

// CheckContent looks into the parts of an envelope, as many as are said, each opened
// by open with its size, and returns what refuses it: a file that shows the mark of a state secret,
// wherever on its pages (QD28 Art. 1(2)). It warns of files that could not be looked
// into and perhaps should have been: these are accepted. The connector asks before
// a document leaves the agency, and the ingress relay again before it accepts.
//
// The error is that of opening and reading, or the end of ctx.
func CheckContent(ctx context.Context, guard *secrecy.Guard, parts int, open func(part int) (io.ReadCloser, uint64, error)) ([]Problem, []*exchangev1.Warning, error) {
	c := new(checker)
	for i := range parts {
		content, size, err := open(i)
		if err != nil {
			return nil, nil, fmt.Errorf("look into part %d: %w", i, err)
		}
		found, err := guard.Look(ctx, content, size)
		if err = errors.Join(err, content.Close()); err != nil {
			return nil, nil, fmt.Errorf("look into part %d: %w", i, err)
		}
		field := "header.parts[" + strconv.Itoa(i) + "]"
		c.mark(field, found.Mark)
		if found.Mark == secrecy.None && found.Unread != nil {
			c.warn(field, "was not looked into for marks of state secrets, or not all of it: %v; make sure that it bears none", found.Unread)
		}
	}
	return c.problems, c.warnings, nil
}
