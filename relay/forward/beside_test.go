package forward_test

import (
	"maps"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// The first relay that takes an envelope from its ingress keeps its copy for
// those whose deliveries wait at the ingress, in a queue or an inbox: else its
// loss would be the end of them. The others keep nothing.
func TestFirstRelayKeepsForTheOthers(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam, trung}, func(t *testing.T, m *mesh) {
		m.putAgency("H25", bac)
		content := []byte("Công văn")
		id := m.nodes[bac].accept(letter("1", exchangev1.Priority_PRIORITY_THUONG, content), [][]byte{content}, "H25", atNam, atTrung)
		m.start(bac, nam)
		places := func(relay routing.RelayID, want map[routing.AgencyCode]envelope.Place) {
			t.Helper()
			until(t, "taken by "+string(relay), func() bool { return len(m.nodes[relay].spool.places(id)) > 0 })
			if got := m.nodes[relay].spool.places(id); !maps.Equal(got, want) {
				t.Errorf("in custody at %s: %v, want %v", relay, got, want)
			}
		}
		places(nam, map[routing.AgencyCode]envelope.Place{"H25": envelope.Kept, atNam: envelope.InInbox, atTrung: envelope.Kept})
		until(t, "handed on", func() bool { return m.nodes[bac].spool.queued() == 1 })
		m.start(trung)
		places(trung, map[routing.AgencyCode]envelope.Place{atTrung: envelope.InInbox})
	})
}

// A relay that keeps its copy for some, and refuses one of its own recipients
// because its copy of the directory is behind, does not count as keeping it for
// all: nothing there would replace the ingress for the one refused.
func TestRefusedRecipientIsNotKept(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam, trung}, func(t *testing.T, m *mesh) {
		m.putAgency("H25", bac)
		m.putAgency("H30", trung)
		m.move("H30", nam, bac)
		content := []byte("Công văn")
		id := m.nodes[bac].accept(letter("1", exchangev1.Priority_PRIORITY_THUONG, content), [][]byte{content}, "H25", atNam, "H30")
		m.start(bac, nam)
		until(t, "taken for one", func() bool { return len(m.nodes[bac].spool.handOns()) > 0 })
		want := map[routing.AgencyCode]envelope.Place{"H25": envelope.Kept, atNam: envelope.InInbox}
		if got := m.nodes[nam].spool.places(id); !maps.Equal(got, want) {
			t.Errorf("in custody: %v, want %v", got, want)
		}
		if h := m.nodes[bac].spool.handOns()[0]; h.Keeps {
			t.Errorf("recorded %+v, want that it does not keep it for all", h)
		}
	})
}

// Who has a copy kept for others says so in the offer.
func TestKeptBesideWhatIsDelivered(t *testing.T) {
	for name, test := range map[string]struct {
		purpose relayv1.Purpose
		kept    []string
		refused bool
		want    map[routing.AgencyCode]envelope.Place
	}{
		"others":                      {relayv1.Purpose_PURPOSE_DELIVER, []string{"H98", "H99", "H98"}, false, map[routing.AgencyCode]envelope.Place{atNam: envelope.InInbox, "H98": envelope.Kept, "H99": envelope.Kept}},
		"one to whom it is delivered": {relayv1.Purpose_PURPOSE_DELIVER, []string{string(atNam)}, false, map[routing.AgencyCode]envelope.Place{atNam: envelope.InInbox}},
		"no code":                     {relayv1.Purpose_PURPOSE_DELIVER, []string{"?"}, true, nil},
		"beside a copy":               {relayv1.Purpose_PURPOSE_COPY, []string{"H99"}, false, map[routing.AgencyCode]envelope.Place{atNam: envelope.Kept}},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				m.start(nam)
				p := m.bacAtNam(t)
				o := offered(t, nil, []byte("Công văn"))
				o.Purpose, o.KeptAgencyCodes = test.purpose, test.kept
				p.offer(o)
				if a := p.answer(); (a.GetRefused() != nil) != test.refused {
					t.Fatalf("answer %v, want refused %v", a, test.refused)
				}
				if got := m.nodes[nam].spool.places(envelope.ID(o.GetEnvelopeId())); !maps.Equal(got, test.want) {
					t.Errorf("in custody: %v, want %v", got, test.want)
				}
			})
		})
	}
}
