package lifecycle

import (
	"fmt"
	"time"
)

// Month is a calendar month in Vietnam time, as statistics count them (QD28
// Art. 11, 14(4)).
type Month struct {
	year  int
	month time.Month
}

const monthForm = "2006-01"

// ParseMonth reads a month written 2026-10.
func ParseMonth(text string) (Month, error) {
	at, err := time.ParseInLocation(monthForm, text, vietnam)
	if err != nil {
		return Month{}, fmt.Errorf("%q is no month such as 2026-10", text)
	}
	return MonthOf(at), nil
}

// MonthOf is the month of an instant.
func MonthOf(t time.Time) Month {
	year, month, _ := t.In(vietnam).Date()
	return Month{year, month}
}

func (m Month) String() string { return m.Begin().Format(monthForm) }

// Begin is the first instant of the month.
func (m Month) Begin() time.Time { return time.Date(m.year, m.month, 1, 0, 0, 0, 0, vietnam) }

// End is the first instant behind the month.
func (m Month) End() time.Time { return time.Date(m.year, m.month+1, 1, 0, 0, 0, 0, vietnam) }
