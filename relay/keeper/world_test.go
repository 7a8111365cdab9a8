package keeper_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/keeper"
	"github.com/truclienthong/truc/routing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	done = exchangev1.TransportStatus_TRANSPORT_STATUS_DONE
	fail = exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL

	expired = exchangev1.ErrorReason_ERROR_REASON_EXPIRED
)

// world is one relay, "bac", among others.
type world struct {
	t *testing.T
	*memory
	directory *routing.Directory
	others    *others
	mu        sync.Mutex
	down, up  map[routing.RelayID]bool // in reach is what is not down; or, on disk, what is up
	keeper    *keeper.Keeper
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, memory: newMemory("bac"), directory: routing.NewDirectory(), others: newOthers(), down: make(map[routing.RelayID]bool), up: make(map[routing.RelayID]bool)}
	for _, relay := range []string{"bac", "nam", "tay", "trung"} {
		w.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
			Relay: &directoryv1.Relay{Id: relay, Region: relay, Address: relay + ":7400"}}}})
	}
	w.agency("H26", "bac", "trung")
	w.agency("H29", "nam", "trung")
	w.agency("H43", "nam", "trung")
	w.agency("G22", "trung", "tay")
	var err error
	w.keeper, err = keeper.New(keeper.Config{
		Self: "bac", Spool: w.memory, Directory: w.directory, Peers: w.others,
		Usable: func(relay routing.RelayID) (time.Duration, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return time.Duration(len(relay)) * time.Millisecond, !w.down[relay]
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// run starts the keeper, to be stopped by the returned function.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.keeper.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("run: %v", err)
		}
	}
}

func (w *world) change(c *directoryv1.Command) {
	w.t.Helper()
	c.Version, c.Actor, c.At = routing.CommandVersion, "operator", timestamppb.Now()
	command, err := proto.Marshal(c)
	if err != nil {
		w.t.Fatal(err)
	}
	answer, err := w.directory.Apply(command)
	result := new(directoryv1.CommandResult)
	if err == nil {
		err = proto.Unmarshal(answer, result)
	}
	if err != nil || result.GetReason() != 0 {
		w.t.Fatalf("change %v: %v %v", c, err, result)
	}
}

func (w *world) agency(code, home, standby string) {
	w.t.Helper()
	w.change(&directoryv1.Command{Change: &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{
		Agency: &directoryv1.Agency{Code: code, Name: code, Tier: 1, HomeRelayId: home, StandbyRelayId: standby}}}})
}

func (w *world) drain(relay string) {
	w.t.Helper()
	w.change(&directoryv1.Command{Change: &directoryv1.Command_SetRelayState{SetRelayState: &directoryv1.SetRelayState{
		RelayId: relay, State: directoryv1.RelayState_RELAY_STATE_DRAINING}}})
}

// lose gives a relay up as lost; its agencies go to their standbys.
func (w *world) lose(relay string) {
	w.t.Helper()
	w.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: relay, Lost: true}}})
}

func (w *world) setDown(relay routing.RelayID, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[relay] = down
}

// want compares what is known of one delivery.
func (w *world) want(id envelope.ID, code routing.AgencyCode, place envelope.Place, home routing.RelayID) {
	w.t.Helper()
	r, err := w.Record(id)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, d := range r.Deliveries {
		if d.Agency == code {
			if d.Place != place || d.Home != home {
				w.t.Errorf("%s: got place %d at %s, want %d at %s", code, d.Place, d.Home, place, home)
			}
			return
		}
	}
	w.t.Errorf("%s is not known", code)
}

func (w *world) wantHolders(id envelope.ID, want ...routing.RelayID) {
	w.t.Helper()
	r, err := w.Record(id)
	if err != nil {
		w.t.Fatal(err)
	}
	if !slices.Equal(r.Holders, want) {
		w.t.Errorf("holders: got %v, want %v", r.Holders, want)
	}
}
