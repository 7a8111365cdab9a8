package ingress

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// maxProblems bounds the answer about a list of recipients that is wrong all
// over; the sum of the rest is given in one more.
const maxProblems = 100

// recipients resolves the header's recipients, aliases and groups, to
// agencies, and names every one that cannot take a document. Those already
// among the problems of the header are not named again.
func (s *Service) recipients(view routing.View, header *exchangev1.Header, problems []envelope.Problem) ([]routing.AgencyCode, []envelope.Problem) {
	if n := len(header.GetRecipients()); n == 0 || n > s.config.Limits.Header.OrDefaults().MaxRecipients {
		return nil, nil // a problem of the header
	}
	named := make(map[string]bool, len(problems))
	for _, problem := range problems {
		named[firstSteps(problem.Field)] = true
	}
	codes, faults := view.Resolve(header.GetRecipients())
	var found []envelope.Problem
	for _, fault := range faults {
		if field := recipientField(fault.Index); !named[field] {
			found = append(found, envelope.Problem{Field: field, Reason: fault.Reason, Description: fault.Description})
		}
	}
	return codes, found
}

// firstSteps cuts a path such as "header.recipients[3].agency.code" after its
// second step.
func firstSteps(field string) string {
	first, rest, _ := strings.Cut(field, ".")
	second, _, _ := strings.Cut(rest, ".")
	return first + "." + second
}

// refuseTooMany counts recipients after groups were resolved.
func (s *Service) refuseTooMany(codes []routing.AgencyCode) error {
	most := s.config.Limits.Header.OrDefaults().MaxRecipients
	switch {
	case len(codes) == 0:
		return refuseField(exchangev1.ErrorReason_ERROR_REASON_NO_RECIPIENT, "header.recipients",
			"resolve to no agency; name at least one")
	case len(codes) > most:
		return refuseField(exchangev1.ErrorReason_ERROR_REASON_TOO_MANY_RECIPIENTS, "header.recipients",
			"resolve to %d agencies, at most %d are allowed; send it in several documents", len(codes), most)
	}
	return nil
}

// refuseForbidden names every recipient to whom no rule lets the sender write.
func refuseForbidden(view routing.View, sender routing.AgencyCode, header *exchangev1.Header, codes []routing.AgencyCode) error {
	forbidden := make(map[routing.AgencyCode]bool)
	for _, code := range codes {
		if !view.Allowed(sender, code, header.GetKind()) {
			forbidden[code] = true
		}
	}
	if len(forbidden) == 0 {
		return nil
	}
	var problems []envelope.Problem
	for i, recipient := range header.GetRecipients() {
		// One by one, to know which entry stands for which agencies; only
		// refusals pay for it.
		members, _ := view.Resolve([]*exchangev1.Recipient{recipient})
		members = slices.DeleteFunc(members, func(code routing.AgencyCode) bool { return !forbidden[code] })
		if len(members) > 0 {
			problems = append(problems, envelope.Problem{
				Field: recipientField(i), Reason: exchangev1.ErrorReason_ERROR_REASON_FORBIDDEN_BY_RULE,
				Description: fmt.Sprintf("no rule lets %s write to %s; ask the operator for a rule or leave them out", sender, list(members)),
			})
		}
	}
	return envelope.RefuseProblems(bounded(problems))
}

// spread groups the recipients by home: those at home here go to their inboxes,
// the others are one duty for each destination relay.
func spread(view routing.View, self routing.RelayID, codes []routing.AgencyCode) ([]routing.AgencyCode, []envelope.Onward, error) {
	byHome := view.Spread(codes)
	if homeless := byHome[""]; len(homeless) > 0 {
		return nil, nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE,
			"no relay is home of %s just now; try again later or tell the operator", list(homeless))
	}
	var onward []envelope.Onward
	for _, home := range slices.Sorted(maps.Keys(byHome)) {
		if home != self {
			onward = append(onward, envelope.Onward{Relay: home, Agencies: byHome[home]})
		}
	}
	return byHome[self], onward, nil
}

func recipientField(i int) string {
	if i < 0 {
		return "header.recipients"
	}
	return fmt.Sprintf("header.recipients[%d]", i)
}

// list writes the first codes out and counts the rest.
func list(codes []routing.AgencyCode) string {
	const shown = 20
	var b strings.Builder
	for i, code := range codes {
		if i == shown {
			fmt.Fprintf(&b, " and %d more", len(codes)-shown)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(code))
	}
	return b.String()
}

func bounded(problems []envelope.Problem) []envelope.Problem {
	if len(problems) <= maxProblems {
		return problems
	}
	rest := envelope.Problem{
		Field: "header", Reason: problems[maxProblems].Reason,
		Description: fmt.Sprintf("%d more problems were found", len(problems)-maxProblems),
	}
	return append(problems[:maxProblems:maxProblems], rest)
}
