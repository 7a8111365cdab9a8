package keeper

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

const (
	done = exchangev1.TransportStatus_TRANSPORT_STATUS_DONE
	fail = exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL

	expired  = exchangev1.ErrorReason_ERROR_REASON_EXPIRED
	notFound = exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND
)

// verdict is what follows for one envelope from what a holder said of it.
type verdict struct {
	*matter
	answer      *answer
	settlements []envelope.Settlement
	routes      routes
	// doubts are deliveries that the holder does not have; their homes are asked.
	doubts map[routing.RelayID][]*envelope.Delivery
	// staying are those that are still believed to be there, or by way of there:
	// with the word of the holder, and without.
	staying, uncertain int
	// orphaned of the latter were believed to be at the holder itself.
	orphaned bool
}

// forget reports whether the relay is to be forgotten as a holder: it has not
// the content, and nothing is believed to be there.
func (v *verdict) forget() bool { return !v.answer.holds && v.staying+v.uncertain == 0 }

func (v *verdict) finding(holder routing.RelayID) finding {
	switch {
	case v.orphaned, v.routes.resent > 0:
		return lost
	case v.uncertain > 0:
		return doubted
	}
	return confirmed
}

// judge decides what an answer means, where it needs no other relay.
func (r *review) judge(m *matter, a *answer) *verdict {
	v := &verdict{matter: m, answer: a, doubts: make(map[routing.RelayID][]*envelope.Delivery)}
	for _, d := range m.concerned {
		there := d.Home == r.relay
		switch place := a.place(d.Agency); {
		case place == relayv1.Place_PLACE_SETTLED && r.believes(r.relay, d):
			v.settle(r.k, d, a)
		case place == relayv1.Place_PLACE_INBOX && !there:
			// It became home on the way.
			v.routes.elsewhere(d, r.relay)
			v.staying++
		case place == relayv1.Place_PLACE_INBOX, place == relayv1.Place_PLACE_QUEUE:
			v.staying++
		case !a.known, there && (place == relayv1.Place_PLACE_UNSPECIFIED || place == relayv1.Place_PLACE_KEPT):
			// It had custody, and lost it.
			r.again(v, d)
		default:
			r.doubt(v, d)
		}
	}
	return v
}

// believes reports whether a relay is one that knows how a delivery ended: it is
// the recipient's home now, or was when the delivery went there.
func (r *review) believes(relay routing.RelayID, d *envelope.Delivery) bool {
	return relay == d.Home || relay == r.home(d.Agency)
}

func (v *verdict) settle(k *Keeper, d *envelope.Delivery, a *answer) {
	end := a.standings[d.Agency].GetDelivery()
	s := envelope.Settlement{
		ID: v.record.ID, Agency: d.Agency, Transport: end.GetTransport(),
		Reason: end.GetReason(), Note: end.GetNote(), At: end.GetUpdatedAt().AsTime(),
	}
	if !end.GetUpdatedAt().IsValid() || !envelope.Keepable(s.At) || s.At.Unix() <= 0 {
		s.At = k.Clock()
	}
	switch {
	case s.Transport == done:
		s.Reason, s.Note = 0, ""
	case s.Transport != fail:
		v.uncertain++ // an end that this release does not know
		return
	}
	v.settlements = append(v.settlements, s)
}

// home returns the recipient's home, "" where the directory has none.
func (r *review) home(code routing.AgencyCode) routing.RelayID { return homeOf(r.view, code) }

func homeOf(view routing.View, code routing.AgencyCode) routing.RelayID {
	agency, _ := view.Agency(code)
	return routing.RelayID(agency.GetHomeRelayId())
}

// again makes a delivery a duty of this relay again. One without a home stays
// where it is believed to be.
func (r *review) again(v *verdict, d *envelope.Delivery) {
	home := r.home(d.Agency)
	if home == "" {
		v.stays(d, r.relay)
		return
	}
	v.routes.again(d, home, home == r.k.Self)
}

func (v *verdict) stays(d *envelope.Delivery, holder routing.RelayID) {
	v.uncertain++
	v.orphaned = v.orphaned || d.Home == holder
}

// doubt notes a delivery that the relay handed on, or knows nothing of.
func (r *review) doubt(v *verdict, d *envelope.Delivery) {
	home := r.home(d.Agency)
	switch {
	case home == r.relay, home == r.k.Self:
		// It would be known.
		r.againIfOld(v, d)
	case home == "", !stateOf(r.view, home).inService(), r.silent[home]:
		v.stays(d, r.relay)
	default:
		v.doubts[home] = append(v.doubts[home], d)
	}
}

