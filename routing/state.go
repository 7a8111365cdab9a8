package routing

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"

	"github.com/hashicorp/go-memdb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// Tables of the database; each has the index "id".
const (
	relayTable      = "relay"
	agencyTable     = "agency"
	gatewayTable    = "gateway"
	groupTable      = "group"
	ruleTable       = "rule"
	trustRootTable  = "trust_root"
	revocationTable = "revocation"
)

// Further indexes of agencies; within one key they are in order of code.
const (
	byParent = "parent"
	byTier   = "tier"
)

// state is one version of the directory; it never changes once published.
type state struct {
	version uint64
	db      *memdb.MemDB
	rows    *memdb.Txn // read transaction; safe for concurrent readers

	// What is asked many times a second, derived from rows and kept beside
	// them because a memdb look-up allocates several times.
	names    index[string, entry]    // agencies by code and by alias
	keys     index[[32]byte, holder] // who is bound to a key hash
	relays   map[RelayID]*directoryv1.Relay
	gateways map[string]*directoryv1.Gateway
	groups   map[string]*directoryv1.Group
	rules    []*directoryv1.Rule // by id
	homes    map[RelayID]uint64  // agencies that have it as home
	standbys map[RelayID]uint64  // agencies that have it as standby
	agencies uint64
	search   *searchIndex    // of this version or one before
	stale    map[string]bool // codes of which search tells what no longer is

	staged  map[string][]*directoryv1.Agency // by name of staging
	changed chan struct{}                    // closed when the next version is published
}

// entry is an agency with what is computed from it once.
type entry struct {
	*directoryv1.Agency
	words string // folded name, for search
}

// message is the agency, nil for no entry.
func (e *entry) message() *directoryv1.Agency {
	if e == nil {
		return nil
	}
	return e.Agency
}

func newEntry(a *directoryv1.Agency) *entry { return &entry{a, fold(a.GetName())} }

// holder is what a key hash is bound to.
type holder struct{ kind, name string }

func newState() *state {
	db, err := memdb.NewMemDB(schema)
	if err != nil {
		panic(fmt.Sprintf("directory schema: %v", err)) // fixed below; the tests open it
	}
	return &state{
		db: db, rows: db.Txn(false),
		homes: map[RelayID]uint64{}, standbys: map[RelayID]uint64{},
		search: new(searchIndex), changed: make(chan struct{}),
	}
}

func (s *state) lookup(name string) *entry { return s.names.get(name) }

// isUnder reports whether e is the agency with that code, or below it.
func (s *state) isUnder(e *entry, code string) bool {
	for e != nil {
		if e.GetCode() == code {
			return true
		}
		e = s.names.get(e.GetParentCode())
	}
	return false
}

// withoutStaged is the same version without one staged import.
func (s *state) withoutStaged(name string) *state {
	next := *s
	next.staged = maps.Clone(s.staged)
	delete(next.staged, name)
	return &next
}

var schema = &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
	relayTable:      table(relayTable, (*directoryv1.Relay).GetId),
	gatewayTable:    table(gatewayTable, (*directoryv1.Gateway).GetId),
	groupTable:      table(groupTable, (*directoryv1.Group).GetName),
	ruleTable:       table(ruleTable, (*directoryv1.Rule).GetId),
	trustRootTable:  table(trustRootTable, trustRootKey),
	revocationTable: table(revocationTable, revocationKey),
	agencyTable: table(agencyTable, func(e *entry) string { return e.GetCode() },
		&memdb.IndexSchema{Name: byParent, Indexer: key[*entry](func(e *entry) string { return e.GetParentCode() })},
		&memdb.IndexSchema{Name: byTier, Indexer: key[*entry](func(e *entry) string { return tierKey(Tier(e.GetTier())) })},
	),
}}

func tierKey(t Tier) string { return strconv.Itoa(int(t)) }

func trustRootKey(r *directoryv1.TrustRoot) string { return hex.EncodeToString(r.GetSha256()) }

