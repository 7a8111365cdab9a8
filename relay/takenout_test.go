package relay_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/routing"
)

// behind is a directory that hears of no change any more once it was cut.
type behind struct {
	relay.Directory
	mu   sync.Mutex
	view *routing.View
}

func (b *behind) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	view := b.Directory.View()
	b.view = &view
}

func (b *behind) View() routing.View {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.view != nil {
		return *b.view
	}
	return b.Directory.View()
}

// A relay that was given up while its copy of the directory hears of nothing,
// as one that was removed from Raft, learns it from its peers; one voice alone
// is not believed.
func TestTakenOutWithoutHearingOfIt(t *testing.T) {
	m := newMesh(t)
	var cut *behind
	hold := func(c *relay.Config) {
		cut = &behind{Directory: c.Directory}
		c.Directory = cut
	}
	m.start("bac", nil)
	m.start("trung", hold)
	m.serving("bac", "trung")
	m.putAgency("G22", "bac")
	m.putAgency("H48", "trung")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m.linked(ctx, "trung")
	client := m.agency("trung", "H48")

	cut.cut()
	m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: "trung", Lost: true}}})
	until(t, ctx, "trung learns that it was taken out", func() (bool, string) {
		ready, reasons := m.readyz("trung")
		all := strings.Join(reasons, "; ")
		return !ready && strings.Contains(all, "taken out of the mesh, as [bac] say"), all
	})
	if _, err := submit(ctx, client, document("H48", "1", "x", "G22"), "x"); !has(err, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING) {
		t.Errorf("submit: got %v, want NOT_SERVING", err)
	}
	// Taken back: the peers say so too.
	m.change(&directoryv1.Command{Change: &directoryv1.Command_SetRelayState{SetRelayState: &directoryv1.SetRelayState{
		RelayId: "trung", State: directoryv1.RelayState_RELAY_STATE_ACTIVE}}})
	m.serving("trung")
}
