package routing

import (
	"fmt"
	"slices"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// Fault is what is wrong with one recipient.
type Fault struct {
	// Index of the recipient; -1: the list as a whole.
	Index  int
	Reason exchangev1.ErrorReason
	// Description says what was found and what to do, for people.
	Description string
}

// Resolve turns recipients into the codes of agencies, each once, sorted, and
// names every recipient that is at fault; where there are faults, the codes
// are those of the rest. A suspended agency is a fault where it is named; from
// a group it is left out, so that one of them does not stop a circular. How
// many recipients are allowed is the caller's to ask.
func (v View) Resolve(recipients []*exchangev1.Recipient) ([]AgencyCode, []Fault) {
	if len(recipients) == 0 {
		return nil, []Fault{{-1, exchangev1.ErrorReason_ERROR_REASON_NO_RECIPIENT, "no recipient is named"}}
	}
	var faults []Fault
	found := map[AgencyCode]bool{}
	for i, r := range recipients {
		fault := func(reason exchangev1.ErrorReason, format string, args ...any) {
			faults = append(faults, Fault{i, reason, fmt.Sprintf(format, args...)})
		}
		switch to := r.GetTo().(type) {
		case *exchangev1.Recipient_Agency:
			code, err := ParseAgencyCode(to.Agency.GetCode())
			if err != nil {
				fault(invalidField, "%v", err)
				continue
			}
			switch a, ok := v.Agency(code); {
			case !ok:
				fault(exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT,
					"agency %s is not in the directory: check the code", code)
			case a.GetSuspended():
				fault(exchangev1.ErrorReason_ERROR_REASON_SUSPENDED_RECIPIENT,
					"agency %s takes no documents just now: leave it out or try later", a.GetCode())
			default:
				found[AgencyCode(a.GetCode())] = true
			}
		case *exchangev1.Recipient_Group:
			if reason, description := v.addGroup(found, to.Group); reason != 0 {
				fault(reason, "%s", description)
			}
		default:
			fault(invalidField, "recipient is neither an agency nor a group")
		}
	}
	codes := make([]AgencyCode, 0, len(found))
	for code := range found {
		codes = append(codes, code)
	}
	slices.Sort(codes)
	return codes, faults
}

func (v View) addGroup(found map[AgencyCode]bool, name string) (exchangev1.ErrorReason, string) {
	var p problems
	if p.groupName("group", name); p.found() {
		return invalidField, p.err().Error()
	}
	if !v.s.hasGroup(name) {
		return exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT,
			fmt.Sprintf("group %s is not in the directory: check its name", name)
	}
	taking := 0
	for _, e := range v.s.members(name) {
		if !e.GetSuspended() {
			found[AgencyCode(e.GetCode())] = true
			taking++
		}
	}
	if taking == 0 {
		return exchangev1.ErrorReason_ERROR_REASON_NO_RECIPIENT,
			fmt.Sprintf("group %s has no agency that takes documents just now", name)
	}
	return 0, ""
}

// Spread groups agencies by their home relay, codes in the order given. Those
// that are not in the directory (any more) come under the empty RelayID.
func (v View) Spread(codes []AgencyCode) map[RelayID][]AgencyCode {
	out := map[RelayID][]AgencyCode{}
	for _, code := range codes {
		a, ok := v.Agency(code)
		if !ok {
			out[""] = append(out[""], code)
			continue
		}
		home := RelayID(a.GetHomeRelayId())
		out[home] = append(out[home], AgencyCode(a.GetCode()))
	}
	return out
}

// Allowed reports whether an agency may write to another with that kind of
// envelope: some rule allows it and none denies it. Codes may be aliases; an
// agency that is not in the directory may neither write nor be written to.
func (v View) Allowed(from, to AgencyCode, kind exchangev1.Kind) bool {
	sender, recipient := v.s.lookup(string(from)), v.s.lookup(string(to))
	if sender == nil || recipient == nil {
		return false
	}
	allowed := false
	for _, r := range v.s.rules {
		denies := r.GetEffect() == directoryv1.Effect_EFFECT_DENY
		if allowed && !denies || len(r.GetKinds()) > 0 && !slices.Contains(r.GetKinds(), kind) {
			continue
		}
		if v.s.matches(r.GetFrom(), sender) && v.s.matches(r.GetTo(), recipient) {
			if denies {
				return false
			}
			allowed = true
		}
	}
	return allowed
}
