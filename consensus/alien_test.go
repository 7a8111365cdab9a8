package consensus_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/truclienthong/truc/consensus"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// TestAlienWritesStayOutOfTheLog: another member hands in what the state machine
// does not understand; in the log it would stop all of them.
func TestAlienWritesStayOutOfTheLog(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *consensus.Config) {
		cfg.Check = func(command []byte) error {
			if strings.HasPrefix(string(command), "dance") {
				return errors.New("nobody dances")
			}
			return nil
		}
	})
	leader := c.leader()
	conn, err := c.others(leader)[0].dialPeer(t.Context(), leader.id, leader.address)
	must(t, "dial", err)
	for range 3 {
		id := newID()
		_, err = directoryv1.NewReplicationServiceClient(conn).Propose(t.Context(), &directoryv1.ProposeRequest{RequestId: id[:], Command: []byte("dance k x")})
		wantStatus(t, err, codes.InvalidArgument, "INVALID_FIELD")
		_, err = leader.Propose(t.Context(), newID(), []byte("dance k x"))
		wantStatus(t, err, codes.InvalidArgument, "INVALID_FIELD")
	}
	leader.write("set k on")
	for _, m := range c.others(leader) {
		check(t, m.id, m.read("k"), "on")
	}
}
