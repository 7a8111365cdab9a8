package lifecycle_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/lifecycle"
)

// local reads an instant as it is written: with a zone, or in Vietnam time.
func local(t *testing.T, s string) time.Time {
	t.Helper()
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return at
	}
	at, err := time.ParseInLocation("2006-01-02 15:04:05", s, time.FixedZone("", 7*60*60))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func calendar(t *testing.T, holidays ...string) lifecycle.Calendar {
	t.Helper()
	c, err := lifecycle.NewCalendar(holidays)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSendBy(t *testing.T) {
	for _, test := range []struct {
		name, signed string
		holidays     []string
		want         string
	}{
		{"Monday morning", "2026-11-23 08:00:00", nil, "2026-11-24 12:00:00"},
		{"the last second of Monday", "2026-11-23 23:59:59", nil, "2026-11-24 12:00:00"},
		{"midnight in Vietnam begins Tuesday", "2026-11-24 00:00:00", nil, "2026-11-25 12:00:00"},
		{"Monday in UTC, Tuesday in Vietnam", "2026-11-23T17:00:00Z", nil, "2026-11-25 12:00:00"},
		{"Monday in UTC and in Vietnam", "2026-11-23T16:59:59Z", nil, "2026-11-24 12:00:00"},
		{"Friday evening", "2026-11-27 19:30:00", nil, "2026-11-30 12:00:00"},
		{"Friday evening in UTC is Saturday", "2026-11-27T20:00:00Z", nil, "2026-11-30 12:00:00"},
		{"Saturday", "2026-11-28 09:00:00", nil, "2026-11-30 12:00:00"},
		{"Sunday in UTC is Monday", "2026-11-29T18:00:00Z", nil, "2026-12-01 12:00:00"},
		{"the day before a holiday", "2026-09-01 16:00:00", []string{"2026-09-02"}, "2026-09-03 12:00:00"},
		{"on a holiday", "2026-09-02 10:00:00", []string{"2026-09-02"}, "2026-09-03 12:00:00"},
		{"a holiday that leads into a weekend", "2026-12-31 10:00:00", []string{"2027-01-01"}, "2027-01-04 12:00:00"},
		{"a week of holidays", "2026-02-13 17:00:00",
			[]string{"2026-02-16", "2026-02-17", "2026-02-18", "2026-02-19", "2026-02-20"}, "2026-02-23 12:00:00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, want := calendar(t, test.holidays...).SendBy(local(t, test.signed)), local(t, test.want); !got.Equal(want) {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestAcceptBy(t *testing.T) {
	for _, test := range []struct{ name, arrived, want string }{
		{"in the morning", "2026-11-23 08:00:00", "2026-11-24 00:00:00"},
		{"in the last second", "2026-11-23 23:59:59", "2026-11-24 00:00:00"},
		{"at midnight", "2026-11-24 00:00:00", "2026-11-25 00:00:00"},
		{"after midnight in Vietnam, before in UTC", "2026-11-23T18:00:00Z", "2026-11-25 00:00:00"},
		{"on a Saturday", "2026-11-28 10:00:00", "2026-11-29 00:00:00"},
		{"on the last day of the year", "2026-12-31 10:00:00", "2027-01-01 00:00:00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, want := calendar(t).AcceptBy(local(t, test.arrived)), local(t, test.want); !got.Equal(want) {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestHolidaysAreDates(t *testing.T) {
	for _, bad := range []string{"", "2026-02-30", "02/09/2026", "2026-09-02 10:00"} {
		if _, err := lifecycle.NewCalendar([]string{bad}); err == nil {
			t.Errorf("holiday %q was taken", bad)
		}
	}
	// More days off than there are in a year must not be searched for ever.
	var all []string
	first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 800 {
		all = append(all, first.AddDate(0, 0, i).Format(time.DateOnly))
	}
	if got := calendar(t, all...).SendBy(first); got.Year() != 2027 {
		t.Errorf("no working day: got %s", got)
	}
}

func TestSent(t *testing.T) {
	signed := func(at string) *exchangev1.Header {
		return &exchangev1.Header{Kind: exchangev1.Kind_KIND_DOCUMENT, SignedAt: timestamppb.New(local(t, at))}
	}
	issued := func(y, m, d int32) *exchangev1.Header {
		return &exchangev1.Header{Kind: exchangev1.Kind_KIND_DOCUMENT,
			Document: &exchangev1.Document{IssuedOn: &exchangev1.Date{Year: y, Month: m, Day: d}}}
	}
	both := issued(2026, 11, 23)
	both.SignedAt = timestamppb.New(local(t, "2026-11-25 09:00:00"))
	status := signed("2026-11-23 09:00:00")
	status.Kind = exchangev1.Kind_KIND_STATUS
	unreadable := signed("2026-11-23 09:00:00")
	unreadable.SignedAt = &timestamppb.Timestamp{Seconds: 1 << 60}
	for _, test := range []struct {
		name     string
		header   *exchangev1.Header
		accepted string
		want     lifecycle.Keeping
		took     time.Duration
	}{
		{"the same hour", signed("2026-11-23 09:00:00"), "2026-11-23 10:00:00", lifecycle.OnTime, time.Hour},
		{"the next morning", signed("2026-11-23 09:00:00"), "2026-11-24 11:59:59", lifecycle.OnTime, 27*time.Hour - time.Second},
		{"the next noon", signed("2026-11-23 09:00:00"), "2026-11-24 12:00:00", lifecycle.TooLate, 27 * time.Hour},
		{"over the weekend", signed("2026-11-27 17:00:00"), "2026-11-30 08:00:00", lifecycle.OnTime, 63 * time.Hour},
		{"by the date of issue", issued(2026, 11, 23), "2026-11-24 11:00:00", lifecycle.OnTime, 35 * time.Hour},
		{"by the date of issue, late", issued(2026, 11, 23), "2026-11-25 08:00:00", lifecycle.TooLate, 56 * time.Hour},
		{"the signature counts before the date", both, "2026-11-25 10:00:00", lifecycle.OnTime, time.Hour},
		{"signed in the future", signed("2026-11-23 09:00:00"), "2026-11-20 10:00:00", lifecycle.OnTime, 0},
		{"nothing is said", &exchangev1.Header{Kind: exchangev1.Kind_KIND_DOCUMENT}, "2026-11-23 10:00:00", lifecycle.Unknown, 0},
		{"no such day", issued(2014, 2, 30), "2026-11-23 10:00:00", lifecycle.Unknown, 0},
		{"a text that is no date", issued(0, 0, 0), "2026-11-23 10:00:00", lifecycle.Unknown, 0},
		{"no such instant", unreadable, "2026-11-23 10:00:00", lifecycle.Unknown, 0},
		{"a status", status, "2026-11-23 10:00:00", lifecycle.Unknown, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, took := calendar(t).Sent(test.header, local(t, test.accepted))
			if got != test.want || took != test.took {
				t.Errorf("got %s, %s, want %s, %s", got, took, test.want, test.took)
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	said := func(codes ...string) *lifecycle.Life {
		l := new(lifecycle.Life)
		for i := 0; i < len(codes); i += 2 {
			at := local(t, codes[i+1])
			s := lifecycle.Statement{Act: lifecycle.ActOf(codes[i]), Code: codes[i], At: at, Heard: at, Note: "vì"}
			s.By = lifecycle.Speaker(s.Act)
			l.Hear(lifecycle.Heard{Statement: s, Source: [16]byte{byte(i + 1)}})
		}
		return l
	}
	old := said("03", "2026-11-23 09:00:00")
	old.Base, old.Said, old.Dropped = old.State(), nil, 1
	const arrived, morning, evening = "2026-11-23 09:00:00", "2026-11-23 10:00:00", "2026-11-23 23:59:59"
	for _, test := range []struct {
		name         string
		life         *lifecycle.Life
		arrived, now string
		want         lifecycle.Keeping
		took         time.Duration
	}{
		{"01 in the morning", said("01", morning), arrived, "2026-12-01 00:00:00", lifecycle.OnTime, time.Hour},
		{"03 in the last second", said("03", evening), arrived, "2026-12-01 00:00:00", lifecycle.OnTime, 15*time.Hour - time.Second},
		{"03 the next day", said("03", "2026-11-24 00:00:00"), arrived, "2026-12-01 00:00:00", lifecycle.TooLate, 15 * time.Hour},
		{"the first counts", said("01", morning, "03", "2026-11-25 09:00:00"), arrived, "2026-12-01 00:00:00", lifecycle.OnTime, time.Hour},
		{"05 implies it", said("05", morning), arrived, "2026-12-01 00:00:00", lifecycle.OnTime, time.Hour},
		{"returned is an answer", said("02", morning), arrived, "2026-12-01 00:00:00", lifecycle.OnTime, time.Hour},
		{"what the sender asks is none", said("13", morning), arrived, "2026-12-01 00:00:00", lifecycle.TooLate, 183 * time.Hour},
		{"nothing was said, today", nil, arrived, evening, lifecycle.Unknown, 0},
		{"nothing was said, and the day is over", nil, arrived, "2026-11-24 00:00:00", lifecycle.TooLate, 15 * time.Hour},
		{"it has not arrived", nil, "", "2026-12-01 00:00:00", lifecycle.Unknown, 0},
		{"taken back", said("13", morning, "15", "2026-11-23 11:00:00"), arrived, "2026-12-01 00:00:00", lifecycle.Unknown, 0},
		{"what was said is no longer kept", old, arrived, "2026-12-01 00:00:00", lifecycle.Unknown, 0},
		{"said before the arrival was known", said("01", "2026-11-23 08:59:59"), arrived, "2026-12-01 00:00:00", lifecycle.OnTime, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var at time.Time
			if test.arrived != "" {
				at = local(t, test.arrived)
			}
			got, took := calendar(t).Accepted(test.life, at, local(t, test.now))
			if got != test.want || took != test.took {
				t.Errorf("got %s, %s, want %s, %s", got, took, test.want, test.took)
			}
		})
	}
}
