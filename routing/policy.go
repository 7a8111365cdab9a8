package routing

import (
	"fmt"
	"slices"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// codes replaces aliases by codes, sorts, and refuses what is unknown or
// stands twice.
func (t *tx) codes(p *problems, field string, list []string) []string {
	out := make([]string, 0, len(list))
	seen := make(map[string]bool, len(list))
	for i, name := range list {
		code, err := ParseAgencyCode(name)
		if err != nil {
			p.invalid("%s[%d]: %v", field, i, err)
			continue
		}
		e := t.lookup(string(code))
		switch {
		case e == nil:
			p.add(notFound, "%s[%d]: agency %s is not in the directory", field, i, code)
		case seen[e.GetCode()]:
			p.invalid("%s[%d]: agency %s stands twice", field, i, e.GetCode())
		default:
			seen[e.GetCode()] = true
			out = append(out, e.GetCode())
		}
	}
	slices.Sort(out)
	return out
}

// checkSelector asks that what a selector names exists, and replaces aliases
// by codes. A group may name itself: it is about to exist.
func (t *tx) checkSelector(p *problems, field string, s *directoryv1.Selector, self string) {
	for _, name := range []*string{&s.Code, &s.Under} {
		if *name == "" {
			continue
		}
		if e := t.lookup(*name); e != nil {
			*name = e.GetCode()
		} else {
			p.add(notFound, "%s: agency %s is not in the directory", field, *name)
		}
	}
	group := s.GetGroup()
	if group == "" || group == self || t.base.groups[group] != nil {
		return
	}
	_, under, builtIn := builtInGroup(group)
	if !builtIn || under != "" && t.lookup(under) == nil {
		p.add(notFound, "%s: group %s is not in the directory", field, group)
	}
}

func (t *tx) applySetGroup(c *directoryv1.SetGroup) error {
	g := c.GetGroup()
	if g == nil {
		return refuse(invalidField, "group is missing")
	}
	for i := range g.GetSelectors() {
		g.Selectors[i] = orAny(g.Selectors[i])
	}
	var p problems
	if p.group(g); p.found() {
		return p.err()
	}
	g.AgencyCodes = t.codes(&p, "agency_codes", g.GetAgencyCodes())
	for i, s := range g.GetSelectors() {
		t.checkSelector(&p, fmt.Sprintf("selectors[%d]", i), s, g.GetName())
	}
	if p.found() {
		return p.err()
	}
	g.Version = t.version
	t.insert(groupTable, g)
	return nil
}

// applyRemoveGroup refuses while a rule or another group selects by it: a rule
// that denies would fall silent with its group.
func (t *tx) applyRemoveGroup(c *directoryv1.RemoveGroup) error {
	g := t.base.groups[c.GetName()]
	if g == nil {
		return refuse(notFound, "group %q is not in the directory", c.GetName())
	}
	for _, r := range t.base.rules {
		if r.GetFrom().GetGroup() == g.GetName() || r.GetTo().GetGroup() == g.GetName() {
			return refuse(conflict, "rule %s names group %s: change it first", r.GetId(), g.GetName())
		}
	}
	for _, other := range sortedValues(t.base.groups) {
		names := slices.ContainsFunc(other.GetSelectors(), func(s *directoryv1.Selector) bool {
			return s.GetGroup() == g.GetName()
		})
		if names && other != g {
			return refuse(conflict, "group %s names group %s: change it first", other.GetName(), g.GetName())
		}
	}
	t.remove(groupTable, g)
	return nil
}

func (t *tx) applyPutRule(c *directoryv1.PutRule) error {
	r := c.GetRule()
	if r == nil {
		return refuse(invalidField, "rule is missing")
	}
	r.From, r.To = orAny(r.GetFrom()), orAny(r.GetTo())
	var p problems
	if p.rule(r); p.found() {
		return p.err()
	}
	t.checkSelector(&p, "from", r.GetFrom(), "")
	t.checkSelector(&p, "to", r.GetTo(), "")
	if p.found() {
		return p.err()
	}
	t.putRule(r)
	return nil
}

// orAny reads an absent selector as one without conditions.
func orAny(s *directoryv1.Selector) *directoryv1.Selector {
	if s == nil {
		return new(directoryv1.Selector)
	}
	return s
}

func (t *tx) applyRemoveRule(c *directoryv1.RemoveRule) error {
	r, ok := first[*directoryv1.Rule](t.rows, ruleTable, c.GetId())
	if !ok {
		return refuse(notFound, "rule %q is not in the directory", c.GetId())
	}
	t.remove(ruleTable, r)
	return nil
}

func (t *tx) applyPutGateway(c *directoryv1.PutGateway) error {
	g := c.GetGateway()
	if g == nil {
		return refuse(invalidField, "gateway is missing")
	}
	var p problems
	if p.gateway(g); p.found() {
		return p.err()
	}
	h := holder{"gateway", g.GetId()}
	g.AgencyCodes = t.codes(&p, "agency_codes", g.GetAgencyCodes())
	t.checkKeys(&p, h, g.GetKeyHashes())
	if p.found() {
		return p.err()
	}
	t.bind(h, t.base.gateways[g.GetId()].GetKeyHashes(), g.GetKeyHashes())
	g.Version = t.version
	t.insert(gatewayTable, g)
	return nil
}

func (t *tx) applyRemoveGateway(c *directoryv1.RemoveGateway) error {
	g := t.base.gateways[c.GetId()]
	if g == nil {
		return refuse(notFound, "gateway %q is not in the directory", c.GetId())
	}
	t.bind(holder{}, g.GetKeyHashes(), nil)
	t.remove(gatewayTable, g)
	return nil
}
