package envelope_test

import (
	"fmt"
	"strings"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

func replacing(ids ...string) *exchangev1.Business {
	b := &exchangev1.Business{Type: exchangev1.BusinessType_BUSINESS_TYPE_REPLACE, Reason: "sai"}
	for _, id := range ids {
		b.Replaces = append(b.Replaces, &exchangev1.Replaced{DocumentId: id})
	}
	return b
}

func updating(changes ...*exchangev1.RecipientChange) *exchangev1.Business {
	return &exchangev1.Business{
		Type: exchangev1.BusinessType_BUSINESS_TYPE_UPDATE, Reason: "thiếu", TargetDocumentId: "1",
		UpdatesRecipients: true, RecipientChanges: changes,
	}
}

func added(code string) *exchangev1.RecipientChange {
	return &exchangev1.RecipientChange{AgencyCode: code, Added: true}
}

func removed(code string) *exchangev1.RecipientChange {
	return &exchangev1.RecipientChange{AgencyCode: code}
}

// Each business type has what it cannot do without, and nothing says two things at
// once.
func TestCheckOfBusiness(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		business *exchangev1.Business
		change   func(*exchangev1.Header)
		fields   []string
	}{
		"new":                              {business: nil},
		"new, without subject":             {change: func(h *exchangev1.Header) { h.Document.Subject = " " }, fields: []string{"header.document.subject"}},
		"new, without description":         {change: func(h *exchangev1.Header) { h.Document = nil }, fields: []string{"header.document"}},
		"revoke, without description":      {business: &exchangev1.Business{Type: 1, Reason: "sai"}, change: func(h *exchangev1.Header) { h.Document = nil }},
		"replace":                          {business: replacing("1", "2")},
		"replace nothing":                  {business: replacing(), fields: []string{"header.business.replaces"}},
		"replace, without subject":         {business: replacing("1"), change: func(h *exchangev1.Header) { h.Document.Subject = "" }, fields: []string{"header.document.subject"}},
		"replace itself":                   {business: replacing("1", good().DocumentId), fields: []string{"header.business.replaces[1].document_id"}},
		"replace at an agency twice":       {business: &exchangev1.Business{Type: 3, Reason: "sai", Replaces: []*exchangev1.Replaced{{DocumentId: "1", AgencyCodes: []string{"H26", "H27", "H26"}}}}, fields: []string{"header.business.replaces[0].agency_codes[2]"}},
		"replace at no agency's code":      {business: &exchangev1.Business{Type: 3, Reason: "sai", Replaces: []*exchangev1.Replaced{{DocumentId: "1", AgencyCodes: []string{"H26/"}}}}, fields: []string{"header.business.replaces[0].agency_codes[0]"}},
		"update of content":                {business: &exchangev1.Business{Type: 2, Reason: "thiếu", UpdatesContent: true}},
		"update of content, not described": {business: &exchangev1.Business{Type: 2, Reason: "thiếu", UpdatesContent: true}, change: func(h *exchangev1.Header) { h.Document = nil }, fields: []string{"header.document"}},
		"update of recipients":             {business: updating(added("H26"), removed("H27")), change: func(h *exchangev1.Header) { h.Document = nil }},
		"update of nothing":                {business: &exchangev1.Business{Type: 2, Reason: "thiếu"}, change: func(h *exchangev1.Header) { h.Parts = nil }, fields: []string{"header.business"}},
		"update of no recipient":           {business: updating(), fields: []string{"header.business.recipient_changes"}},
		"added twice":                      {business: updating(added("H26"), added("H27"), added("H26")), fields: []string{"header.business.recipient_changes[2].agency_code"}},
		"added and removed":                {business: updating(added("H26"), removed("H26")), fields: []string{"header.business.recipient_changes[1].agency_code"}},
		"added without code":               {business: updating(added("")), fields: []string{"header.business.recipient_changes[0].agency_code"}},
		"added by no agency's code":        {business: updating(added(" H26")), fields: []string{"header.business.recipient_changes[0].agency_code"}},
	} {
		h := good()
		if c.business != nil {
			h.Business = c.business
		}
		if c.change != nil {
			c.change(h)
		}
		problems, _ := envelope.Check(h, envelope.Limits{})
		var fields []string
		for _, p := range problems {
			fields = append(fields, p.Field)
		}
		if fmt.Sprint(fields) != fmt.Sprint(c.fields) {
			t.Errorf("%s: got %v, want problems in %v", name, problems, c.fields)
		}
		if name == "added and removed" && !strings.Contains(fmt.Sprint(problems), "both adds and removes H26") {
			t.Errorf("%s: got %v, want the contradiction said", name, problems)
		}
	}
}

// A date that does not exist is named, wherever it stands; the sender's text alone is
// kept, whatever it says.
func TestCheckOfDates(t *testing.T) {
	t.Parallel()
	dates := map[string]func(*exchangev1.Header, *exchangev1.Date){
		"header.document.issued_on":                 func(h *exchangev1.Header, d *exchangev1.Date) { h.Document.IssuedOn = d },
		"header.document.due_on":                    func(h *exchangev1.Header, d *exchangev1.Date) { h.Document.DueOn = d },
		"header.document.response_for[0].issued_on": func(h *exchangev1.Header, d *exchangev1.Date) { h.Document.ResponseFor[0].IssuedOn = d },
	}
	for field, set := range dates {
		for _, c := range []struct {
			date *exchangev1.Date
			sub  string // the field at fault, below the date
			ok   bool
		}{
			{date: nil, ok: true},
			{date: &exchangev1.Date{}, ok: true},
			{date: &exchangev1.Date{Raw: "2014/02/30"}, ok: true},
			{date: &exchangev1.Date{Year: 2024, Month: 2, Day: 29}, ok: true},
			{date: &exchangev1.Date{Year: 2014, Month: 2, Day: 30, Raw: "2014/02/30"}},
			{date: &exchangev1.Date{Year: 2025, Month: 2, Day: 29}},
			{date: &exchangev1.Date{Year: 2025, Month: 4, Day: 31}},
			{date: &exchangev1.Date{Year: 2025, Month: 4}},
			{date: &exchangev1.Date{Day: 3, Month: 4}},
			{date: &exchangev1.Date{Year: 2025, Month: 13, Day: 1}, sub: ".month"},
			{date: &exchangev1.Date{Year: 2025, Month: 1, Day: 32}, sub: ".day"},
		} {
			h := good()
			set(h, c.date)
			problems, _ := envelope.Check(h, envelope.Limits{})
			if c.ok && len(problems) > 0 || !c.ok && (len(problems) != 1 || problems[0].Field != field+c.sub) {
				t.Errorf("%s %v: got %v", field, c.date, problems)
			}
		}
	}
	h := goodStatus()
	h.Status.ResponseFor.IssuedOn = &exchangev1.Date{Year: 2025, Month: 2, Day: 30}
	if problems, _ := envelope.Check(h, envelope.Limits{}); len(problems) != 1 || problems[0].Field != "header.status.response_for.issued_on" {
		t.Errorf("a status: got %v", problems)
	}
}
