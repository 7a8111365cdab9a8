package lifecycle

import (
	"fmt"
	"slices"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// The time limits of the law, in Vietnam time (QD28 Art. 14(4)):
//
//   - A document is sent the day it is signed, at the latest the morning of the
//     next working day (QD28 Art. 6; ND30 Art. 18 says the next working day, the
//     earlier end is held to here).
//   - Receipt is confirmed the day it arrives (ND30 Art. 21(2), 22). The article
//     makes no exception for days off: neither does this.
//   - Urgent documents are sent right after they are signed and presented at once
//     (QD28 Art. 6, ND30 Art. 18, 24). The law gives no number: the limits above
//     hold for them too, and the operator sets a delivery target for each lane.

// vietnam is UTC+7 the year round.
var vietnam = time.FixedZone("UTC+7", 7*60*60)

// noon ends the morning: the law does not say when, office hours do.
const noon = 12

// Calendar knows working days: Monday to Friday, but for its holidays. The zero
// value has none: public holidays follow the lunar calendar and are moved by a
// decision for each year (Labour Code Art. 112), so an operator lists them.
type Calendar struct{ off map[date]bool }

type date struct {
	year  int
	month time.Month
	day   int
}

func dateOf(t time.Time) date {
	year, month, day := t.In(vietnam).Date()
	return date{year, month, day}
}

// NewCalendar returns a calendar with these days off, each written 2026-09-02.
func NewCalendar(holidays []string) (Calendar, error) {
	c := Calendar{off: make(map[date]bool, len(holidays))}
	for _, h := range holidays {
		day, err := time.ParseInLocation(time.DateOnly, h, vietnam)
		if err != nil {
			return Calendar{}, fmt.Errorf("holiday %q is no date such as 2026-09-02", h)
		}
		c.off[dateOf(day)] = true
	}
	return c, nil
}

// Works reports whether the day of an instant is a working day.
func (c Calendar) Works(t time.Time) bool {
	weekday := t.In(vietnam).Weekday()
	return weekday != time.Saturday && weekday != time.Sunday && !c.off[dateOf(t)]
}

// maxHolidays bounds the search for a working day, in days.
const maxHolidays = 366

// SendBy is the instant at which a document signed then is sent too late: noon of
// the next working day.
func (c Calendar) SendBy(signed time.Time) time.Time {
	d := dateOf(signed)
	for i := 1; ; i++ {
		at := time.Date(d.year, d.month, d.day+i, noon, 0, 0, 0, vietnam)
		if c.Works(at) || i == maxHolidays {
			return at
		}
	}
}

// AcceptBy is the instant at which receipt of a document that arrived then is
// confirmed too late: the end of that day.
func (Calendar) AcceptBy(arrived time.Time) time.Time {
	d := dateOf(arrived)
	return time.Date(d.year, d.month, d.day+1, 0, 0, 0, 0, vietnam)
}

// Keeping is whether a limit was kept.
type Keeping uint8

// The outcomes. Unknown: the limit does not run, or runs still.
const (
	Unknown Keeping = iota
	OnTime
	TooLate
)

var keepingNames = [...]string{"unknown", "on time", "late"}

func (k Keeping) String() string { return keepingNames[k] }

// keeping holds an instant against a limit.
func keeping(at, limit time.Time) Keeping {
	if at.Before(limit) {
		return OnTime
	}
	return TooLate
}

// Sent is how long after its signature a document was handed over, and whether
// that kept the limit. Without a time of signature (Header.signed_at) the date of
// issue stands for it, from its beginning: the limit hangs on the day alone. Only
// documents are signed; for a status, or where neither is given or can be read, it
// is Unknown. A signature from the future is on time, and took nothing.
func (c Calendar) Sent(h *exchangev1.Header, accepted time.Time) (Keeping, time.Duration) {
	signed, ok := SignedAt(h)
	if !ok {
		return Unknown, 0
	}
	return keeping(accepted, c.SendBy(signed)), max(accepted.Sub(signed), 0)
}

// SignedAt is when a document was signed, as its header says: to the day, where
// it has only a date of issue.
func SignedAt(h *exchangev1.Header) (time.Time, bool) {
	if h.GetKind() != exchangev1.Kind_KIND_DOCUMENT {
		return time.Time{}, false
	}
	if at := h.GetSignedAt(); at.IsValid() {
		return at.AsTime(), true
	}
	d := h.GetDocument().GetIssuedOn()
	if d.GetYear() < 1 {
		return time.Time{}, false
	}
	day := time.Date(int(d.GetYear()), time.Month(d.GetMonth()), int(d.GetDay()), 0, 0, 0, 0, vietnam)
	// Dates such as 2014/02/30 are met in the field.
	if dateOf(day) != (date{int(d.GetYear()), time.Month(d.GetMonth()), int(d.GetDay())}) {
		return time.Time{}, false
	}
	return day, true
}

// Accepted is how long after its arrival the receipt of a document was confirmed
// at one recipient, and whether that kept the limit. Arrived is when the
// recipient's connector had made it durable; zero: it has not. What confirms is the
// first statement of the recipient that says it was seen: 01 to 06, by when a
// relay accepted it. A document that nobody confirmed is TooLate once its limit
// is over, and Unknown until then; one that was taken back is Unknown.
func (c Calendar) Accepted(life *Life, arrived, now time.Time) (Keeping, time.Duration) {
	if arrived.IsZero() {
		return Unknown, 0
	}
	limit := c.AcceptBy(arrived)
	if at, ok := life.AcceptedAt(); ok {
		return keeping(at, limit), max(at.Sub(arrived), 0)
	}
	if life.State().Phase == Recalled || now.Before(limit) || life != nil && life.Base.Phase != Sent {
		return Unknown, 0
	}
	return TooLate, now.Sub(arrived)
}

// AcceptedAt is when the recipient first said that it has the document; false:
// it never did, or its words are no longer kept.
func (l *Life) AcceptedAt() (time.Time, bool) {
	if l == nil || l.Base.Phase != Sent {
		return time.Time{}, false
	}
	i := slices.IndexFunc(l.Said, func(h Heard) bool { return h.By == Recipient && confirms(h.Act) })
	if i < 0 {
		return time.Time{}, false
	}
	return l.Said[i].Heard, true
}

func confirms(a Act) bool { return a >= SaysArrived && a <= SaysFinished }
