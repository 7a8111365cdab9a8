package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/truclienthong/truc/cmd/relayd/node"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
)

// serveWithin is how long a relay may take to serve after its start.
const serveWithin = 30 * time.Second

// Options are what a run needs besides the layout.
type Options struct {
	// Version of the program.
	Version string
	// Print writes one result: as JSON, or as text writes it.
	Print func(v any, text func(io.Writer) error) error
	// JSON: results are wanted as JSON, and nothing else on standard output.
	JSON bool
	// ExitAfterDemo ends the run when the journeys are done.
	ExitAfterDemo bool
}

// say writes a line for people.
func (o Options) say(format string, args ...any) error {
	if o.JSON {
		return nil
	}
	return o.Print(nil, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		return err
	})
}

// Run sets up the mesh, serves it, sends documents through it, and goes on
// serving until ctx ends.
func Run(ctx context.Context, l Layout, o Options) error {
	if err := l.portsFree(); err != nil {
		return err
	}
	if err := l.Write(); err != nil {
		return err
	}
	relays, err := l.newNodes(ctx, o.Version)
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	group, groupCtx := errgroup.WithContext(serving)
	for _, n := range relays {
		group.Go(func() error { return n.run(groupCtx) })
	}
	err = show(groupCtx, l, o)
	if err == nil && !o.ExitAfterDemo {
		err = o.say(`
The mesh serves until Ctrl-C. In another terminal:

  export TRUC_PROFILE=%s
  go run ./cmd/relayctl raft members
  go run ./cmd/connector send    --profile %s --to G22 --subject "Báo cáo" FILE…
  go run ./cmd/connector receive --profile %s --out inbox

Health and metrics: http://%s/readyz, /metrics. Logs: %s`,
			short(l.Profile("operator")), short(l.Profile("H17.97.08")), short(l.Profile("G22")), l.http(0), short(l.logFile("*")))
		if err == nil {
			<-groupCtx.Done()
		}
	}
	stop()
	failed := group.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return failed // Ctrl-C is how a run ends
	}
	if failed != nil {
		return failed // why the journeys broke off
	}
	return err
}

// show fills the directory and sends the documents.
func show(ctx context.Context, l Layout, o Options) error {
	endpoint, err := l.OperatorEndpoint()
	if err != nil {
		return err
	}
	var operators []*Operator
	for _, r := range l.Relays {
		c, err := l.DialOperator(endpoint, r.ID)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := awaitServing(ctx, c); err != nil {
			return fmt.Errorf("relay %s does not serve: %w; see %s", r.ID, err, l.logFile(r.ID))
		}
		operators = append(operators, c)
	}
	count, err := l.Import(ctx, operators...)
	if err != nil {
		return err
	}
	members, err := operators[0].Raft.Members(ctx, &adminv1.MembersRequest{})
	if err != nil {
		return err
	}
	for _, m := range members.GetMembers() {
		role := "follower"
		if m.GetLeader() {
			role = "leader"
		}
		if err := o.say("relay %-6s %s  %s", m.GetRelayId(), m.GetAddress(), role); err != nil {
			return err
		}
	}
	if err := o.say("%d agencies of four tiers in the directory\n", count); err != nil {
		return err
	}
	return travel(ctx, l, o, operators[0])
}

func awaitServing(ctx context.Context, c *Operator) error {
	ctx, cancel := context.WithTimeout(ctx, serveWithin)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		health, err := c.Custody.Health(ctx, &adminv1.HealthRequest{})
		if err == nil && health.GetServing() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if err == nil {
				err = errors.New(health.GetReason())
			}
			return err
		}
	}
}

// running is one relay of this process with its log.
type running struct {
	id   string
	node *node.Node
	log  *os.File
}

func (l Layout) newNodes(ctx context.Context, version string) ([]running, error) {
	var all []running
	for _, r := range l.Relays {
		config, err := node.Load(l.RelayConfig(r.ID))
		if err != nil {
			return nil, err
		}
		log, err := os.OpenFile(l.logFile(r.ID), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		n, err := node.New(ctx, config, node.Options{Logger: node.NewLogger(config, log), Version: version})
		if err != nil {
			return nil, err
		}
		all = append(all, running{r.ID, n, log})
	}
	return all, nil
}

func (r running) run(ctx context.Context) error {
	defer r.log.Close()
	if err := r.node.Run(ctx); err != nil {
		return err
	}
	if ctx.Err() == nil {
		return fmt.Errorf("relay %s ended by itself; see %s", r.id, r.log.Name())
	}
	return nil
}

func (l Layout) logFile(id string) string {
	return filepath.Join(filepath.Dir(l.RelayConfig(id)), "relay.log")
}

func (l Layout) http(i int) string {
	_, port := l.Ports(i)
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
}

// portsFree says at once when another program, or another mesh, has the ports.
func (l Layout) portsFree() error {
	for i := range l.Relays {
		for _, address := range []string{l.address(i), l.http(i)} {
			listener, err := net.Listen("tcp", address)
			if err != nil {
				return fmt.Errorf("%s is in use, perhaps by another mesh; choose other ports with --port-base: %w", address, err)
			}
			listener.Close()
		}
	}
	return nil
}

// short shows a path relative to the working directory where that is shorter.
func short(path string) string {
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
			return rel
		}
	}
	return path
}