// againIfOld sends again what seems to be nowhere; what went away just now may
// be between two relays.
func (r *review) againIfOld(v *verdict, d *envelope.Delivery) {
	since := d.UpdatedAt
	if since.IsZero() {
		since = v.record.AcceptedAt
	}
	if ageOf(r.k.Clock(), since) < young {
		v.stays(d, r.relay)
		return
	}
	r.again(v, d)
}

// askHomes asks each home about the doubts that concern it.
func (r *review) askHomes(ctx context.Context, verdicts []*verdict) {
	about := make(map[routing.RelayID][]*verdict)
	for _, v := range verdicts {
		for home := range v.doubts {
			about[home] = append(about[home], v)
		}
	}
	for _, home := range slices.Sorted(maps.Keys(about)) {
		questions := make([]question, len(about[home]))
		for i, v := range about[home] {
			questions[i].id = v.record.ID
			for _, d := range v.doubts[home] {
				questions[i].agencies = append(questions[i].agencies, d.Agency)
			}
		}
		answers, err := r.k.ask(ctx, home, questions)
		if err != nil {
			r.silent[home] = true
			r.k.Logger.InfoContext(ctx, "home is silent about envelopes", "relay", home, "error", err)
		}
		for i, v := range about[home] {
			for _, d := range v.doubts[home] {
				if err != nil {
					v.stays(d, r.relay)
					continue
				}
				r.judgeHome(v, d, home, &answers[i])
			}
		}
	}
}

// judgeHome decides about a doubt with the word of the recipient's home.
func (r *review) judgeHome(v *verdict, d *envelope.Delivery, home routing.RelayID, a *answer) {
	switch place := a.place(d.Agency); {
	case place == relayv1.Place_PLACE_SETTLED:
		v.settle(r.k, d, a)
	case place == relayv1.Place_PLACE_INBOX, place == relayv1.Place_PLACE_QUEUE:
		v.routes.elsewhere(d, home)
	default:
		// It was passed on from there, and the recipient came back; or it keeps
		// a copy; or it never had it.
		r.againIfOld(v, d)
	}
}

// routes are new ways of the deliveries of one envelope, by where they were
// believed to be.
type routes struct {
	by            map[routing.RelayID]*envelope.Reroute
	resent, found int
}

func (r *routes) empty() bool { return len(r.by) == 0 }

func (r *routes) leaving(d *envelope.Delivery) *envelope.Reroute {
	if r.by == nil {
		r.by = make(map[routing.RelayID]*envelope.Reroute)
	}
	fact := r.by[d.Home]
	if fact == nil {
		fact = &envelope.Reroute{From: d.Home}
		r.by[d.Home] = fact
	}
	fact.Agencies = append(fact.Agencies, d.Agency)
	return fact
}

// again has a delivery handed on, or put into the inbox here.
func (r *routes) again(d *envelope.Delivery, home routing.RelayID, here bool) {
	fact := r.leaving(d)
	r.resent++
	if here {
		fact.Inboxes = append(fact.Inboxes, d.Agency)
		return
	}
	fact.Onward = join(fact.Onward, home, d.Agency)
}

// elsewhere notes that a delivery is in custody of another relay than believed.
func (r *routes) elsewhere(d *envelope.Delivery, there routing.RelayID) {
	fact := r.leaving(d)
	r.found++
	fact.Elsewhere = join(fact.Elsewhere, there, d.Agency)
}

func (r *routes) facts(id envelope.ID, at time.Time) []envelope.Reroute {
	list := make([]envelope.Reroute, 0, len(r.by))
	for _, from := range slices.Sorted(maps.Keys(r.by)) {
		fact := *r.by[from]
		fact.ID, fact.At = id, at
		list = append(list, fact)
	}
	return list
}

// join adds a recipient to the duty for one relay.
func join(duties []envelope.Onward, relay routing.RelayID, code routing.AgencyCode) []envelope.Onward {
	i, ok := slices.BinarySearchFunc(duties, relay, func(o envelope.Onward, relay routing.RelayID) int {
		return cmp.Compare(o.Relay, relay)
	})
	if !ok {
		duties = slices.Insert(duties, i, envelope.Onward{Relay: relay})
	}
	duties[i].Agencies = append(duties[i].Agencies, code)
	return duties
}
