package spool

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// Locate says where on the disk bytes of a part lie, for those who look at a
// disk, or damage one: the file of a segment, and a stretch of it. It reads the
// journal in dir as it is, whether a relay has it or not, and changes nothing;
// what is written again meanwhile is elsewhere afterwards.
func Locate(dir string, id envelope.ID, part int) (file string, offset, length int64, err error) {
	journalDir := filepath.Join(dir, "journal")
	j, err := journal.Open(journal.Config{Dir: journalDir, ReadOnly: true, FS: onlooker{journal.System()}})
	if err != nil {
		return "", 0, 0, fmt.Errorf("locate content of %s: %w", id, err)
	}
	defer func() {
		if closeErr := j.Close(); err == nil {
			err = closeErr
		}
	}()
	// The last record counts: content that was moved stands in a later one.
	var lowest uint64
	err = j.Replay(journal.Position{}, func(rec journal.Record) error {
		r, err := recordOf(rec.Type, rec.Payload)
		if err != nil {
			return fmt.Errorf("%s: %w", rec.Position, err)
		}
		at, skip, n := stretch(r, id, part)
		if n == 0 || length > 0 && at > lowest {
			return nil
		}
		lowest, length = at, int64(n)
		offset = rec.Offset + rec.Size - int64(len(rec.Payload)+7)&^7 + int64(skip)
		file = filepath.Join(journalDir, fmt.Sprintf("%016x.segment", rec.Segment))
		return nil
	})
	if err == nil && length == 0 {
		err = fmt.Errorf("part %d: %w", part, ErrNotFound)
	}
	if err != nil {
		return "", 0, 0, fmt.Errorf("locate content of %s: %w", id, err)
	}
	return file, offset, length, nil
}

// stretch says which bytes of the payload are the part's, from byte at on.
func stretch(r record, id envelope.ID, part int) (at uint64, skip, n uint32) {
	whole := func(c *envelope.Custody, held *content) (uint64, uint32, uint32) {
		if c.ID != id || held.length == 0 || part < 0 || part >= len(c.Parts) {
			return 0, 0, 0
		}
		skip := held.skip
		for _, p := range c.Parts[:part] {
			skip += uint32(p.Size)
		}
		return 0, skip, uint32(c.Parts[part].Size)
	}
	switch r := r.(type) {
	case *commit:
		return whole(r.Custody, &r.content)
	case *stateRecord:
		return whole(r.Header, &r.content)
	case *moved:
		return stretch(&r.chunk, id, part)
	case *chunk:
		if r.ID == id && r.Part == part {
			return r.Offset, r.skip, r.length
		}
	}
	return 0, 0, 0
}

// onlooker reads a directory that somebody may be working in.
type onlooker struct{ journal.FS }

func (onlooker) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }
