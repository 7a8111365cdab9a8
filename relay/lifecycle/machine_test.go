package lifecycle_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	. "github.com/truclienthong/truc/relay/lifecycle"
)

var noon = time.Date(2026, 11, 20, 5, 0, 0, 0, time.UTC)

// say is a statement with everything that it needs, n minutes after noon.
func say(what string, n int) Statement {
	at := noon.Add(time.Duration(n) * time.Minute)
	s := Statement{At: at, Heard: at, Note: "vì lý do " + what}
	switch what {
	case "update":
		s.Act, s.By = Updates, Sender
	case "replace":
		s.Act, s.By = Replaces, Sender
	case "revoke":
		s.Act, s.By = AsksRecall, Sender
	case "withdrawn":
		s.Act, s.By = IsWithdrawn, Mesh
	default:
		s.Act, s.Code = ActOf(what), what
		if s.Act == AsksRecall {
			s.By = Sender
		}
	}
	return s
}

// after is the state after statements, a minute apart, and the verdict on the
// last of them.
func after(t *testing.T, said ...string) (State, Verdict) {
	t.Helper()
	var s State
	var v Verdict
	for i, what := range said {
		s, v = s.Next(say(what, i))
	}
	return s, v
}

// Every row of the transitions, from every phase with every code (STANDARD §9).
func TestTransitions(t *testing.T) {
	t.Parallel()
	ways := map[Phase][]string{
		Sent: nil, Arrived: {"01"}, Accepted: {"03"}, Assigned: {"03", "04"}, Processing: {"03", "05"}, Finished: {"03", "06"},
		Returned: {"02"}, Recalled: {"13", "15"},
	}
	const stays = "kept"
	rows := map[Phase]map[string]string{
		Sent:       {"01": "arrived", "02": "returned", "03": "accepted", "04": "assigned", "05": "processing", "06": "finished"},
		Arrived:    {"01": stays, "02": "returned", "03": "accepted", "04": "assigned", "05": "processing", "06": "finished"},
		Accepted:   {"01": stays, "02": "returned", "03": stays, "04": "assigned", "05": "processing", "06": "finished"},
		Assigned:   {"01": stays, "02": stays, "03": stays, "04": "assigned", "05": "processing", "06": "finished"},
		Processing: {"01": stays, "02": stays, "03": stays, "04": "assigned", "05": "processing", "06": "finished"},
		Finished:   {"01": stays, "02": stays, "03": stays, "04": stays, "05": stays, "06": stays},
		Returned:   {"01": stays, "02": stays, "03": stays, "04": stays, "05": stays, "06": stays},
		Recalled:   {"01": stays, "02": stays, "03": stays, "04": stays, "05": stays, "06": stays},
	}
	for from, row := range rows {
		for code, want := range row {
			t.Run(fmt.Sprintf("%s %s", from, code), func(t *testing.T) {
				before, _ := after(t, ways[from]...)
				if before.Phase != from {
					t.Fatalf("%v lead to %s", ways[from], before.Phase)
				}
				got, verdict := after(t, append(ways[from][:len(ways[from]):len(ways[from])], code)...)
				if want == stays {
					if got != before || verdict.Outcome != Kept {
						t.Errorf("state %+v, %s, want it kept", got, verdict.Outcome)
					}
					return
				}
				if got.Phase.String() != want || verdict.Outcome != Moved {
					t.Errorf("state %+v, %s, want %s", got, verdict.Outcome, want)
				}
			})
		}
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		said          []string
		implied, late bool
	}{
		"accepted without having arrived":  {[]string{"03"}, false, false},
		"worked on without acceptance":     {[]string{"01", "05"}, true, false},
		"finished at once":                 {[]string{"06"}, true, false},
		"worked on":                        {[]string{"03", "05", "06"}, false, false},
		"returned":                         {[]string{"01", "02"}, false, false},
		"returned after it was accepted":   {[]string{"03", "02"}, false, true},
		"assigned again after it was once": {[]string{"04", "04"}, true, false},
	} {
		if got, v := after(t, c.said...); got.Implied != c.implied || got.Late != c.late || v.Outcome != Moved {
			t.Errorf("%s: %+v, %s", name, got, v.Outcome)
		}
	}
}

