package node

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/truclienthong/truc/tls"
	"github.com/truclienthong/truc/tls/pki"
)

// Three relays that advertise what cannot be dialed here elect a leader, and
// each registers itself by way of it: Raft, forwarding to the leader, and the
// calls between relays all use the mapped addresses.
func TestDialReachesRaftMembersElsewhere(t *testing.T) {
	dir := t.TempDir()
	authority, err := pki.Create(filepath.Join(dir, "ca"), "truc.test")
	if err != nil {
		t.Fatal(err)
	}
	trust := filepath.Join(dir, "trust.pem")
	if err := pki.WriteFile(trust, authority.RootPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	dial := map[string]string{}
	var configs []Config
	var voters []Voter
	for i, id := range []string{"bac", "trung", "nam"} {
		certificate, key, err := authority.Issue(pki.Request{Kind: tls.KindRelay, Name: id})
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Join(dir, id)
		c := Config{
			ID: id, Region: id, Listen: freeAddress(t), Advertise: fmt.Sprintf("127.0.0.1:%d", i+1),
			Data: base, Certificate: base + ".crt", Key: base + ".key", Trust: trust, Dial: dial,
		}
		if err := pki.WriteFiles(c.Certificate, certificate, c.Key, key); err != nil {
			t.Fatal(err)
		}
		dial[c.Advertise] = c.Listen
		configs, voters = append(configs, c), append(voters, Voter{ID: id, Address: c.Advertise})
	}

	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for _, c := range configs {
		c.Voters = voters
		file := filepath.Join(dir, c.ID+".yaml")
		if err := c.Write(file); err != nil {
			t.Fatal(err)
		}
		if c, err = Load(file); err != nil {
			t.Fatal(err)
		}
		n, err := New(ctx, c, Options{Heartbeat: 200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := n.Run(ctx); err != nil {
				t.Errorf("relay %s: %v", c.ID, err)
			}
		})
		defer awaitRelays(t, n, len(configs))
	}
}

func TestDialIsChecked(t *testing.T) {
	c := Config{
		ID: "bac", Region: "bac", Listen: "127.0.0.1:7400", Advertise: "127.0.0.1:7400",
		Data: "data", Certificate: "c", Key: "k", Trust: "t",
		Dial: map[string]string{"nam.example:7400": "10.0.0.7", "trung": "10.0.0.8:7400"},
	}
	err := c.check()
	for _, want := range []string{`dial[nam.example:7400] "10.0.0.7" is no host:port`, `dial "trung" is no host:port`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// awaitRelays waits until the relay knows so many relays.
func awaitRelays(t *testing.T, n *Node, want int) {
	limit := time.After(time.Minute)
	for {
		changed := n.state.Changed()
		if len(n.state.View().Relays()) == want {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Errorf("relay %s knows %d relays, want %d", n.config.ID, len(n.state.View().Relays()), want)
			return
		}
	}
}

func freeAddress(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// A leader that was out of reach for a while is asked again within seconds: the
// pauses between tries do not grow to minutes, as gRPC's own do.
func TestTheLeaderIsTriedAgainSoon(t *testing.T) {
	dir := t.TempDir()
	authority, err := pki.Create(filepath.Join(dir, "ca"), "truc.test")
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := authority.Issue(pki.Request{Kind: tls.KindRelay, Name: "bac"})
	if err != nil {
		t.Fatal(err)
	}
	name := func(what string) string { return filepath.Join(dir, what) }
	if err := pki.WriteFiles(name("crt"), certificate, name("key"), key); err != nil {
		t.Fatal(err)
	}
	if err := pki.WriteFile(name("trust"), authority.RootPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	endpoint, err := tls.New(tls.Config{CertificateFile: name("crt"), KeyFile: name("key"), TrustFile: name("trust")})
	if err != nil {
		t.Fatal(err)
	}

	// A proxy whose link is cut: it takes connections, and ends them.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	peers := newPeers(endpoint, func(address string) string { return address })
	defer peers.close()
	conn, err := peers.dial(t.Context(), "nam", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	go func() {
		_ = conn.Invoke(t.Context(), "/none/None", &emptypb.Empty{}, &emptypb.Empty{}, grpc.WaitForReady(true))
	}()
	const tries = 8 // the last comes after 4 s; with pauses that grow without end, after 40 s
	for range tries {
		c, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("%d tries took %s, want seconds", tries, took)
	}
}
