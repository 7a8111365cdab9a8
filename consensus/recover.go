package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
	"go.yaml.in/yaml/v3"
)

// Recover forces a new configuration on the state in dir, offline, after the
// majority of the voters is lost for good. Stop every relay that is left, run
// it on each of them with the same peers, start them again. Entries that were
// written but never known to be committed are taken as committed. sm must be
// empty and is of no use after it. A folder on which a relay runs is refused.
func Recover(dir, self string, peers []Peer, sm StateMachine) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("recover %s: %w", dir, err)
		}
	}()
	if err := checkPeers(peers); err != nil {
		return err
	}
	here := slices.IndexFunc(peers, func(p Peer) bool { return p.ID == self })
	if here < 0 {
		return fmt.Errorf("%s is not among the peers; name every relay that is left, this one too", self)
	}
	if _, err := os.Stat(filepath.Join(dir, logFile)); err != nil {
		return fmt.Errorf("no directory log is there: %w", err)
	}
	var failed error
	logs, err := openStore(dir, func(err error) { failed = errors.Join(failed, err) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, logs.Close()) }()

	logger := &bridge{logger: slog.New(slog.DiscardHandler), name: "raft"}
	snapshots, err := openSnapshots(dir, logger)
	if err != nil {
		return err
	}
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(self)
	cfg.Logger = logger
	configuration := configurationOf(peers)
	_, trans := raft.NewInmemTransport(raft.ServerAddress(peers[here].Address))
	defer trans.Close()
	err = raft.RecoverCluster(cfg, &recovering{newMachine(sm)}, logs, logs, snapshots, trans, configuration)
	return errors.Join(err, failed)
}

// ReadPeers reads a list of {id, address, voter}, in YAML or JSON. voter is
// true where it is not given.
func ReadPeers(path string) ([]Peer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []struct {
		ID      string `yaml:"id"`
		Address string `yaml:"address"`
		Voter   *bool  `yaml:"voter"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&list); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	peers := make([]Peer, len(list))
	for i, p := range list {
		peers[i] = Peer{ID: p.ID, Address: p.Address, Nonvoter: p.Voter != nil && !*p.Voter}
	}
	if err := checkPeers(peers); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return peers, nil
}

// initialConfiguration returns the configuration of the initial voters and
// whether id is one of them.
func initialConfiguration(voters []Peer, id string) (raft.Configuration, bool) {
	return configurationOf(voters), slices.ContainsFunc(voters, func(p Peer) bool { return p.ID == id })
}

// configurationOf sorts by id, so that members that were given the same list in
// another order write the same bytes.
func configurationOf(peers []Peer) raft.Configuration {
	var c raft.Configuration
	for _, p := range slices.SortedFunc(slices.Values(peers), func(a, b Peer) int { return strings.Compare(a.ID, b.ID) }) {
		suffrage := raft.Voter
		if p.Nonvoter {
			suffrage = raft.Nonvoter
		}
		c.Servers = append(c.Servers, raft.Server{Suffrage: suffrage, ID: raft.ServerID(p.ID), Address: raft.ServerAddress(p.Address)})
	}
	return c
}
