package agency

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// reserve is step 1: it makes the hidden folder if there is room.
func (o *Outbox) reserve(s *submission, key string) (*entry, []int64, error) {
	e := &entry{outbox: o, key: key, path: filepath.Join(o.config.Dir, newPrefix+rand.Text()), header: s.header}
	sizes := make([]int64, len(s.sources))
	for i, source := range s.sources {
		size, err := sizeOf(source)
		if err != nil {
			return nil, nil, fmt.Errorf("file %s: %w", source.Name(), err)
		}
		sizes[i] = size
	}
	// The header is written in base64.
	names, lengths := append(e.files(), envelopeFile, stateFile), append(slices.Clone(sizes), 2*int64(proto.Size(s.header)), 0)
	var needed int64
	for _, length := range lengths {
		needed += blocks(length)
	}
	leave, err := o.alone()
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	if err := o.room(needed); err != nil {
		return nil, nil, err
	}
	if err := os.Mkdir(e.path, keptDirMode); err != nil {
		return nil, nil, fmt.Errorf("outbox: %w", err)
	}
	if e.lock, err = lock(e.path, false); err != nil {
		return nil, nil, fmt.Errorf("outbox: %w", err)
	}
	for i, name := range names {
		if err := makeFile(filepath.Join(e.path, name), lengths[i]); err != nil {
			e.lock.unlock()
			return nil, nil, errors.Join(fmt.Errorf("outbox: %w", err), os.RemoveAll(e.path))
		}
	}
	return e, sizes, nil
}

// alone excludes all others, of this process and of others, from making room and
// from moving what takes it, for a moment.
func (o *Outbox) alone() (leave func(), err error) {
	o.moving.Lock()
	folder, err := lock(o.config.Dir, true)
	if err != nil {
		o.moving.Unlock()
		return nil, fmt.Errorf("outbox: %w", err)
	}
	return func() {
		folder.unlock()
		o.moving.Unlock()
	}, nil
}

func sizeOf(source Source) (int64, error) {
	content, err := source.Open()
	if err != nil {
		return 0, err
	}
	defer content.Close()
	return content.Seek(0, io.SeekEnd)
}

// makeFile makes a file of a length, without taking room for it yet.
func makeFile(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, keptFileMode)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		return err
	}
	return file.Close()
}

// blocks is what a file of a size counts for: at least one block of a disk, so
// that many small ones are bounded too.
func blocks(size int64) int64 {
	const block = 4096
	return max(block, (size+block-1)/block*block)
}

// room refuses what would go beyond the bound of the outbox.
func (o *Outbox) room(needed int64) error {
	most := o.config.MaxBytes
	if needed > most {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE,
			"the document has %d bytes, the outbox %s takes %d in all", needed, o.config.Dir, most)
	}
	held, err := usage(o.config.Dir)
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	if held+needed <= most {
		return nil
	}
	r := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED,
		"the outbox %s holds %d of at most %d bytes and has no room for %d more; see what waits in it, and clear what was set aside in its folders %s and %s",
		o.config.Dir, held, most, needed, failedDir, damagedDir)
	r.Quota = "outbox"
	return r
}

// usage counts what is in a folder. Others may be removing from it.
func usage(dir string) (int64, error) {
	var held int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return unlessGone(err)
		}
		info, err := d.Info()
		if err == nil {
			held += blocks(info.Size())
		}
		return unlessGone(err)
	})
	return held, err
}

func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sweep deletes what processes left that died while making or removing.
func (o *Outbox) sweep() error {
	leave, err := o.alone()
	if err != nil {
		return err
	}
	defer leave()
	found, err := os.ReadDir(o.config.Dir)
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	for _, d := range found {
		if !d.IsDir() || !strings.HasPrefix(d.Name(), newPrefix) && !strings.HasPrefix(d.Name(), gonePrefix) {
			continue
		}
		path := filepath.Join(o.config.Dir, d.Name())
		locked, err := lock(path, false)
		if err != nil {
			continue // at work, or gone
		}
		err = os.RemoveAll(path)
		locked.unlock()
		if err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
	}
	return nil
}
