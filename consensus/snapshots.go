package consensus

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"
)

// snapshotStore adds a check sum to what Raft notes about a snapshot: the bytes
// have one, but an index with a digit changed would leave an entry out, or
// apply one twice, and a note that cannot be read makes Raft use an older
// snapshot without a word.
//
// It is in a file "sum" beside the note: CRC-32C, 4 bytes. Snapshots of earlier
// releases have none.
type snapshotStore struct {
	*raft.FileSnapshotStore
	dir string
}

var _ raft.SnapshotStore = (*snapshotStore)(nil)

const sumFile = "sum"

// openSnapshots opens the snapshots in a folder and proves what is noted about
// each of them.
func openSnapshots(dir string, logger *bridge) (*snapshotStore, error) {
	inner, err := raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, logger)
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	s := &snapshotStore{FileSnapshotStore: inner, dir: filepath.Join(dir, "snapshots")}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		if err := s.prove(e.Name()); err != nil {
			return nil, fmt.Errorf("%w: snapshot %s: %w", errLogDamaged, e.Name(), err)
		}
	}
	return s, nil
}

func (s *snapshotStore) prove(name string) error {
	raw, err := os.ReadFile(filepath.Join(s.dir, name, "meta.json"))
	if err != nil {
		return err
	}
	var note struct {
		raft.SnapshotMeta
		CRC []byte
	}
	if err := json.Unmarshal(raw, &note); err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(s.dir, name, sumFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if note.ID != name || len(sum) != 4 || binary.BigEndian.Uint32(sum) != noteSum(&note.SnapshotMeta) {
		return errors.New("what is noted about it is not what was written")
	}
	return nil
}

// noteSum is the check sum of what is noted about a snapshot.
func noteSum(m *raft.SnapshotMeta) uint32 {
	b := []byte(m.ID)
	for _, n := range []uint64{uint64(m.Version), m.Index, m.Term, m.ConfigurationIndex, uint64(m.Size), uint64(len(m.Configuration.Servers))} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	for _, server := range m.Configuration.Servers {
		b = fmt.Appendf(b, "%d %q %q", server.Suffrage, server.ID, server.Address)
	}
	return crc32.Checksum(b, castagnoli)
}

func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	return &summedSink{SnapshotSink: sink, dir: s.dir, note: raft.SnapshotMeta{
		Version: version, ID: sink.ID(), Index: index, Term: term, Configuration: configuration, ConfigurationIndex: configurationIndex,
	}}, nil
}

// summedSink writes the check sum before the snapshot gets its name.
type summedSink struct {
	raft.SnapshotSink
	dir  string
	note raft.SnapshotMeta
}

func (s *summedSink) Write(p []byte) (int, error) {
	n, err := s.SnapshotSink.Write(p)
	s.note.Size += int64(n)
	return n, err
}

func (s *summedSink) Close() error {
	unfinished := filepath.Join(s.dir, s.ID()+".tmp")
	if _, err := os.Stat(unfinished); err == nil { // it may be closed again
		sum := binary.BigEndian.AppendUint32(nil, noteSum(&s.note))
		if err := writeSynced(filepath.Join(unfinished, sumFile), sum); err != nil {
			return errors.Join(err, s.Cancel())
		}
	}
	return s.SnapshotSink.Close()
}

// writeSynced writes a small file and syncs it, not its folder.
func writeSynced(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Sync(), file.Close())
}