// The races of the package comment, each with its one outcome.
func TestRaces(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		said    []string
		phase   Phase
		asked   Question
		outcome Outcome
		fault   Fault
	}{
		"withdrawn before it was fetched":                    {[]string{"revoke", "withdrawn"}, Recalled, Nothing, Moved, NoFault},
		"fetched before it could be withdrawn":               {[]string{"01", "revoke", "withdrawn"}, Arrived, Recall, Kept, NoFault},
		"recall of what was fetched":                         {[]string{"01", "13"}, Arrived, Recall, Moved, NoFault},
		"recall of what was finished":                        {[]string{"06", "13"}, Finished, Recall, Moved, NoFault},
		"recall agreed":                                      {[]string{"03", "13", "15"}, Recalled, Nothing, Moved, NoFault},
		"recall refused":                                     {[]string{"03", "13", "16"}, Accepted, Nothing, Moved, NoFault},
		"recall refused and asked again":                     {[]string{"03", "13", "16", "13"}, Accepted, Recall, Moved, NoFault},
		"recall, and the work goes on":                       {[]string{"03", "13", "05"}, Processing, Recall, Moved, NoFault},
		"recall, the work goes on, refused":                  {[]string{"03", "13", "05", "16"}, Processing, Nothing, Moved, NoFault},
		"recall, and it is returned":                         {[]string{"01", "13", "02"}, Returned, Nothing, Moved, NoFault},
		"recall twice":                                       {[]string{"01", "13", "revoke"}, Arrived, Recall, Repeat, NoFault},
		"recall, then update":                                {[]string{"01", "13", "update"}, Arrived, Recall, Refused, InRecall},
		"recall, then replacement":                           {[]string{"01", "13", "replace"}, Arrived, Recall, Refused, InRecall},
		"update, then recall":                                {[]string{"01", "update", "13"}, Arrived, Recall, Moved, NoFault},
		"update, crossed with an acceptance":                 {[]string{"01", "update", "03"}, Accepted, Change, Moved, NoFault},
		"update, crossed with an acceptance, agreed":         {[]string{"01", "update", "03", "15"}, Accepted, Nothing, Moved, NoFault},
		"update refused":                                     {[]string{"01", "update", "16"}, Arrived, Nothing, Moved, NoFault},
		"update, and it is returned":                         {[]string{"01", "update", "02"}, Returned, Nothing, Moved, NoFault},
		"update, then a later one":                           {[]string{"01", "update", "replace"}, Arrived, Change, Moved, NoFault},
		"replacement of what was recalled":                   {[]string{"01", "13", "15", "replace"}, Recalled, Nothing, Kept, NoFault},
		"replacement of what was returned":                   {[]string{"02", "replace"}, Returned, Nothing, Kept, NoFault},
		"update of what was recalled":                        {[]string{"13", "15", "update"}, Recalled, Nothing, Refused, Over},
		"recall of what was recalled":                        {[]string{"13", "15", "13"}, Recalled, Nothing, Refused, Over},
		"recall of what was returned":                        {[]string{"02", "13"}, Returned, Nothing, Refused, Over},
		"recall of what the mesh withdrew":                   {[]string{"13", "withdrawn", "13"}, Recalled, Nothing, Refused, Over},
		"acceptance that crossed with an agreed recall":      {[]string{"01", "13", "15", "03"}, Recalled, Nothing, Kept, NoFault},
		"agreement to nothing":                               {[]string{"03", "15"}, Accepted, Nothing, Refused, NotAsked},
		"refusal of nothing":                                 {[]string{"03", "16"}, Accepted, Nothing, Refused, NotAsked},
		"agreement twice":                                    {[]string{"03", "update", "15", "15"}, Accepted, Nothing, Refused, NotAsked},
		"a code that is not in the standard":                 {[]string{"03", "07"}, Accepted, Nothing, Kept, NoFault},
		"a code that is not in the standard, while recalled": {[]string{"03", "13", "99"}, Accepted, Recall, Kept, NoFault},
	} {
		got, v := after(t, c.said...)
		if got.Phase != c.phase || got.Asked != c.asked || v.Outcome != c.outcome || v.Fault != c.fault {
			t.Errorf("%s: %s, asked %s, %s %d; want %s, asked %s, %s %d", name,
				got.Phase, got.Asked, v.Outcome, v.Fault, c.phase, c.asked, c.outcome, c.fault)
		}
	}
}

