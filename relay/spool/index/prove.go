package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"google.golang.org/protobuf/proto"
)

// ErrDamaged says that the index is not what was written: it is of no more use,
// and is built again from the journal.
var ErrDamaged = errors.New("index is damaged")

// ErrUnread says that something could not be read while the index was in use:
// because it is damaged, or because the disk gave no answer. Open proves which.
var ErrUnread = errors.New("index cannot be read")

// What badger does with damage of its tables, and why they are proved here,
// before it sees them: it ends the process (footer), panics (number of entries
// in a block), or takes a block that does not match its checksum for the end of
// the table, so that keys seem not to exist.

// proveFiles proves the tables that the directory says are its own.
func proveFiles(ctx context.Context, cfg Config) error {
	manifest, err := os.Open(filepath.Join(cfg.Dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		// Of an index in the making, or of one whose list of tables is gone.
		for _, pattern := range []string{"*.sst", "*.mem"} {
			if names, err := filepath.Glob(filepath.Join(cfg.Dir, pattern)); err != nil || len(names) > 0 {
				return fmt.Errorf("%w: its list of tables is gone", errors.Join(ErrDamaged, err))
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer manifest.Close()
	list, _, err := badger.ReplayManifestFile(manifest, 0, badgerOptions(cfg))
	if err != nil {
		return fmt.Errorf("%w: list of tables: %w", ErrDamaged, err)
	}
	for id := range list.Tables {
		if err := proveTable(ctx, table.NewFilename(id, cfg.Dir), nil); err != nil {
			return err
		}
	}
	return nil
}

// proveTable reads one table of badger's. It lies so:
//
//	blocks | index | length of the index 4 | checksum | length of the checksum 4
//
// and a block so, its checksum covering what is before it:
//
//	entries | their offsets, 4 each | number of entries 4 | checksum | its length 4
func proveTable(ctx context.Context, name string, pace func(context.Context, int) error) error {
	f, err := os.Open(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // nothing is known of the table
	}
	if err == nil {
		defer f.Close()
		err = prove(ctx, f, pace)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrDamaged, filepath.Base(name), err)
}

func prove(ctx context.Context, f *os.File, pace func(context.Context, int) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	read := func(off, n int64, buf []byte) ([]byte, error) {
		if off < 0 || n < 0 || off+n > info.Size() {
			return nil, fmt.Errorf("%d bytes at %d lie outside of the file", n, off)
		}
		if pace != nil {
			if err := pace(ctx, int(n)); err != nil {
				return nil, err
			}
		}
		b := slices.Grow(buf[:0], int(n))[:n]
		_, err := io.ReadFull(io.NewSectionReader(f, off, n), b)
		return b, err
	}
	list, end, err := tableIndex(info.Size(), read)
	if err != nil {
		return err
	}
	var at int64
	var b []byte
	var block fb.BlockOffset
	for i := range list.OffsetsLength() {
		if !list.Offsets(&block, i) || int64(block.Offset()) != at {
			return fmt.Errorf("block %d is not where it must be", i)
		}
		b, err = read(at, int64(block.Len()), b)
		if err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
		if err := proveBlock(b); err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
		at += int64(block.Len())
	}
	if at > end || list.OffsetsLength() == 0 {
		return errors.New("blocks do not fill the table")
	}
	return nil
}

// tableIndex reads the index of a table, and where it begins.
func tableIndex(size int64, read func(off, n int64, buf []byte) ([]byte, error)) (list *fb.TableIndex, start int64, err error) {
	defer func() {
		if p := recover(); p != nil { // the reader of its format trusts it
			err = fmt.Errorf("index: %v", p)
		}
	}()
	at := size
	tail := func(n int64) ([]byte, error) {
		at -= n
		return read(at, n, nil)
	}
	length := func() (int64, error) {
		b, err := tail(4)
		if err != nil {
			return 0, err
		}
		return int64(binary.BigEndian.Uint32(b)), nil
	}
	n, err := length()
	if err != nil {
		return nil, 0, err
	}
	sum, err := tail(n)
	if err != nil {
		return nil, 0, err
	}
	if n, err = length(); err != nil {
		return nil, 0, err
	}
	b, err := tail(n)
	if err != nil {
		return nil, 0, err
	}
	if err := matches(b, sum); err != nil {
		return nil, 0, fmt.Errorf("index: %w", err)
	}
	if len(b) == 0 {
		return nil, 0, errors.New("index is empty")
	}
	return fb.GetRootAsTableIndex(b, 0), at, nil
}

func proveBlock(b []byte) error {
	if len(b) < 8 {
		return errors.New("is too short")
	}
	n := int64(binary.BigEndian.Uint32(b[len(b)-4:]))
	end := int64(len(b)) - 4 - n
	if end < 4 {
		return errors.New("its checksum lies outside")
	}
	if err := matches(b[:end], b[end:end+n]); err != nil {
		return err
	}
	if entries := int64(binary.BigEndian.Uint32(b[end-4:])); entries*4 > end-4 {
		return errors.New("has more entries than room")
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func matches(b, checksum []byte) error {
	var want pb.Checksum
	if err := proto.Unmarshal(checksum, &want); err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	if want.Algo != pb.Checksum_CRC32C { // badger writes no other
		return fmt.Errorf("checksum of unknown kind %d", want.Algo)
	}
	if uint64(crc32.Checksum(b, castagnoli)) != want.Sum {
		return errors.New("does not match its checksum")
	}
	return nil
}
