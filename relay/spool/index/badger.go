package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
)

// badgerDisk is the Disk of a relay.
type badgerDisk struct {
	db       *badger.DB
	dir      string
	onDamage func(error)

	closing sync.RWMutex // held for reading by those whom Close does not wait for
	closed  bool
}

var (
	_ Disk        = (*badgerDisk)(nil)
	_ Transaction = (*badger.Txn)(nil)
	_ Snapshot    = badgerSnapshot{}
	_ Cursor      = (*badgerCursor)(nil)
)

// openBadger proves the files in cfg.Dir and has badger open them.
func openBadger(cfg Config) (*badgerDisk, error) {
	if err := proveFiles(context.Background(), cfg); err != nil {
		return nil, err
	}
	db, err := open(cfg)
	if err != nil {
		return nil, err
	}
	// Badger makes the folder, and leaves its name to chance.
	if err := syncDir(filepath.Dir(cfg.Dir)); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &badgerDisk{db: db, dir: cfg.Dir, onDamage: cfg.OnDamage}, nil
}

// guard makes an error of what badger does about damage that came after Open, and
// about a disk that gives no answer: it panics, or reads memory that is not there.
func (d *badgerDisk) guard(read func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: badger panics: %.200s; the next start proves it", ErrUnread, d.dir, strings.TrimSpace(fmt.Sprint(p)))
			d.onDamage(err)
		}
	}()
	read()
	return nil
}

