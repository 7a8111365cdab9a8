package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// Books is what this relay counts. All calls may run together with everything
// else, and change nothing.
type Books interface {
	// Recount counts again, at one instant, the deliveries of envelopes that
	// were accepted here since, and calls pending for each whose outcome is not
	// known.
	Recount(ctx context.Context, since time.Time, pending func(Pending) error) (*Recount, error)
	// Accepted gives each what is known, at one instant, of every envelope that
	// was accepted here from an instant on, before another: those whose deliveries
	// Recount counts.
	Accepted(ctx context.Context, from, to time.Time, each func(*envelope.Record) error) error
	// Origins lists the ingress relays of others' envelopes that are here.
	Origins() ([]routing.RelayID, error)
	// Origin lists at most max such envelopes of one ingress, behind one of
	// them.
	Origin(ingress routing.RelayID, after envelope.ID, max int) ([]envelope.ID, error)
}

// Pending is a delivery accepted here whose outcome is not known.
type Pending struct {
	ID     envelope.ID
	Agency routing.AgencyCode
	Place  envelope.Place
	// Home is the relay that delivers, as far as this one knows.
	Home routing.RelayID
}

// Recount is what counting again came to.
type Recount struct {
	// Counted is the tally of the records, Kept that of the running counters at
	// the same instant. They are comparable where everything was counted.
	Counted, Kept Tally
	// Findings are what breaks the crash rule.
	Findings []Finding
}

// Tally is what became of the deliveries accepted at a relay.
type Tally struct{ Accepted, Delivered, Expired, Refused, Recalled int64 }

// Finding is one thing that does not add up; ID and Agency are zero where it
// concerns none.
type Finding struct {
	ID      envelope.ID
	Agency  routing.AgencyCode
	Problem string
}

// What one audit tells at most, and how it looks again: documents go on while
// it runs, so what is nowhere at the first look may have been between two
// relays at that moment.
const (
	maxFindings = 1_000
	maxMissing  = 100_000
	looks       = 3
	lookAgain   = time.Second
)

// audit proves that what was accepted at this relay since is all accounted for,
// or names what is not:
//
//   - the deliveries accepted are those delivered, pending, expired, refused and
//     recalled, counted from the records, and the running counters agree;
//   - every delivery that is pending here has its inbox or queue entry, and for
//     every one that is pending elsewhere some relay has custody or knows how it
//     ended;
//   - every envelope that is here because another relay accepted it is
//     remembered by that relay.
//
// A relay that does not answer is named: of what only it can know, nothing is
// proved.
func (l *Ledger) audit(ctx context.Context, books Books, since time.Time) (*adminv1.AuditResponse, error) {
	a := &audit{
		ledger: l, since: since, row: &adminv1.AuditRow{RelayId: string(l.config.Self)},
		silent: make(map[routing.RelayID]bool), missing: make(map[envelope.ID]bool),
	}
	if err := a.count(ctx, books); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if err := a.origins(ctx, books); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	l.config.Logger.Info("audit", "accepted", a.row.GetAccepted(), "pending", a.row.GetPending(),
		"missing", len(a.missing), "findings", len(a.findings), "silent", len(a.silent))
	return a.response(), nil
}

// audit is one audit on its way.
type audit struct {
	ledger *Ledger
	since  time.Time
	row    *adminv1.AuditRow
	// silent are relays that were asked and did not answer; they are not asked
	// again.
	silent   map[routing.RelayID]bool
	missing  map[envelope.ID]bool
	findings []*adminv1.AuditFinding
}

func (a *audit) find(id envelope.ID, agency routing.AgencyCode, format string, args ...any) {
	if len(a.findings) >= maxFindings {
		return
	}
	finding := &adminv1.AuditFinding{
		AgencyCode: string(agency), RelayId: string(a.ledger.config.Self), Problem: fmt.Sprintf(format, args...),
	}
	if !id.IsZero() {
		finding.EnvelopeId = id[:]
	}
	a.findings = append(a.findings, finding)
}

func (a *audit) miss(id envelope.ID, agency routing.AgencyCode, format string, args ...any) {
	if len(a.missing) < maxMissing {
		a.missing[id] = true
	}
	a.find(id, agency, format, args...)
}

// count recounts the books of this relay, and looks for what is pending
// elsewhere.
func (a *audit) count(ctx context.Context, books Books) error {
	search := &search{audit: a}
	recount, err := books.Recount(ctx, a.since, func(p Pending) error {
		a.row.Pending++
		switch p.Place {
		case envelope.InInbox, envelope.InQueue:
			return nil // the recount finds out whether it is there
		}
		return search.add(ctx, claim{id: p.ID, agency: p.Agency, home: p.Home, at: p.Home})
	})
	if err != nil {
		return fmt.Errorf("recount: %w", err)
	}
	counted := recount.Counted
	a.row.Accepted, a.row.Delivered, a.row.Expired = unsigned(counted.Accepted), unsigned(counted.Delivered), unsigned(counted.Expired)
	a.row.Refused, a.row.Recalled = unsigned(counted.Refused), unsigned(counted.Recalled)
	if !Balanced(a.row) {
		a.find(envelope.ID{}, "", "%d deliveries were accepted, and %d delivered, %d pending, %d expired, %d refused, %d recalled",
			a.row.Accepted, a.row.Delivered, a.row.Pending, a.row.Expired, a.row.Refused, a.row.Recalled)
	}
	if a.since.IsZero() && recount.Kept != counted {
		a.find(envelope.ID{}, "", "the counters say %+v, the records %+v", recount.Kept, counted)
	}
	for _, f := range recount.Findings {
		a.find(f.ID, f.Agency, "%s", f.Problem)
	}
	return search.finish(ctx)
}

// Balanced reports whether the sums of a row agree.
func Balanced(r *adminv1.AuditRow) bool {
	return r.GetAccepted() == r.GetDelivered()+r.GetPending()+r.GetExpired()+r.GetRefused()+r.GetRecalled()
}

func unsigned(n int64) uint64 { return uint64(max(n, 0)) }

func (a *audit) response() *adminv1.AuditResponse {
	response := &adminv1.AuditResponse{Rows: []*adminv1.AuditRow{a.row}, Findings: a.findings}
	for id := range a.missing {
		response.MissingEnvelopeIds = append(response.MissingEnvelopeIds, id[:])
	}
	slices.SortFunc(response.MissingEnvelopeIds, slices.Compare)
	for relay := range a.silent {
		response.SilentRelayIds = append(response.SilentRelayIds, string(relay))
	}
	slices.Sort(response.SilentRelayIds)
	return response
}

// pause waits until it is time to look again.
func pause(ctx context.Context) error {
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
