package ledger

import (
	"cmp"
	"fmt"
	"slices"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
)

// Keys that are no agency, tier or kind of ND30 Art. 7.
const (
	// KeyStatus are status messages, among the kinds.
	KeyStatus = "status"
	// KeyOther are documents of none of the 29 kinds.
	KeyOther = "other"
	// KeyUnknown are agencies that the directory does not know any more, among the
	// tiers.
	KeyUnknown = "?"
)

const phases = int(lifecycle.Recalled) + 1

func newRow(key string) *adminv1.StatsRow {
	return &adminv1.StatsRow{
		Key: key, ByPriority: make([]uint64, len(envelope.LaneOrder)), ByPhase: make([]uint64, phases),
		Statuses: new(adminv1.StatsStatuses),
	}
}

// number is one count of a row, with its name.
type number struct {
	name  string
	count *uint64
}

// numbers are the counts of a row that have a name of their own; statuses must be
// there.
func numbers(r *adminv1.StatsRow) []number {
	s := r.GetStatuses()
	return []number{
		{"sent", &r.Sent}, {"digitally signed", &r.DigitallySigned}, {"on time", &r.OnTime}, {"late", &r.Late},
		{"deliveries", &r.Deliveries}, {"delivered", &r.Delivered}, {"pending", &r.Pending}, {"expired", &r.Expired},
		{"refused", &r.Refused}, {"recalled", &r.Recalled}, {"addressed", &r.Addressed}, {"received", &r.Received},
		{"accepted on time", &r.AcceptedOnTime}, {"accepted late", &r.AcceptedLate},
		{"statuses sent", &s.Sent}, {"deliveries of statuses", &s.Deliveries}, {"statuses delivered", &s.Delivered},
		{"statuses pending", &s.Pending}, {"statuses expired", &s.Expired}, {"statuses refused", &s.Refused},
		{"statuses recalled", &s.Recalled}, {"statuses addressed", &s.Addressed}, {"statuses received", &s.Received},
	}
}

// addRow adds a row to another; that of another release may lack some counts.
func addRow(sum, r *adminv1.StatsRow) {
	if r.Statuses == nil {
		r.Statuses = new(adminv1.StatsStatuses)
	}
	from := numbers(r)
	for i, n := range numbers(sum) {
		*n.count += *from[i].count
	}
	sum.ByPriority = addList(sum.ByPriority, r.GetByPriority())
	sum.ByPhase = addList(sum.ByPhase, r.GetByPhase())
}

func addList(sum, list []uint64) []uint64 {
	for len(sum) < len(list) {
		sum = append(sum, 0)
	}
	for i, n := range list {
		sum[i] += n
	}
	return sum
}

// outcomeOf is the count of a row's deliveries that ended so, of documents or of
// statuses.
func outcomeOf(r *adminv1.StatsRow, document bool, o envelope.Outcome) *uint64 {
	s := r.GetStatuses()
	ofDocuments := [...]*uint64{&r.Pending, &r.Delivered, &r.Expired, &r.Refused, &r.Recalled}
	ofStatuses := [...]*uint64{&s.Pending, &s.Delivered, &s.Expired, &s.Refused, &s.Recalled}
	if document {
		return ofDocuments[o]
	}
	return ofStatuses[o]
}

// sorted puts rows into the order of their keys: kinds as ND30 Art. 7 has them, all
// others as they are written.
func sorted(by string, rows []*adminv1.StatsRow) {
	slices.SortFunc(rows, func(a, b *adminv1.StatsRow) int {
		if by == ByKind {
			return cmp.Compare(kindPlace(a.GetKey()), kindPlace(b.GetKey()))
		}
		return cmp.Compare(keyPlace(a.GetKey()), keyPlace(b.GetKey()))
	})
}

// keyPlace puts what is not known behind everything else.
func keyPlace(key string) string {
	if key == KeyUnknown {
		return "\xff"
	}
	return key
}

func kindPlace(key string) int {
	switch key {
	case KeyOther:
		return envelope.DocumentKinds + 1
	case KeyStatus:
		return envelope.DocumentKinds + 2
	}
	return int(envelope.KindNamed(key))
}

// Differences says what of statistics does not add up; nothing, if all of it does:
// the rows, and the relays, come to the total, the documents to their priorities,
// and the deliveries to what became of them at both ends.
func Differences(s *adminv1.StatsResponse) []string {
	var wrong []string
	differ := func(what string, got, want uint64) {
		if got != want {
			wrong = append(wrong, fmt.Sprintf("%s come to %d, not %d", what, got, want))
		}
	}
	total := newRow("")
	if s.GetTotal() != nil {
		addRow(total, s.GetTotal())
	}
	for _, table := range []struct {
		name string
		rows []*adminv1.StatsRow
	}{{"rows", s.GetRows()}, {"relays", s.GetRelays()}} {
		sum := newRow("")
		for _, r := range table.rows {
			addRow(sum, r)
		}
		want := numbers(total)
		for i, n := range numbers(sum) {
			differ(table.name+": "+n.name, *n.count, *want[i].count)
		}
		for i, n := range addList(sum.ByPriority, nil) {
			differ(fmt.Sprintf("%s: documents of priority %d", table.name, i), n, at(total.ByPriority, i))
		}
		for i, n := range addList(sum.ByPhase, nil) {
			differ(fmt.Sprintf("%s: documents in phase %d", table.name, i), n, at(total.ByPhase, i))
		}
	}
	t, st := total, total.Statuses
	differ("priorities", sumOf(t.ByPriority...), t.Sent)
	differ("outcomes", sumOf(t.Delivered, t.Pending, t.Expired, t.Refused, t.Recalled), t.Deliveries)
	differ("addressed", t.Addressed, t.Deliveries)
	differ("received", t.Received, t.Delivered)
	differ("phases", sumOf(t.ByPhase...), t.Addressed)
	differ("outcomes of statuses", sumOf(st.Delivered, st.Pending, st.Expired, st.Refused, st.Recalled), st.Deliveries)
	differ("statuses addressed", st.Addressed, st.Deliveries)
	differ("statuses received", st.Received, st.Delivered)
	return wrong
}

func at(list []uint64, i int) uint64 {
	if i < len(list) {
		return list[i]
	}
	return 0
}

func sumOf(list ...uint64) (n uint64) {
	for _, v := range list {
		n += v
	}
	return n
}
