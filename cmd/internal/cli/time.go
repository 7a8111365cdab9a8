package cli

import "time"

// Vietnam is the zone of all times that the tools write and of those that they
// read without a zone; the axis keeps it (QD28 Art. 14(4)).
var Vietnam = time.FixedZone("+07", 7*60*60)

// Stamp writes a time as results have it: ISO 8601 in Vietnam time, to the
// millisecond, 2026-10-20T08:00:00.000+07:00; "" for no time.
func Stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(Vietnam).Format("2006-01-02T15:04:05.000Z07:00")
}

// ShowTime writes a time for people, in Vietnam time; "-" for no time.
func ShowTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(Vietnam).Format("2006-01-02 15:04:05")
}
