package mesh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/truclienthong/truc/cmd/relayd/node"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// Balance waits until the audit of the mesh balances: nothing is missing, each
// relay's counts add up, and only relays that do not run are silent. Reports
// that are on their way may make it wait; what is lost makes it fail.
func (m *Mesh) Balance() {
	m.t.Helper()
	if len(m.relays) == 0 {
		return
	}
	m.Await("the audit balances", func(ctx context.Context) error {
		audit, err := m.Operator("").Custody.Audit(ctx, &adminv1.AuditRequest{})
		if err != nil {
			return err
		}
		return m.Unbalanced(audit)
	})
}

// Unbalanced says what an audit found wrong, in one error; nil: it balances.
func (m *Mesh) Unbalanced(audit *adminv1.AuditResponse) error {
	var wrong []error
	for _, row := range audit.GetRows() {
		if sum := row.GetDelivered() + row.GetPending() + row.GetExpired() + row.GetRefused() + row.GetRecalled(); sum != row.GetAccepted() {
			wrong = append(wrong, fmt.Errorf("relay %s: %d accepted, %d accounted for: %v", row.GetRelayId(), row.GetAccepted(), sum, row))
		}
	}
	for _, raw := range audit.GetMissingEnvelopeIds() {
		wrong = append(wrong, fmt.Errorf("envelope %s is missing", name(raw)))
	}
	for _, f := range audit.GetFindings() {
		wrong = append(wrong, fmt.Errorf("relay %s, envelope %s, agency %s: %s", f.GetRelayId(), name(f.GetEnvelopeId()), f.GetAgencyCode(), f.GetProblem()))
	}
	silent := slices.DeleteFunc(slices.Clone(audit.GetSilentRelayIds()), func(id string) bool { return !m.runs(id) })
	if len(silent) > 0 {
		wrong = append(wrong, fmt.Errorf("relays that run are silent: %s", strings.Join(silent, ", ")))
	}
	return errors.Join(wrong...)
}

// Damaged says that the test has damaged disks, so that fsck may find it.
func (m *Mesh) Damaged() { m.damaged = true }

// fsck proves that the disk of every relay that has one is whole, once it has
// stopped.
func (m *Mesh) fsck() {
	m.t.Helper()
	if m.damaged {
		return
	}
	for _, r := range m.Layout.Relays {
		config, err := node.Load(m.Layout.RelayConfig(r.ID))
		m.check("configuration of "+r.ID, err)
		if _, err := os.Stat(m.Data(r.ID, "spool")); err != nil {
			continue // a test has taken it away
		}
		if err := node.Fsck(config, func(f node.Finding) { m.t.Errorf("fsck of relay %s: %v", r.ID, f) }); err != nil {
			m.t.Errorf("fsck of relay %s: %v", r.ID, err)
		}
	}
}

func name(raw []byte) string {
	if len(raw) != len(envelope.ID{}) {
		return "none"
	}
	return envelope.ID(raw).String()
}