// Who may say what, and what needs a reason.
func TestFaults(t *testing.T) {
	t.Parallel()
	accepted, _ := after(t, "03", "update")
	for name, c := range map[string]struct {
		said Statement
		want Fault
	}{
		"a sender accepts":                    {Statement{Act: SaysAccepted, By: Sender}, WrongParty},
		"a sender agrees with itself":         {Statement{Act: Agrees, By: Sender}, WrongParty},
		"a recipient asks for a recall":       {Statement{Act: AsksRecall, By: Recipient, Note: "x"}, WrongParty},
		"a recipient updates":                 {Statement{Act: Updates, By: Recipient, Note: "x"}, WrongParty},
		"a recipient withdraws":               {Statement{Act: IsWithdrawn, By: Recipient}, WrongParty},
		"the mesh accepts":                    {Statement{Act: SaysAccepted, By: Mesh}, WrongParty},
		"the mesh says what is not known":     {Statement{Act: Other, Code: "09", By: Mesh}, WrongParty},
		"either of them says 09: recipient":   {Statement{Act: Other, Code: "09", By: Recipient}, NoFault},
		"either of them says 09: sender":      {Statement{Act: Other, Code: "09", By: Sender}, NoFault},
		"returned without a reason":           {Statement{Act: SaysReturned}, NoReason},
		"recalled without a reason":           {Statement{Act: AsksRecall, By: Sender}, NoReason},
		"refused to change without a reason":  {Statement{Act: Disagrees}, NoReason},
		"updated without a reason":            {Statement{Act: Updates, By: Sender}, NoReason},
		"replaced without a reason":           {Statement{Act: Replaces, By: Sender}, NoReason},
		"agreed without a reason, not needed": {Statement{Act: Agrees}, NoFault},
	} {
		after, v := accepted.Next(c.said)
		if v.Fault != c.want || (v.Outcome == Refused) != (c.want != NoFault) {
			t.Errorf("%s: %s, fault %d, want %d", name, v.Outcome, v.Fault, c.want)
		}
		if v.Outcome == Refused && after != accepted {
			t.Errorf("%s: it is refused, and the state is another", name)
		}
	}
}

func TestRepeat(t *testing.T) {
	t.Parallel()
	s, _ := State{}.Next(say("04", 1))
	if again, v := s.Next(say("04", 1)); again != s || v.Outcome != Repeat {
		t.Errorf("the same status again: %+v, %s", again, v.Outcome)
	}
	if again, v := s.Next(say("04", 2)); again.At.Equal(s.At) || v.Outcome != Moved {
		t.Errorf("assigned to somebody else later: %+v, %s", again, v.Outcome)
	}
}

var everything = []string{"01", "02", "03", "04", "05", "06", "07", "13", "15", "16", "update", "replace", "revoke", "withdrawn"}

// Whatever is said, in whatever order it is heard.
func TestProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var all []Statement
		for i, what := range rapid.SliceOfN(rapid.SampledFrom(everything), 0, 12).Draw(t, "said") {
			all = append(all, say(what, i))
		}
		var s State
		for _, said := range all {
			next, v := s.Next(said)
			switch {
			case v.Outcome != Moved && next != s:
				t.Fatalf("%s, and the state is another: %+v, %+v", v.Outcome, s, next)
			case s.Phase.Ended() && next != s:
				t.Fatalf("%s was left: %+v", s.Phase, next)
			case next.Phase.Ended() && next.Asked != Nothing:
				t.Fatalf("%s, and %s is asked", next.Phase, next.Asked)
			case (v.Fault != NoFault) != (v.Outcome == Refused):
				t.Fatalf("%s with fault %d", v.Outcome, v.Fault)
			case next.Phase == Recalled && s.Phase != Recalled && s.Asked != Recall && said.By != Mesh:
				t.Fatalf("recalled without having been asked: %+v by %+v", s, said)
			}
			s = next
		}
		heard := rapid.Permutation(all).Draw(t, "heard")
		if got := Fold(heard); got != s {
			t.Fatalf("heard in another order: %+v, want %+v", got, s)
		}
		if len(heard) > 0 { // and one of them twice
			if got := Fold(append(heard, heard[0])); got.Phase != s.Phase {
				t.Fatalf("heard twice: %+v, want %+v", got, s)
			}
		}
	})
}

func TestActs(t *testing.T) {
	t.Parallel()
	for b, want := range map[exchangev1.BusinessType]Act{
		exchangev1.BusinessType_BUSINESS_TYPE_REVOKE:  AsksRecall,
		exchangev1.BusinessType_BUSINESS_TYPE_UPDATE:  Updates,
		exchangev1.BusinessType_BUSINESS_TYPE_REPLACE: Replaces,
	} {
		if got, ok := ActOfBusiness(b); got != want || !ok {
			t.Errorf("%s is %d, %v", b, got, ok)
		}
	}
	if _, ok := ActOfBusiness(exchangev1.BusinessType_BUSINESS_TYPE_NEW); ok {
		t.Error("a new document is about another one")
	}
}
