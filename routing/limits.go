package routing

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// Limits of the contract (proto/truc/directory/v1/directory.proto); lengths
// are counted in characters, sizes in bytes.
const (
	maxName           = 200
	maxAliases        = 16
	maxKeyHashes      = 16
	maxSealingKeys    = 4
	maxSuite          = 64
	maxPublicKey      = 2048
	maxRegion         = 63
	maxGatewayCodes   = 20_000
	maxGroupName      = 128
	maxNote           = 500
	maxSerial         = 20
	hashSize          = 32
	maxTrustDomain    = 255    // of a SPIFFE id
	maxCertificate    = 65_536 // far above any real authority's
	maxAddress        = 260    // longest DNS name, ":" and port
	maxNamedProblems  = 20
	maxOpenStagings   = 4
	maxStagedAgencies = 500_000
	maxStagingName    = 128
)

// problems gathers everything wrong with a command, so that whoever asked can
// mend it in one go.
type problems struct {
	reason exchangev1.ErrorReason // of the first
	list   []string
	more   int
	rows   []*directoryv1.RowFault // of an import, beside list
}

func (p *problems) add(reason exchangev1.ErrorReason, format string, args ...any) {
	if len(p.list) == 0 {
		p.reason = reason
	}
	if len(p.list) == maxNamedProblems {
		p.more++
		return
	}
	p.list = append(p.list, fmt.Sprintf(format, args...))
}

func (p *problems) invalid(format string, args ...any) { p.add(invalidField, format, args...) }

func (p *problems) found() bool { return len(p.list) > 0 }

func (p *problems) err() error {
	if !p.found() {
		return nil
	}
	message := strings.Join(p.list, "; ")
	if p.more > 0 {
		message += fmt.Sprintf("; and %d more", p.more)
	}
	return &refusal{p.reason, message, p.rows}
}

// text checks a length in characters and that no control characters are in it;
// lines allows tabs and line ends.
func (p *problems) text(field, s string, least, most int, lines bool) {
	n := utf8.RuneCountInString(s)
	switch {
	case n < least && n == 0:
		p.invalid("%s is missing", field)
	case n < least || n > most:
		p.invalid("%s has %d characters, %d to %d are allowed", field, n, least, most)
	case !utf8.ValidString(s):
		p.invalid("%s is not UTF-8", field)
	case strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && !(lines && strings.ContainsRune("\t\r\n", r))
	}):
		p.invalid("%s has control characters", field)
	}
}

// token checks that s has 1 to most bytes of a-z, 0-9 and the extra ones.
func (p *problems) token(field, s string, most int, extra string) {
	bad := strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune(extra, r))
	})
	if bad || s == "" || len(s) > most {
		p.invalid("%s %q: 1 to %d of a-z, 0-9 and %q", field, s, most, extra)
	}
}

// code checks the form of an agency code and returns it trimmed.
func (p *problems) code(field, s string) string {
	c, err := ParseAgencyCode(s)
	if err != nil {
		p.invalid("%s: %v", field, err)
	}
	return string(c)
}

func (p *problems) hash(field string, h []byte) {
	if len(h) != hashSize {
		p.invalid("%s has %d bytes, SHA-256 has %d", field, len(h), hashSize)
	}
}

// hashes checks a list of key hashes; most 0: any number.
func (p *problems) hashes(field string, list [][]byte, most int) {
	if most > 0 && len(list) > most {
		p.invalid("%d %s, at most %d are allowed", len(list), field, most)
	}
	seen := make(map[string]bool, len(list))
	for i, h := range list {
		p.hash(fmt.Sprintf("%s[%d]", field, i), h)
		if seen[string(h)] {
			p.invalid("%s[%d] stands twice", field, i)
		}
		seen[string(h)] = true
	}
}

func (p *problems) tier(field string, tier uint32, least Tier) {
	if tier < uint32(least) || tier > uint32(TierCommune) {
		p.invalid("%s %d: %d to %d", field, tier, least, TierCommune)
	}
}

// agency checks one agency by itself and brings its codes into the form that
// is kept.
func (p *problems) agency(a *directoryv1.Agency) {
	a.Code = p.code("code", a.GetCode())
	p.text("name", a.GetName(), 1, maxName, false)
	if !norm.NFC.IsNormalString(a.GetName()) {
		p.invalid("name is not in NFC")
	}
	p.tier("tier", a.GetTier(), TierCentral)
	if a.GetParentCode() != "" {
		a.ParentCode = p.code("parent_code", a.GetParentCode())
	}
	p.relayID("home_relay_id", a.GetHomeRelayId(), true)
	p.relayID("standby_relay_id", a.GetStandbyRelayId(), true)
	if len(a.GetAliases()) > maxAliases {
		p.invalid("%d aliases, at most %d are allowed", len(a.GetAliases()), maxAliases)
	}
	seen := map[string]bool{a.GetCode(): true}
	for i, alias := range a.GetAliases() {
		alias = p.code(fmt.Sprintf("aliases[%d]", i), alias)
		if seen[alias] && alias != "" {
			p.invalid("aliases[%d] %s stands twice or is the code", i, alias)
		}
		seen[alias] = true
		a.Aliases[i] = alias
	}
	p.hashes("key_hashes", a.GetKeyHashes(), maxKeyHashes)
	if len(a.GetSealingKeys()) > maxSealingKeys {
		p.invalid("%d sealing_keys, at most %d are allowed", len(a.GetSealingKeys()), maxSealingKeys)
	}
	for i, k := range a.GetSealingKeys() {
		p.text(fmt.Sprintf("sealing_keys[%d].suite", i), k.GetSuite(), 1, maxSuite, false)
		if n := len(k.GetPublicKey()); n == 0 || n > maxPublicKey {
			p.invalid("sealing_keys[%d].public_key has %d bytes, 1 to %d are allowed", i, n, maxPublicKey)
		}
	}
}

