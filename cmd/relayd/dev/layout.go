// Package dev sets up a mesh of three relays on one machine with its own
// authority and sample agencies of four tiers, and shows documents travelling
// through it. It uses the same configuration, certificates, SDK and operator
// calls as a real mesh.
package dev

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/truclienthong/truc/cmd/relayd/node"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
	"github.com/truclienthong/truc/tls/pki"
)

// TrustDomain of the mesh.
const TrustDomain = "truc.local"

// operatorName is the name of the operator whose profile Write makes.
const operatorName = "dev"

//go:embed agencies.csv
var agenciesCSV []byte

// Relay is one relay of the mesh.
type Relay struct {
	ID, Region string
}

// Relays are the three of `relayd dev`.
var Relays = []Relay{{"bac", "Bắc"}, {"trung", "Trung"}, {"nam", "Nam"}}

// Layout says what to set up and where.
type Layout struct {
	// Dir receives everything.
	Dir string
	// Relays of the mesh, all of them voters.
	Relays []Relay
	// Ports gives the port of relay i, and its HTTP port (0: none).
	Ports func(i int) (port, http int)
	// Agencies is the CSV of the agencies.
	Agencies []byte
	// Only names the agencies that get a profile; nil: all of them.
	Only []string
	// Log of the relays.
	Log node.Log
}

// Default is the layout of `relayd dev`: port base and up for the relays, and
// from ten above it for their HTTP.
func Default(dir string, portBase int) Layout {
	return Layout{Dir: dir, Relays: Relays, Agencies: agenciesCSV,
		Ports: func(i int) (int, int) { return portBase + i, portBase + 10 + i }}
}

// RelayConfig is the configuration file of a relay.
func (l Layout) RelayConfig(id string) string {
	return filepath.Join(l.Dir, "relays", id, "relay.yaml")
}

// Profile is the profile of an agency, or of the operator ("operator").
func (l Layout) Profile(name string) string {
	return filepath.Join(l.Dir, "profiles", name+".yaml")
}

// AgenciesFile is the CSV that `relayctl agency import` takes.
func (l Layout) AgenciesFile() string { return filepath.Join(l.Dir, "agencies.csv") }

func (l Layout) address(i int) string {
	port, _ := l.Ports(i)
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
}

// profile is what connector and relayctl read.
type profile struct {
	Relays      []string `yaml:"relays"`
	Certificate string   `yaml:"certificate"`
	Key         string   `yaml:"key"`
	Trust       string   `yaml:"trust"`
	Agency      string   `yaml:"agency,omitempty"`
}

// Write makes the authority, the certificates, the configurations and the
// profiles. A directory that has them keeps its authority and keys, and gets
// its configurations anew.
func (l Layout) Write() error {
	agencies, err := routing.ReadAgencies(bytes.NewReader(l.Agencies))
	if err != nil {
		return fmt.Errorf("agencies: %w", err)
	}
	authorityDir := filepath.Join(l.Dir, "ca")
	authority, err := pki.Open(authorityDir)
	if errors.Is(err, fs.ErrNotExist) {
		authority, err = pki.Create(authorityDir, TrustDomain)
	}
	if err != nil {
		return err
	}
	for i, r := range l.Relays {
		if err := l.writeRelay(authority, i, r, l.Relays); err != nil {
			return err
		}
	}
	if err := l.writeProfile(authority, "operator", tls.KindOperator, operatorName, ""); err != nil {
		return err
	}
	for _, a := range agencies {
		if l.Only != nil && !slices.Contains(l.Only, a.GetCode()) {
			continue
		}
		if err := l.writeProfile(authority, a.GetCode(), tls.KindAgency, a.GetCode(), a.GetHomeRelayId()); err != nil {
			return err
		}
	}
	return pki.WriteFile(l.AgenciesFile(), l.Agencies, 0o644)
}

// AddRelay makes the files of one more relay, which is no first voter: it waits
// until it is brought into Raft.
func (l *Layout) AddRelay(r Relay) error {
	authority, err := pki.Open(filepath.Join(l.Dir, "ca"))
	if err != nil {
		return err
	}
	l.Relays = append(slices.Clip(l.Relays), r)
	return l.writeRelay(authority, len(l.Relays)-1, r, nil)
}

// Address is the host:port of a relay.
func (l Layout) Address(id string) string {
	return l.address(slices.IndexFunc(l.Relays, func(r Relay) bool { return r.ID == id }))
}

func (l Layout) writeRelay(authority *pki.Authority, i int, r Relay, voters []Relay) error {
	dir := filepath.Join(l.Dir, "relays", r.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := issue(authority, dir, "relay", pki.Request{Kind: tls.KindRelay, Name: r.ID, Hosts: []string{"127.0.0.1", "localhost"}}); err != nil {
		return err
	}
	_, http := l.Ports(i)
	config := node.Config{
		ID: r.ID, Region: r.Region, Listen: l.address(i), Data: "data",
		Certificate: "relay.crt", Key: "relay.key", Trust: filepath.Join("..", "..", "ca", "root.crt"), Log: l.Log,
	}
	if http > 0 {
		config.HTTP = net.JoinHostPort("127.0.0.1", fmt.Sprint(http))
	}
	for j, voter := range voters {
		config.Voters = append(config.Voters, node.Voter{ID: voter.ID, Address: l.address(j)})
	}
	return config.Write(l.RelayConfig(r.ID))
}

// writeProfile lists the relays with the agency's home first.
func (l Layout) writeProfile(authority *pki.Authority, file string, kind tls.Kind, name, home string) error {
	keys := filepath.Join(l.Dir, "profiles", "keys")
	if err := os.MkdirAll(keys, 0o755); err != nil {
		return err
	}
	if err := issue(authority, keys, file, pki.Request{Kind: kind, Name: name}); err != nil {
		return err
	}
	p := profile{
		Certificate: filepath.Join("keys", file+".crt"), Key: filepath.Join("keys", file+".key"),
		Trust: filepath.Join("..", "ca", "root.crt"),
	}
	if kind == tls.KindAgency {
		p.Agency = name
	}
	for i, r := range l.Relays {
		if r.ID == home {
			p.Relays = append([]string{l.address(i)}, p.Relays...)
		} else {
			p.Relays = append(p.Relays, l.address(i))
		}
	}
	raw, err := yaml.Marshal(p)
	if err != nil {
		return err
	}
	return pki.WriteFile(l.Profile(file), raw, 0o644)
}

// issue makes a certificate where there is none yet.
func issue(authority *pki.Authority, dir, file string, r pki.Request) error {
	certFile, keyFile := filepath.Join(dir, file+".crt"), filepath.Join(dir, file+".key")
	if _, err := os.Stat(certFile); err == nil {
		return nil
	}
	certPEM, keyPEM, err := authority.Issue(r)
	if err != nil {
		return err
	}
	return pki.WriteFiles(certFile, certPEM, keyFile, keyPEM)
}
