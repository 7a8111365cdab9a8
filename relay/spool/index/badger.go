package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
)

// badgerDisk is the Disk of a relay.
type badgerDisk struct {
	db  *badger.DB
	dir string

	closing sync.RWMutex // held for reading by those whom Close does not wait for
	closed  bool
}

var (
	_ Disk        = (*badgerDisk)(nil)
	_ Transaction = (*badger.Txn)(nil)
	_ Snapshot    = badgerSnapshot{}
	_ Cursor      = badgerCursor{}
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
	return &badgerDisk{db: db, dir: cfg.Dir}, nil
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
	return badgerSnapshot{d.db.NewTransactionAt(number, false)}
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
	for _, t := range d.db.Tables() {
		ids = append(ids, t.ID)
	}
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

func (d *badgerDisk) Size() int64 {
	var n int64
	for _, t := range d.db.Tables() {
		n += int64(t.OnDiskSize)
	}
	return n
}

func (d *badgerDisk) Close() error {
	d.closing.Lock()
	defer d.closing.Unlock()
	d.closed = true
	return d.db.Close()
}

type badgerSnapshot struct{ txn *badger.Txn }

func (s badgerSnapshot) Release() { s.txn.Discard() }

func (s badgerSnapshot) Get(key []byte) ([]byte, bool, error) {
	item, err := s.txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	value, err := item.ValueCopy(nil)
	return value, err == nil, err
}

func (s badgerSnapshot) Cursor(prefix []byte) Cursor {
	opts := badger.DefaultIteratorOptions
	opts.Prefix = prefix
	// Values lie beside their keys.
	opts.PrefetchValues = false
	return badgerCursor{s.txn.NewIterator(opts)}
}

type badgerCursor struct{ *badger.Iterator }

func (c badgerCursor) Key() []byte            { return c.Item().Key() }
func (c badgerCursor) Value() ([]byte, error) { return c.Item().ValueCopy(nil) }

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