func revocationKey(r *directoryv1.Revocation) string {
	return revocationKeyOf(r.GetSerial(), r.GetIssuerKeyHash())
}

func revocationKeyOf(serial, issuer []byte) string {
	return hex.EncodeToString(serial) + "/" + hex.EncodeToString(issuer)
}

func table[T any](name string, id func(T) string, more ...*memdb.IndexSchema) *memdb.TableSchema {
	t := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
		"id": {Name: "id", Unique: true, Indexer: key[T](id)},
	}}
	for _, x := range more {
		t.Indexes[x.Name] = x
	}
	return t
}

// key is a memdb index over a string of the row, ended by a zero byte so that
// no key is the beginning of another.
type key[T any] func(T) string

var _ memdb.SingleIndexer = key[*entry](nil)

func (k key[T]) FromObject(row any) (bool, []byte, error) {
	return true, append([]byte(k(row.(T))), 0), nil
}

func (k key[T]) FromArgs(args ...any) ([]byte, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("index takes one string, got %d arguments", len(args))
	}
	s, ok := args[0].(string)
	if !ok {
		return nil, fmt.Errorf("index takes one string, got %T", args[0])
	}
	return append([]byte(s), 0), nil
}

// The accessors below panic where memdb reports an error: it does so only for
// a table or index that the schema does not have.

func first[T any](rows *memdb.Txn, table, id string) (row T, ok bool) {
	found, err := rows.First(table, "id", id)
	if err != nil {
		panic(err)
	}
	row, ok = found.(T)
	return row, ok
}

// all yields the rows of a table in order of their ids.
func all[T any](rows *memdb.Txn, table string) iter.Seq[T] {
	return from[T](rows, table, "")
}

// from yields the rows of a table from that id on.
func from[T any](rows *memdb.Txn, table, id string) iter.Seq[T] {
	return func(yield func(T) bool) {
		found, err := rows.LowerBound(table, "id", id)
		if err != nil {
			panic(err)
		}
		drain(found, yield)
	}
}

// where yields the agencies that have that key in that index, by code.
func where(rows *memdb.Txn, index, value string) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		found, err := rows.Get(agencyTable, index, value)
		if err != nil {
			panic(err)
		}
		drain(found, yield)
	}
}

func drain[T any](found memdb.ResultIterator, yield func(T) bool) {
	for row := found.Next(); row != nil; row = found.Next() {
		if !yield(row.(T)) {
			return
		}
	}
}

// index is an immutable map from which a changed one is made cheaply: a large
// map that stays, and a small one over it with what changed of late.
type index[K comparable, V any] struct {
	settled map[K]*V
	recent  map[K]*V // nil: gone
}

// recentLimit weighs the copy of recent at every change against the copy of
// all at every recentLimit-th.
const recentLimit = 512

func (x index[K, V]) get(k K) *V {
	if len(x.recent) > 0 {
		if v, ok := x.recent[k]; ok {
			return v
		}
	}
	return x.settled[k]
}

// with returns the index after the changes; nil takes a key out.
func (x index[K, V]) with(changes map[K]*V) index[K, V] {
	if len(changes) == 0 {
		return x
	}
	if len(x.recent)+len(changes) <= recentLimit {
		recent := make(map[K]*V, len(x.recent)+len(changes))
		maps.Copy(recent, x.recent)
		maps.Copy(recent, changes)
		return index[K, V]{x.settled, recent}
	}
	settled := make(map[K]*V, len(x.settled)+len(changes))
	maps.Copy(settled, x.settled)
	for _, newer := range []map[K]*V{x.recent, changes} {
		for k, v := range newer {
			if v == nil {
				delete(settled, k)
			} else {
				settled[k] = v
			}
		}
	}
	return index[K, V]{settled: settled}
}

// sortedValues returns the values of m in order of their keys.
func sortedValues[K cmp.Ordered, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}
