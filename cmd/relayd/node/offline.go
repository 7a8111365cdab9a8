package node

import (
	"fmt"
	"os"

	"github.com/truclienthong/truc/consensus"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// Finding is one breach of the crash rule in a spool.
type Finding = spool.Finding

// Fsck proves that the spool of a stopped relay is whole, or reports what is
// not. It changes nothing that was accepted, and fails on a running relay, and
// where there is no spool: a path that is wrong must not look whole.
func Fsck(c Config, report func(Finding)) error {
	config := c.spool()
	if _, err := os.Stat(config.Dir); err != nil {
		return fmt.Errorf("no spool to check: %w", err)
	}
	return spool.Check(config, report)
}

// Recover sets the members of Raft by hand on a stopped relay, after the loss
// of the quorum, and returns how many they are. The file is a list of
// {id, address, voter} in YAML or JSON; a member votes unless it says
// voter: false.
func Recover(c Config, file string) (int, error) {
	members, err := consensus.ReadPeers(file)
	if err != nil {
		return 0, err
	}
	config := c.raft(routing.NewDirectory())
	if err := consensus.Recover(config.Dir, config.ID, members, config.StateMachine); err != nil {
		return 0, err
	}
	return len(members), nil
}
