package node

import (
	"bytes"
	"fmt"
	"os"

	"go.yaml.in/yaml/v3"

	"github.com/truclienthong/truc/consensus"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// Finding is one breach of the crash rule in a spool.
type Finding = spool.Finding

// Fsck proves that the spool of a stopped relay is whole, or reports what is
// not. It changes nothing, and fails on a running relay.
func Fsck(c Config, report func(Finding)) error { return spool.Check(c.spool(), report) }

// member is one line of a peers file.
type member struct {
	ID      string `yaml:"id"`
	Address string `yaml:"address"`
	Voter   *bool  `yaml:"voter"`
}

// Recover sets the members of Raft by hand on a stopped relay, after the loss
// of the quorum, and returns how many they are. The file is YAML or JSON, a
// list of {id, address, voter}; a member votes unless it says voter: false.
func Recover(c Config, file string) (int, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var members []member
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	if err := decoder.Decode(&members); err != nil {
		return 0, fmt.Errorf("peers file %s: %w", file, err)
	}
	var list []consensus.Peer
	for _, m := range members {
		list = append(list, consensus.Peer{ID: m.ID, Address: m.Address, Nonvoter: m.Voter != nil && !*m.Voter})
	}
	config := c.raft(routing.NewDirectory())
	if err := consensus.Recover(config.Dir, config.ID, list, config.StateMachine); err != nil {
		return 0, err
	}
	return len(list), nil
}
