package consensus_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc"

	"github.com/truclienthong/truc/consensus"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	good := consensus.Config{
		ID: "a", Address: "127.0.0.1:1", Dir: t.TempDir(), StateMachine: newLedger(),
		Voters: []consensus.Peer{{ID: "a", Address: "127.0.0.1:1"}, {ID: "b", Address: "127.0.0.1:2"}},
		Stream: layer{},
		DialPeer: func(context.Context, string, string) (grpc.ClientConnInterface, error) {
			return nil, errors.New("never called")
		},
	}
	for name, tc := range map[string]struct {
		change func(*consensus.Config)
		want   string
	}{
		"good":                        {func(*consensus.Config) {}, ""},
		"no id":                       {func(c *consensus.Config) { c.ID = "" }, "ID is missing"},
		"no address":                  {func(c *consensus.Config) { c.Address = "" }, "Address"},
		"address of all interfaces":   {func(c *consensus.Config) { c.Address = "0.0.0.0:7400" }, "others can reach"},
		"no folder":                   {func(c *consensus.Config) { c.Dir = "" }, "Dir is missing"},
		"no state machine":            {func(c *consensus.Config) { c.StateMachine = nil }, "StateMachine is missing"},
		"no stream":                   {func(c *consensus.Config) { c.Stream = nil }, "Stream is missing"},
		"nobody to ask":               {func(c *consensus.Config) { c.DialPeer = nil }, "DialPeer is missing"},
		"voter twice":                 {func(c *consensus.Config) { c.Voters[1].ID = "a" }, "a is there twice"},
		"address twice":               {func(c *consensus.Config) { c.Voters[1].Address = c.Address }, "is there twice"},
		"two addresses":               {func(c *consensus.Config) { c.Address = "127.0.0.1:3" }, "a has address"},
		"initial non-voter":           {func(c *consensus.Config) { c.Voters[1].Nonvoter = true }, "b is a non-voter"},
		"lease longer than heartbeat": {func(c *consensus.Config) { c.LeaderLeaseTimeout = time.Minute }, "two leaders"},
		"impatient election":          {func(c *consensus.Config) { c.ElectionTimeout = time.Millisecond }, "ElectionTimeout"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			cfg.Voters = slices.Clone(good.Voters)
			tc.change(&cfg)
			_, err := consensus.New(cfg)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestRunOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.leader()
	if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "called before") {
		t.Fatalf("second Run: %v", err)
	}
	m.write("set k x")

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, "listen", err)
	cfg := m.config()
	cfg.Stream = layer{Listener: listener}
	second, err := consensus.New(cfg)
	must(t, "new", err)
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Fatalf("a second relay on the same folder: %v", err)
	}
	m.write("set k y")
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	c := newCluster(t, 2, func(cfg *consensus.Config) {
		if cfg.ID == "a" {
			cfg.Meter = provider.Meter("truc")
		}
	})
	a := c.members["a"]
	c.leader()
	_, err := a.TransferLeader(t.Context(), "a")
	must(t, "transfer", err)
	id := newID()
	for range 2 {
		_, err := a.Propose(t.Context(), id, []byte("append k x"))
		must(t, "write", err)
	}
	c.members["b"].read("k")
	var data metricdata.ResourceMetrics
	must(t, "collect", reader.Collect(t.Context(), &data))
	seen := map[string]float64{}
	name := func(m string, set attribute.Set) string {
		for _, kv := range set.ToSlice() {
			m += " " + string(kv.Key) + "=" + kv.Value.AsString()
		}
		return m
	}
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					seen[name(m.Name, p.Attributes)] = float64(p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range d.DataPoints {
					seen[name(m.Name, p.Attributes)] = float64(p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range d.DataPoints {
					seen[name(m.Name, p.Attributes)] = p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					seen[name(m.Name, p.Attributes)] = float64(p.Count)
				}
			}
		}
	}
	for want, least := range map[string]float64{
		"truc.raft.commands repeat=no":            1,
		"truc.raft.commands repeat=yes":           1,
		"truc.raft.apply.duration":                2,
		"truc.raft.propose.duration outcome=done": 2,
		"truc.raft.leaderships":                   1,
		"truc.raft.state":                         2,
		"truc.raft.term":                          2,
		"truc.raft.index index=last":              4,
		"truc.raft.index index=committed":         4,
		"truc.raft.index index=applied":           4,
		"truc.raft.index index=snapshot":          0,
		"truc.raft.follower.lag relay=b":          0,
		"truc.raft.follower.last_contact relay=b": 0,
	} {
		if got, ok := seen[want]; !ok || got < least {
			t.Errorf("%s: got %v (there: %v), want at least %v", want, got, ok, least)
		}
	}
}