// dropUnborn removes logs of memory tables and of values that were made and have
// not got their size, by a kill or a cut of the power right then: nothing was
// written to them, and badger would open no index beside one.
func dropUnborn(dir string) error {
	tables, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil {
		return err
	}
	values, err := filepath.Glob(filepath.Join(dir, "*.vlog"))
	if err != nil {
		return err
	}
	for _, log := range append(tables, values...) {
		info, err := os.Stat(log)
		if err == nil && info.Size() == 0 {
			err = os.Remove(log)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// open has badger open its files. What panics here is damage that nobody
// foresaw.
func open(cfg Config) (db *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: badger panics: %.200s", ErrDamaged, strings.TrimSpace(fmt.Sprint(p)))
		}
	}()
	if err := dropUnborn(cfg.Dir); err != nil {
		return nil, err
	}
	// It counts what could be given back of the value log, where nothing is.
	if err := os.Remove(filepath.Join(cfg.Dir, "DISCARD")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return badger.OpenManaged(badgerOptions(cfg))
}

func badgerOptions(cfg Config) badger.Options {
	threshold := min(int64(valueThreshold), cfg.Memory*15/100)
	return badger.DefaultOptions(cfg.Dir).
		WithSyncWrites(true).
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		WithValueThreshold(threshold).
		// Nothing goes to the value log, but badger maps twice this size.
		WithValueLogFileSize(8 << 20).
		WithMemTableSize(cfg.Memory).
		WithNumMemtables(1).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(6).
		WithNumCompactors(2).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(32 << 20).
		WithMetricsEnabled(false).
		WithVerifyValueChecksum(true).
		// Open proves whole tables before.
		WithChecksumVerificationMode(options.OnBlockRead).
		WithLogger(quiet{cfg.Logger})
}

func (d *badgerDisk) Last() uint64 { return d.db.MaxVersion() }

func (d *badgerDisk) Read(number uint64) Snapshot {
	return badgerSnapshot{d, d.db.NewTransactionAt(number, false)}
}

func (d *badgerDisk) Write(number uint64, fill func(Transaction) error) error {
	txn := d.db.NewTransactionAt(number, true)
	defer txn.Discard()
	if err := fill(txn); err != nil {
		return err
	}
	return txn.CommitAt(number, nil)
}

// Forget lets compaction drop what no view can see any more.
func (d *badgerDisk) Forget(number uint64) { d.db.SetDiscardTs(number) }

// Prove reads every table and proves it. A table that badger has put others in
// place of meanwhile is none.
func (d *badgerDisk) Prove(ctx context.Context, pace func(ctx context.Context, bytes int) error) error {
	for _, id := range d.tables() {
		err := proveTable(ctx, table.NewFilename(id, d.dir), pace)
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && slices.Contains(d.tables(), id) {
			return err
		}
	}
	return nil
}

func (d *badgerDisk) tables() []uint64 {
	d.closing.RLock()
	defer d.closing.RUnlock()
	if d.closed {
		return nil
	}
	var ids []uint64
	_ = d.guard(func() {
		for _, t := range d.db.Tables() {
			ids = append(ids, t.ID)
		}
	})
	return ids
}

// Collect gives back space of badger's value log. It holds no value of ours, and
// yet its files are only dropped when asked for.
func (d *badgerDisk) Collect() error {
	err := d.db.RunValueLogGC(0.5)
	if err == nil || errors.Is(err, badger.ErrNoRewrite) || errors.Is(err, badger.ErrRejected) {
		return nil
	}
	return err
}

func (d *badgerDisk) Size() (n int64) {
	_ = d.guard(func() {
		for _, t := range d.db.Tables() {
			n += int64(t.OnDiskSize)
		}
	})
	return n
}

func (d *badgerDisk) Close() error {
	d.closing.Lock()
	defer d.closing.Unlock()
	d.closed = true
	return d.db.Close()
}

type badgerSnapshot struct {
	d   *badgerDisk
	txn *badger.Txn
}

func (s badgerSnapshot) Release() { _ = s.d.guard(s.txn.Discard) }

func (s badgerSnapshot) Get(key []byte) (value []byte, found bool, err error) {
	damaged := s.d.guard(func() {
		var item *badger.Item
		if item, err = s.txn.Get(key); err == nil {
			value, err = item.ValueCopy(nil)
		}
	})
	switch {
	case damaged != nil:
		return nil, false, damaged
	case errors.Is(err, badger.ErrKeyNotFound):
		return nil, false, nil
	}
	return value, err == nil, err
}

func (s badgerSnapshot) Cursor(prefix []byte) Cursor {
	opts := badger.DefaultIteratorOptions
	opts.Prefix = prefix
	// Values lie beside their keys.
	opts.PrefetchValues = false
	c := &badgerCursor{d: s.d}
	c.ended = s.d.guard(func() { c.it = s.txn.NewIterator(opts) }) != nil
	return c
}

// badgerCursor stands behind the last key where badger panics on its way: it is
// known by then that the index is damaged.
type badgerCursor struct {
	d     *badgerDisk
	it    *badger.Iterator
	ended bool
}

func (c *badgerCursor) move(how func()) {
	if !c.ended {
		c.ended = c.d.guard(how) != nil
	}
}

func (c *badgerCursor) Seek(key []byte) { c.move(func() { c.it.Seek(key) }) }
func (c *badgerCursor) Next()           { c.move(c.it.Next) }
func (c *badgerCursor) Valid() bool     { return !c.ended && c.it.Valid() }
func (c *badgerCursor) Key() []byte     { return c.it.Item().Key() }

func (c *badgerCursor) Value() (value []byte, err error) {
	if damaged := c.d.guard(func() { value, err = c.it.Item().ValueCopy(nil) }); damaged != nil {
		return nil, damaged
	}
	return value, err
}

func (c *badgerCursor) Close() {
	if c.it != nil {
		_ = c.d.guard(c.it.Close)
	}
}

// quiet passes badger's warnings and errors on and drops its chatter.
type quiet struct{ log *slog.Logger }

func (q quiet) Errorf(format string, args ...any) {
	q.log.Error("index", "message", fmt.Sprintf(format, args...))
}
func (q quiet) Warningf(format string, args ...any) {
	q.log.Warn("index", "message", fmt.Sprintf(format, args...))
}
func (quiet) Infof(string, ...any)  {}
func (quiet) Debugf(string, ...any) {}
