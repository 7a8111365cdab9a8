package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/truclienthong/truc/relay/lifecycle"
)

// Config is relay.yaml, the configuration of one relay. File names in it are
// relative to the file itself. Unknown fields are refused.
type Config struct {
	// ID is the relay's id: 1 to 63 of a-z, 0-9 and "-", beginning with a
	// letter. The certificate has to name it (/relay/<id>).
	ID string `yaml:"id"`
	// Region is the name of the region it serves, for people and for connectors
	// that choose the nearest relay.
	Region string `yaml:"region"`
	// Listen is the host:port for agencies, peers, operators and Raft.
	Listen string `yaml:"listen"`
	// Advertise is the host:port others dial; empty: the same as listen.
	Advertise string `yaml:"advertise,omitempty"`
	// Dial maps the host:port that another relay advertises to the host:port at
	// which this relay reaches it, for networks where the two differ (NAT, split
	// horizon). What is not named is dialed as advertised.
	Dial map[string]string `yaml:"dial,omitempty"`
	// HTTP is the host:port of /healthz, /readyz and /metrics; empty: none.
	// Keep it on loopback: it asks nobody who they are.
	HTTP string `yaml:"http,omitempty"`
	// Data is the directory of the spool and of Raft.
	Data string `yaml:"data"`
	// Certificate, Key and Trust are PEM files: the relay's certificate chain,
	// its key, and the authorities it believes. They are read again when they
	// change.
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	Trust       string `yaml:"trust"`
	// Voters are the first members of Raft, the same list on each of them. A
	// relay that is not in it waits until `relayctl raft add-voter` or
	// `add-nonvoter` brings it in.
	Voters []Voter `yaml:"voters,omitempty"`
	// Limits bound what is accepted.
	Limits Limits `yaml:"limits,omitempty"`
	// CopyWait is how long a submit waits for the second copy before it answers
	// with one; empty: 5s.
	CopyWait Duration `yaml:"copy_wait,omitempty"`
	// Retention is how long content stays after its last duty is done: at the
	// relay that accepted it, after every recipient has confirmed; elsewhere, after
	// it was handed on or confirmed. Empty: it goes at once.
	Retention Duration `yaml:"retention,omitempty"`
	// RetentionDead is how long the relay that accepted an envelope keeps its
	// content when deliveries were given up, so that they can be revived; empty: 30
	// days (720h).
	RetentionDead Duration `yaml:"retention_dead,omitempty"`
	// RetentionRecord is how long it is known what became of an envelope, and the
	// sender's id of a document cannot be used again; empty: 400 days (9600h).
	RetentionRecord Duration `yaml:"retention_record,omitempty"`
	// Lifetime is how long an envelope is tried when its sender does not say;
	// empty: 30 days.
	Lifetime Duration `yaml:"lifetime,omitempty"`
	// Targets are the delivery targets of the lanes.
	Targets Targets `yaml:"targets,omitempty"`
	// Holidays are days off beside Saturday and Sunday, each written 2026-09-02: the
	// limit for sending runs to the next working morning (QD28 Art. 6). None is built
	// in, because they are decided year by year.
	Holidays []string `yaml:"holidays,omitempty"`
	// OTLP is the URL of an OpenTelemetry collector (gRPC), for example
	// http://127.0.0.1:4317; empty: none.
	OTLP string `yaml:"otlp,omitempty"`
	// Log says what is logged and how.
	Log Log `yaml:"log,omitempty"`
}

// Voter is a first member of Raft.
type Voter struct {
	ID      string `yaml:"id"`
	Address string `yaml:"address"`
}

// Log says what is logged, to stderr.
type Log struct {
	// Level is debug, info, warn or error; default info.
	Level string `yaml:"level,omitempty"`
	// Format is text or json; default text.
	Format string `yaml:"format,omitempty"`
}

// Duration is a time.Duration written as "36h" or "90s".
type Duration time.Duration

// UnmarshalYAML reads a duration.
func (d *Duration) UnmarshalYAML(value *yaml.Node) error {
	v, err := time.ParseDuration(value.Value)
	if err != nil {
		return fmt.Errorf("line %d: %w", value.Line, err)
	}
	*d = Duration(v)
	return nil
}

// MarshalYAML writes a duration.
func (d Duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }

// IsZero leaves unset durations out of a written file.
func (d Duration) IsZero() bool { return d == 0 }

// Load reads and checks a configuration.
func Load(file string) (Config, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	var c Config
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("configuration %s: %w", file, err)
	}
	base := filepath.Dir(file)
	for _, name := range []*string{&c.Data, &c.Certificate, &c.Key, &c.Trust} {
		if *name != "" && !filepath.IsAbs(*name) {
			*name = filepath.Join(base, *name)
		}
	}
	if c.Advertise == "" {
		c.Advertise = c.Listen
	}
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", file, err)
	}
	return c, nil
}

// Write stores a configuration that Load reads again.
func (c Config) Write(file string) error {
	raw, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(file, raw, 0o644)
}

func (c Config) check() error {
	var problems []error
	need := func(name, value string) {
		if value == "" {
			problems = append(problems, fmt.Errorf("%s is missing", name))
		}
	}
	need("id", c.ID)
	need("region", c.Region)
	need("data", c.Data)
	need("certificate", c.Certificate)
	need("key", c.Key)
	need("trust", c.Trust)
	address := func(name, value string) {
		if _, _, err := net.SplitHostPort(value); err != nil {
			problems = append(problems, fmt.Errorf("%s %q is no host:port", name, value))
		}
	}
	address("listen", c.Listen)
	address("advertise", c.Advertise)
	if host, _, err := net.SplitHostPort(c.Advertise); err == nil && Unspecified(host) {
		problems = append(problems, fmt.Errorf("advertise %q: nobody can dial it; name the host:port that others dial", c.Advertise))
	}
	if c.HTTP != "" {
		address("http", c.HTTP)
	}
	for _, from := range slices.Sorted(maps.Keys(c.Dial)) {
		address("dial", from)
		address(fmt.Sprintf("dial[%s]", from), c.Dial[from])
	}
	seen := map[string]bool{}
	for i, v := range c.Voters {
		address(fmt.Sprintf("voters[%d].address", i), v.Address)
		if v.ID == "" || seen[v.ID] {
			problems = append(problems, fmt.Errorf("voters[%d].id %q is missing or repeated", i, v.ID))
		}
		seen[v.ID] = true
	}
	if n := len(c.Voters); n > 0 && n%2 == 0 {
		problems = append(problems, fmt.Errorf("%d voters: an odd number is needed to survive half of the losses an even one pays for", n))
	}
	problems = append(problems, c.checkRetention(), c.Limits.check(), c.Targets.check())
	if _, err := lifecycle.NewCalendar(c.Holidays); err != nil {
		problems = append(problems, fmt.Errorf("holidays: %w", err))
	}
	switch c.Log.Level {
	case "", "debug", "info", "warn", "error":
	default:
		problems = append(problems, fmt.Errorf("log.level %q is none of debug, info, warn, error", c.Log.Level))
	}
	switch c.Log.Format {
	case "", "text", "json":
	default:
		problems = append(problems, fmt.Errorf("log.format %q is neither text nor json", c.Log.Format))
	}
	return errors.Join(problems...)
}

// reached returns where this relay dials what another advertises.
func (c Config) reached(advertised string) string {
	if mapped, ok := c.Dial[advertised]; ok {
		return mapped
	}
	return advertised
}

// Unspecified reports whether a host stands for all addresses of a machine,
// which can be listened on but not dialed.
func Unspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}
