package agency

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// profile is the file of DESIGN §9.
type profile struct {
	Relays      []string `yaml:"relays"`
	Certificate string   `yaml:"certificate"`
	Key         string   `yaml:"key"`
	Trust       string   `yaml:"trust"`
	Agency      string   `yaml:"agency"`
	Outbox      string   `yaml:"outbox"`
}

// outboxBeside is the outbox of a profile that names none.
func outboxBeside(path string) string {
	for _, ending := range []string{".yaml", ".yml"} {
		if name, ok := strings.CutSuffix(path, ending); ok && filepath.Base(path) != ending {
			return name + ".outbox"
		}
	}
	return path + ".outbox"
}

// LoadProfile reads a profile in YAML:
//
//	relays: [10.1.0.4:7400, 10.2.0.4:7400]   # host:port, one or more
//	certificate: H26.crt                     # PEM; files are relative to the profile
//	key: H26.key
//	trust: trust.pem
//	agency: H26                              # may be missing: as the certificate says
//	outbox: /var/lib/truc/H26.outbox         # may be missing: H26.outbox beside H26.yaml
//
// Unknown keys are refused, because a misspelt one would be obeyed by nobody.
func LoadProfile(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("profile: %w", err)
	}
	var p profile
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&p); err != nil {
		return Config{}, fmt.Errorf("profile %s: %w", path, err)
	}
	var faults []error
	if len(p.Relays) == 0 {
		faults = append(faults, errors.New("relays: name at least one, host:port"))
	}
	for _, address := range p.Relays {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			faults = append(faults, fmt.Errorf("relays: %q is not host:port", address))
		}
	}
	file := func(key, name string) string {
		if name == "" {
			faults = append(faults, fmt.Errorf("%s: name a file", key))
			return ""
		}
		if filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(filepath.Dir(path), name)
	}
	c := Config{
		Relays:      p.Relays,
		Certificate: file("certificate", p.Certificate),
		Key:         file("key", p.Key),
		Trust:       file("trust", p.Trust),
		Agency:      p.Agency,
		Outbox:      outboxBeside(path),
	}
	if p.Outbox != "" {
		c.Outbox = file("outbox", p.Outbox)
	}
	if err := errors.Join(faults...); err != nil {
		return Config{}, fmt.Errorf("profile %s: %w", path, err)
	}
	return c, nil
}
