package isolation

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// port is that of every relay.
const port = "7400"

// fabric is the network between the sites.
type fabric struct {
	t        testing.TB
	hub      *namespace   // has the bridge and the packet filter
	relays   []*namespace // by site
	agencies []*namespace // by site
	operator *namespace   // its packets are never taken away
	doors    []net.Listener
	open     sync.WaitGroup
}

// newFabric joins so many sites, or skips the test where the kernel cannot.
func newFabric(t testing.TB, sites int) *fabric {
	t.Helper()
	f := &fabric{t: t, hub: newNamespace(t)}
	f.able(f.hub.run("link set lo up\nlink add bridge0 type bridge\nlink set bridge0 up\n", "ip", "-batch", "-"))
	var ports []string
	join := func(name, address string) *namespace {
		n := newNamespace(t)
		n.address = address
		f.able(f.hub.run(fmt.Sprintf("link add %s type veth peer name eth0 netns %s\nlink set %s master bridge0\nlink set %s up\n",
			name, n.path(), name, name), "ip", "-batch", "-"))
		// Packets as on a wire: not many in one, of which a filter takes all or none.
		f.able(n.run(fmt.Sprintf("link set lo up\naddr add %s/16 dev eth0\nlink set eth0 gso_max_segs 1\nlink set eth0 up\n", address),
			"ip", "-batch", "-"))
		ports = append(ports, name)
		return n
	}
	for i := range sites {
		f.relays = append(f.relays, join(fmt.Sprintf("relay%d", i), fmt.Sprintf("10.77.0.%d", i+1)))
		f.agencies = append(f.agencies, join(fmt.Sprintf("agencies%d", i), fmt.Sprintf("10.77.1.%d", i+1)))
	}
	f.operator = join("operator", "10.77.2.1")
	f.able(f.hub.run(fmt.Sprintf("add table netdev truc\n"+
		"add set netdev truc young { type ipv4_addr . inet_service . ipv4_addr . inet_service ; size 65535 ; flags dynamic ; }\n"+
		"add chain netdev truc faults { type filter hook ingress devices = { %s } priority 0 ; policy accept ; }\n",
		strings.Join(ports, ", ")), "nft", "-f", "-"))
	t.Cleanup(f.close)
	return f
}

// able skips the test where the kernel has no bridges, or no packet filter.
func (f *fabric) able(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Skipf("network namespaces do not work here: %v", err)
	}
}

func (f *fabric) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// close ends what still goes through; the namespaces end with the process.
func (f *fabric) close() {
	for _, door := range f.doors {
		door.Close()
	}
	f.open.Wait()
	for _, n := range append(append([]*namespace{f.hub, f.operator}, f.relays...), f.agencies...) {
		n.file.Close()
	}
}

// relay is host:port of the relay of a site.
func (f *fabric) relay(site int) string { return net.JoinHostPort(f.relays[site].address, port) }

// door has an address of this machine lead to the relay of a site, for operators
// of the harness.
func (f *fabric) door(address string, site int) {
	f.t.Helper()
	door, err := net.Listen("tcp", address)
	f.must(err)
	f.doors = append(f.doors, door)
	f.open.Go(func() {
		for {
			near, err := door.Accept()
			if err != nil {
				return
			}
			f.open.Go(func() {
				defer near.Close()
				far, err := f.operator.dial(f.t.Context(), f.relay(site))
				if err != nil {
					return
				}
				defer far.Close()
				var both sync.WaitGroup
				both.Go(func() { _, _ = io.Copy(far, near); far.(*net.TCPConn).CloseWrite() })
				both.Go(func() { _, _ = io.Copy(near, far); near.(*net.TCPConn).CloseWrite() })
				both.Wait()
			})
		}
	})
}

// filter puts rules in the place of those there are; without any, the network is
// whole.
func (f *fabric) filter(rules ...string) {
	f.t.Helper()
	script := "flush chain netdev truc faults\nflush set netdev truc young\n"
	for _, rule := range rules {
		script += "add rule netdev truc faults " + rule + "\n"
	}
	f.must(f.hub.run(script, "nft", "-f", "-"))
}

// heal makes the network whole.
func (f *fabric) heal() { f.t.Helper(); f.filter() }

// into and outOf are packets from other sites to one, and back.
func (f *fabric) into(site int) string {
	return fmt.Sprintf("ip saddr { %s } ip daddr { %s } ", f.others(site), f.at(site))
}

func (f *fabric) outOf(site int) string {
	return fmt.Sprintf("ip saddr { %s } ip daddr { %s } ", f.at(site), f.others(site))
}

// at are the addresses of a site, others those of all others.
func (f *fabric) at(site int) string { return f.relays[site].address + ", " + f.agencies[site].address }

func (f *fabric) others(site int) string {
	var all []string
	for i := range f.relays {
		if i != site {
			all = append(all, f.at(i))
		}
	}
	return strings.Join(all, ", ")
}

// isolated are the rules that do something to all packets between sites and the
// others.
func (f *fabric) isolated(what string, sites ...int) (rules []string) {
	for _, site := range sites {
		rules = append(rules, f.into(site)+what, f.outOf(site)+what)
	}
	return rules
}

// forgotten are the rules of a firewall that has forgotten all connections
// between sites: packets of those that begin from now on pass.
func (f *fabric) forgotten() []string {
	between := "ip saddr 10.77.0.0/23 ip daddr 10.77.0.0/23 "
	return []string{
		between + "tcp flags & (syn | ack) == syn add @young { ip saddr . tcp sport . ip daddr . tcp dport } accept",
		between + "ip saddr . tcp sport . ip daddr . tcp dport @young accept",
		between + "ip daddr . tcp dport . ip saddr . tcp sport @young accept",
		between + "meta l4proto tcp drop",
	}
}

// link takes the link of a site's relay down, or up again.
func (f *fabric) link(site int, state string) {
	f.t.Helper()
	f.must(f.relays[site].run("", "ip", "link", "set", "eth0", state))
}