func (p *problems) relayID(field, id string, optional bool) {
	if id == "" && optional {
		return
	}
	if _, err := ParseRelayID(id); err != nil {
		p.invalid("%s: %v", field, err)
	}
}

func (p *problems) relay(r *directoryv1.Relay) {
	p.relayID("id", r.GetId(), false)
	p.text("region", r.GetRegion(), 1, maxRegion, false)
	host, port, err := net.SplitHostPort(r.GetAddress())
	number, numberErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numberErr != nil || host == "" || number == 0 || len(r.GetAddress()) > maxAddress ||
		strings.ContainsFunc(host, func(c rune) bool { return c <= ' ' || c > '~' }) {
		p.invalid("address %q: host:port with port 1 to 65535", r.GetAddress())
	}
	if _, known := directoryv1.RelayState_name[int32(r.GetState())]; !known {
		p.invalid("state %d is not known", r.GetState())
	}
	if at := r.GetRegisteredAt(); at != nil && !at.IsValid() {
		p.invalid("registered_at: no valid time")
	}
}

func (p *problems) gateway(g *directoryv1.Gateway) {
	p.token("id", g.GetId(), 63, ".-")
	if n := len(g.GetAgencyCodes()); n > maxGatewayCodes {
		p.invalid("%d agency_codes, at most %d are allowed", n, maxGatewayCodes)
	}
	p.hashes("key_hashes", g.GetKeyHashes(), 0)
}

func (p *problems) groupName(field, name string) {
	p.text(field, name, 1, maxGroupName, false)
	if strings.ContainsRune(name, '@') || strings.ContainsFunc(name, unicode.IsSpace) {
		p.invalid("%s %q: without \"@\" and spaces", field, name)
	}
}

func (p *problems) group(g *directoryv1.Group) {
	p.groupName("name", g.GetName())
	if _, _, builtIn := builtInGroup(g.GetName()); builtIn {
		p.invalid("name %q is that of a built-in group", g.GetName())
	}
	for i, s := range g.GetSelectors() {
		p.selector(fmt.Sprintf("selectors[%d]", i), s)
	}
}

func (p *problems) selector(field string, s *directoryv1.Selector) {
	if s.GetCode() != "" {
		s.Code = p.code(field+".code", s.GetCode())
	}
	if s.GetUnder() != "" {
		s.Under = p.code(field+".under", s.GetUnder())
	}
	p.tier(field+".tier", s.GetTier(), 0)
	if s.GetGroup() != "" {
		p.groupName(field+".group", s.GetGroup())
	}
}

func (p *problems) rule(r *directoryv1.Rule) {
	p.token("id", r.GetId(), 63, "-")
	if e := r.GetEffect(); e != directoryv1.Effect_EFFECT_ALLOW && e != directoryv1.Effect_EFFECT_DENY {
		p.invalid("effect: a rule either allows or denies")
	}
	p.selector("from", r.GetFrom())
	p.selector("to", r.GetTo())
	seen := map[exchangev1.Kind]bool{}
	for i, k := range r.GetKinds() {
		if k != exchangev1.Kind_KIND_DOCUMENT && k != exchangev1.Kind_KIND_STATUS {
			p.invalid("kinds[%d] %d: document or status", i, k)
		}
		if seen[k] {
			p.invalid("kinds[%d] stands twice", i)
		}
		seen[k] = true
	}
	p.text("note", r.GetNote(), 0, maxNote, true)
}

func (p *problems) trustRoot(r *directoryv1.TrustRoot) {
	p.hash("sha256", r.GetSha256())
	if !r.GetOutside() || r.GetTrustDomain() != "" {
		p.token("trust_domain", r.GetTrustDomain(), maxTrustDomain, ".-_")
	}
	if n := len(r.GetCertificate()); n == 0 || n > maxCertificate {
		p.invalid("certificate has %d bytes, 1 to %d are allowed", n, maxCertificate)
	}
}

func (p *problems) revocation(r *directoryv1.Revocation) {
	switch n := len(r.GetSerial()); {
	case n == 0 || n > maxSerial:
		p.invalid("serial has %d bytes, 1 to %d are allowed", n, maxSerial)
	case r.GetSerial()[0] == 0:
		p.invalid("serial begins with a zero byte")
	}
	if len(r.GetIssuerKeyHash()) > 0 {
		p.hash("issuer_key_hash", r.GetIssuerKeyHash())
	}
	p.text("reason", r.GetReason(), 0, maxNote, true)
	if at := r.GetAt(); at != nil && !at.IsValid() {
		p.invalid("at: no valid time")
	}
}
