package mesh

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/truclienthong/truc/cmd/relayd/dev"
	"github.com/truclienthong/truc/cmd/relayd/node"
	"github.com/truclienthong/truc/test/faults"
)

// links are the proxies of a mesh with Config.Links. What a relay advertises is
// a proxy, through which agencies reach it; from every other relay it is reached
// through a proxy of its own (`dial` in relay.yaml). Operators reach relays
// directly.
type links struct {
	seed   uint64
	agency map[string]*faults.Proxy
	peer   map[pair]*faults.Proxy
}

type pair struct{ from, to string }

// openLinks opens the proxies of all relays of the layout.
func (m *Mesh) openLinks(relays []dev.Relay) {
	m.t.Helper()
	m.links = &links{seed: m.config.Seed, agency: map[string]*faults.Proxy{}, peer: map[pair]*faults.Proxy{}}
	for _, r := range relays {
		m.openLinksOf(r)
	}
}

// openLinksOf opens the proxies of one more relay: agencies' to it, and those
// between it and the relays there are.
func (m *Mesh) openLinksOf(r dev.Relay) {
	m.t.Helper()
	for other := range m.links.agency {
		m.links.peer[pair{other, r.ID}] = m.openProxy(r.ID)
		m.links.peer[pair{r.ID, other}] = m.openProxy(other)
	}
	m.links.agency[r.ID] = m.openProxy(r.ID)
}

func (m *Mesh) openProxy(to string) *faults.Proxy {
	m.t.Helper()
	m.links.seed++
	p, err := faults.Listen(faults.Config{Target: m.Layout.Address(to), Seed: m.links.seed})
	m.check("proxy", err)
	return p
}

func (l *links) close() {
	if l == nil {
		return
	}
	for _, p := range l.all() {
		p.Close()
	}
}

func (l *links) all() faults.Links {
	return append(slices.Collect(maps.Values(l.agency)), slices.Collect(maps.Values(l.peer))...)
}

// Link is the link over which one relay dials another. It needs Config.Links.
func (m *Mesh) Link(from, to string) *faults.Proxy {
	m.t.Helper()
	return m.proxy(from+" to "+to, m.links.of().peer[pair{from, to}])
}

// AgencyLink is the link over which agencies dial a relay. It needs
// Config.Links.
func (m *Mesh) AgencyLink(relay string) *faults.Proxy {
	m.t.Helper()
	return m.proxy("agencies to "+relay, m.links.of().agency[relay])
}

// Between are the links between two relays, both ways.
func (m *Mesh) Between(one, other string) faults.Links {
	m.t.Helper()
	return faults.Links{m.Link(one, other), m.Link(other, one)}
}

// Isolate cuts a relay off from agencies and from all other relays, until the
// links that it returns are healed.
func (m *Mesh) Isolate(relay string) faults.Links {
	m.t.Helper()
	around := m.Around(relay)
	around.Cut()
	return around
}

// Around are all links of a relay: to agencies, and both ways to every relay.
func (m *Mesh) Around(relay string) faults.Links {
	m.t.Helper()
	around := faults.Links{m.AgencyLink(relay)}
	for p, proxy := range m.links.peer {
		if p.from == relay || p.to == relay {
			around = append(around, proxy)
		}
	}
	return around
}

func (m *Mesh) proxy(what string, p *faults.Proxy) *faults.Proxy {
	m.t.Helper()
	if p == nil {
		m.t.Fatalf("there is no link %s: set Config.Links", what)
	}
	return p
}

func (l *links) of() *links {
	if l == nil {
		return &links{}
	}
	return l
}

// Address is the host:port that a relay advertises.
func (m *Mesh) Address(id string) string {
	if p := m.links.of().agency[id]; p != nil {
		return p.Address()
	}
	return m.Layout.Address(id)
}

// rewriteRelay gives a relay.yaml that the layout wrote the addresses of the
// proxies, and what the test wants to be otherwise.
func (m *Mesh) rewriteRelay(id string) error {
	if m.links == nil && m.config.Adjust == nil && m.config.Nonvoters == nil {
		return nil
	}
	file := m.Layout.RelayConfig(id)
	config, err := node.Load(file)
	if err != nil {
		return err
	}
	if m.links != nil {
		config.Advertise = m.Address(id)
		config.Dial = map[string]string{}
		for p, proxy := range m.links.peer {
			if p.from == id {
				config.Dial[m.Address(p.to)] = proxy.Address()
			}
		}
		for i, voter := range config.Voters {
			config.Voters[i].Address = m.Address(voter.ID)
		}
	}
	config.Voters = slices.DeleteFunc(config.Voters, func(v node.Voter) bool { return slices.Contains(m.config.Nonvoters, v.ID) })
	if slices.Contains(m.config.Nonvoters, id) {
		config.Voters = nil
	}
	if m.config.Adjust != nil {
		m.config.Adjust(id, &config)
	}
	return config.Write(file)
}

// rewriteProfiles has the agencies dial the proxies.
func (m *Mesh) rewriteProfiles() error {
	if m.links == nil {
		return nil
	}
	proxied := map[string]string{}
	for _, r := range m.Layout.Relays {
		proxied[m.Layout.Address(r.ID)] = m.Address(r.ID)
	}
	files, err := filepath.Glob(m.Layout.Profile("*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if file == m.Layout.Profile("operator") {
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		profile := map[string]any{}
		if err := yaml.Unmarshal(raw, &profile); err != nil {
			return fmt.Errorf("profile %s: %w", file, err)
		}
		var relays []string
		for _, address := range profile["relays"].([]any) {
			relays = append(relays, proxied[address.(string)])
		}
		profile["relays"] = relays
		if raw, err = yaml.Marshal(profile); err != nil {
			return err
		}
		if err := os.WriteFile(file, raw, 0o644); err != nil {
			return err
		}
	}
	return nil
}
