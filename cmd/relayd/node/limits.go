package node

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ingress"
	"github.com/truclienthong/truc/relay/spool"
)

// Limits bound what is accepted; 0 takes the default. Numbers of which the
// comment says so may be -1: no limit. What is refused because of them is tried
// again by connectors, but for parts and recipients.
type Limits struct {
	// PartSize is the largest part; default 1GiB.
	PartSize Size `yaml:"part_size,omitempty"`
	// Recipients is the most recipients of one envelope; default 20,000.
	Recipients int `yaml:"recipients,omitempty"`
	// Rate is how many envelopes a second one agency may submit at this relay,
	// and Burst how many at once after a rest; defaults 200 and 2,000, -1 allowed.
	Rate  float64 `yaml:"rate,omitempty"`
	Burst int     `yaml:"burst,omitempty"`
	// ByteRate is how much content a second is taken from one agency; faster
	// senders are slowed down. Default: no limit.
	ByteRate Size `yaml:"byte_rate,omitempty"`
	// Quota is how much of one agency's content may be here that not every
	// recipient has confirmed, and QuotaEnvelopes how many envelopes; defaults
	// 64GiB and 1,000,000, -1 allowed for the number.
	Quota          Size  `yaml:"quota,omitempty"`
	QuotaEnvelopes int64 `yaml:"quota_envelopes,omitempty"`
	// Queue is how many envelopes may wait to be handed on to one relay; default
	// 5,000,000, -1 allowed.
	Queue int64 `yaml:"queue,omitempty"`
	// Inbox is how many envelopes may wait in one agency's inbox here; default
	// 2,000,000, -1 allowed.
	Inbox int64 `yaml:"inbox,omitempty"`
	// DiskReserve is what new envelopes leave free on the disk of data; default: a
	// twentieth of the disk, 256MiB at least and 4GiB at most.
	DiskReserve Size `yaml:"disk_reserve,omitempty"`
}

func (l *Limits) check() error {
	var problems []error
	for _, limit := range []struct {
		name  string
		value float64
	}{
		{"rate", l.Rate}, {"burst", float64(l.Burst)}, {"quota_envelopes", float64(l.QuotaEnvelopes)},
		{"queue", float64(l.Queue)}, {"inbox", float64(l.Inbox)},
	} {
		if limit.value < 0 && limit.value != -1 || math.IsNaN(limit.value) {
			problems = append(problems, fmt.Errorf("limits.%s is negative; -1 is for no limit", limit.name))
		}
	}
	if l.Recipients < 0 {
		problems = append(problems, errors.New("limits.recipients is negative"))
	}
	return errors.Join(problems...)
}

func (l *Limits) header() envelope.Limits {
	return envelope.Limits{MaxPartSize: uint64(l.PartSize), MaxRecipients: l.Recipients}
}

func (l *Limits) ingress() ingress.Limits {
	return ingress.Limits{
		Rate: l.Rate, Burst: l.Burst, ByteRate: int64(l.ByteRate),
		Quota: int64(l.Quota), QuotaEnvelopes: l.QuotaEnvelopes, Queue: l.Queue, Inbox: l.Inbox,
	}
}

func (c *Config) retention() spool.Retention {
	return spool.Retention{
		Ingress: time.Duration(c.Retention), Transit: time.Duration(c.Retention),
		Dead: time.Duration(c.RetentionDead), Record: time.Duration(c.RetentionRecord),
	}
}

// What the spool takes where nothing is given.
const (
	defaultRetentionDead   = Duration(30 * 24 * time.Hour)
	defaultRetentionRecord = Duration(400 * 24 * time.Hour)
)

// checkRetention holds the times against one another: what became of a document
// has to be known for as long as its content is here.
func (c *Config) checkRetention() error {
	if c.Retention < 0 || c.RetentionDead < 0 || c.RetentionRecord < 0 || c.Lifetime < 0 || c.CopyWait < 0 {
		return errors.New("retention, retention_dead, retention_record, lifetime and copy_wait may not be negative")
	}
	dead, record := cmp.Or(c.RetentionDead, defaultRetentionDead), cmp.Or(c.RetentionRecord, defaultRetentionRecord)
	if record < max(c.Retention, dead) {
		return fmt.Errorf("retention_record, %s, is shorter than retention, %s, or retention_dead, %s",
			time.Duration(record), time.Duration(c.Retention), time.Duration(dead))
	}
	return nil
}

// Size is a number of bytes written as "8GiB", "500MB" or "4096".
type Size uint64

// units are those of a Size, longest names first.
var units = []struct {
	name  string
	bytes float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// UnmarshalYAML reads a size.
func (s *Size) UnmarshalYAML(value *yaml.Node) error {
	text, unit := strings.TrimSpace(value.Value), 1.0
	for _, u := range units {
		if number, ok := strings.CutSuffix(text, u.name); ok {
			text, unit = strings.TrimSpace(number), u.bytes
			break
		}
	}
	number, err := strconv.ParseFloat(text, 64)
	if bytes := number * unit; err != nil || !(bytes >= 0 && bytes < 1<<62) {
		return fmt.Errorf("line %d: %q is no size such as 8GiB, 500MB or 4096", value.Line, value.Value)
	}
	*s = Size(number * unit)
	return nil
}

// MarshalYAML writes a size in the largest unit that divides it.
func (s Size) MarshalYAML() (any, error) {
	for _, u := range []struct {
		name  string
		bytes Size
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if s > 0 && s%u.bytes == 0 {
			return fmt.Sprintf("%d%s", s/u.bytes, u.name), nil
		}
	}
	return uint64(s), nil
}
