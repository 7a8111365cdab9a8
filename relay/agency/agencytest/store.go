package agencytest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// resolve finds the canonical code of a recipient; groups resolve to every
// agency but the sender.
func (m *Mesh) resolve(h *exchangev1.Header, r *exchangev1.Recipient) []string {
	var codes []string
	for _, a := range m.config.Agencies {
		code := r.GetAgency().GetCode()
		if r.GetGroup() != "" && a.GetCode() != h.GetSender().GetCode() || a.GetCode() == code || slices.Contains(a.GetAliases(), code) {
			codes = append(codes, a.GetCode())
		}
	}
	return codes
}

func (m *Mesh) unknown(h *exchangev1.Header) []envelope.Problem {
	var problems []envelope.Problem
	for i, r := range h.GetRecipients() {
		if len(m.resolve(h, r)) == 0 {
			problems = append(problems, envelope.Problem{
				Field: fmt.Sprintf("header.recipients[%d]", i), Reason: exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT,
				Description: r.GetAgency().GetCode() + r.GetGroup() + " is not in the directory",
			})
		}
	}
	return problems
}

func documentKey(h *exchangev1.Header) string {
	return h.GetSender().GetCode() + "\x00" + h.GetDocumentId()
}

// settled: nothing is to be done for any recipient.
func (e *stored) settled() bool {
	for code, confirmed := range e.confirmed {
		if !confirmed && e.failed[code] == nil {
			return false
		}
	}
	return true
}

func (e *stored) size() uint64 { return e.receipts[0].GetContentSize() }

// receipt is that of a relay, with the copies of now; nil where that relay knows
// nothing of the envelope.
func (e *stored) receipt(relay string) *exchangev1.Receipt {
	for _, r := range e.receipts {
		if e.copied || r.GetRelayId() == relay {
			r = proto.CloneOf(r)
			if e.copied {
				r.Copies = 2
			}
			return r
		}
	}
	return nil
}

// reachable is the receipt of the first relay that has the envelope and runs,
// nil for none. Requires mu.
func (m *Mesh) reachable(e *stored) *exchangev1.Receipt {
	for _, r := range e.receipts {
		if e.copied || m.running[r.GetRelayId()] != nil {
			return e.receipt(r.GetRelayId())
		}
	}
	if m.running[e.home] != nil {
		r := proto.CloneOf(e.receipts[0])
		r.RelayId, r.Recipients = e.home, 1
		return r
	}
	return nil
}

// known finds an envelope that the relay accepted before, or a copy of it; its
// document id with other content is refused.
func (m *Mesh) known(relay string, id envelope.ID, h *exchangev1.Header) (*exchangev1.Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.envelopes[id]; e != nil {
		return e.receipt(relay), nil
	}
	if other, ok := m.documents[documentKey(h)]; ok {
		return nil, refuse(exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED,
			"document id %s was used before, for envelope %s with other content", h.GetDocumentId(), other)
	}
	return nil, nil
}

func partialKey(relay string, id envelope.ID) string { return relay + "\x00" + id.String() }

// begun returns what a relay holds of a submit that was cut before.
func (m *Mesh) begun(relay string, id envelope.ID, start *exchangev1.SubmitStart) ([][]byte, []uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := partialKey(relay, id)
	if m.partial[key] == nil || start.GetEager() {
		m.partial[key] = make([][]byte, len(start.GetHeader().GetParts()))
	}
	parts := m.partial[key]
	offsets := make([]uint64, len(parts))
	for i, part := range parts {
		offsets[i] = uint64(len(part))
	}
	return parts, offsets
}

func (m *Mesh) keep(parts [][]byte, chunk *exchangev1.Chunk) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := int(chunk.GetPart())
	if i >= len(parts) || chunk.GetOffset() != uint64(len(parts[i])) || len(chunk.GetData()) == 0 || len(chunk.GetData()) > 1<<20 {
		return refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "chunk of part %d at %d does not fit", i, chunk.GetOffset())
	}
	parts[i] = append(parts[i], chunk.GetData()...)
	return nil
}

// commit makes the envelope exist, once.
func (m *Mesh) commit(relay string, id envelope.ID, start *exchangev1.SubmitStart, canonical []byte, parts [][]byte) (*exchangev1.Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := start.GetHeader()
	e := m.envelopes[id]
	if e != nil && e.receipt(relay) != nil {
		return e.receipt(relay), nil
	}
	if e != nil {
		again := proto.CloneOf(e.receipts[0])
		again.RelayId, again.AcceptedAt = relay, timestamppb.Now()
		e.receipts = append(e.receipts, again)
		return e.receipt(relay), nil
	}
	e = &stored{id: id, parts: parts, copied: !m.sole, confirmed: map[string]bool{}, failed: map[string]*exchangev1.Delivery{}}
	var size uint64
	for i, part := range h.GetParts() {
		if !bytes.Equal(sum(parts[i]), part.GetSha256()) {
			delete(m.partial, partialKey(relay, id))
			return nil, envelope.RefuseProblems([]envelope.Problem{{
				Field: fmt.Sprintf("header.parts[%d].sha256", i), Reason: exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH,
				Description: "is not that of the bytes received",
			}})
		}
		size += part.GetSize()
	}
	for _, r := range h.GetRecipients() {
		for _, code := range m.resolve(h, r) {
			if _, twice := e.confirmed[code]; !twice {
				e.confirmed[code] = false
				m.inboxes[code] = append(m.inboxes[code], id)
			}
		}
	}
	now := timestamppb.Now()
	e.envelope = &exchangev1.Envelope{Id: id[:], Header: h, IngressRelayId: relay, AcceptedAt: now,
		Traceparent: start.GetTraceparent(), Tracestate: start.GetTracestate()}
	e.receipts = []*exchangev1.Receipt{{EnvelopeId: id[:], RelayId: relay, AcceptedAt: now, Copies: 1,
		HeaderSha256: sum(canonical), Recipients: uint32(len(e.confirmed)), ContentSize: size}}
	m.envelopes[id] = e
	m.documents[documentKey(h)] = id
	delete(m.partial, partialKey(relay, id))
	close(m.changed)
	m.changed = make(chan struct{})
	return e.receipt(relay), nil
}

func (m *Mesh) inbox(code string) ([]*stored, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var waiting []*stored
	for _, id := range m.inboxes[code] {
		waiting = append(waiting, m.envelopes[id])
	}
	return waiting, m.changed
}

// find answers only for the sender and the recipients, and only while a relay
// that has the envelope runs.
func (m *Mesh) find(id []byte, code string) (*stored, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(id) == len(envelope.ID{}) {
		if e := m.envelopes[envelope.ID(id)]; e != nil && m.reachable(e) != nil {
			if _, recipient := e.confirmed[code]; recipient || e.envelope.GetHeader().GetSender().GetCode() == code {
				return e, nil
			}
		}
	}
	return nil, refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, "nothing is known under that id")
}

func (m *Mesh) document(code, document string) envelope.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.documents[code+"\x00"+document]
}

func (m *Mesh) confirm(code string, ids [][]byte) *exchangev1.ConfirmResponse {
	m.mu.Lock()
	defer m.mu.Unlock()
	answer := new(exchangev1.ConfirmResponse)
	for _, b := range ids {
		id := envelope.ID(b)
		if i := slices.Index(m.inboxes[code], id); i >= 0 && m.forgetful {
			answer.Confirmed++
		} else if i >= 0 {
			m.inboxes[code] = slices.Delete(m.inboxes[code], i, i+1)
			m.envelopes[id].confirmed[code] = true
			answer.Confirmed++
		} else {
			answer.Repeats++
			if e := m.envelopes[id]; e != nil && e.failed[code].GetReason() == exchangev1.ErrorReason_ERROR_REASON_RECALLED {
				answer.RecalledIds = append(answer.RecalledIds, b)
			}
		}
	}
	return answer
}

func (m *Mesh) tracked(relay string, e *stored) *exchangev1.TrackResponse {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := e.envelope.GetAcceptedAt()
	answer := &exchangev1.TrackResponse{Receipt: m.reachable(e), Header: e.envelope.GetHeader()}
	for _, r := range e.receipts {
		answer.Events = append(answer.Events, &exchangev1.TraceEvent{
			RelayId: r.GetRelayId(), At: at, Action: exchangev1.TraceAction_TRACE_ACTION_ACCEPTED})
		if m.running[r.GetRelayId()] == nil {
			answer.SilentRelayIds = append(answer.SilentRelayIds, r.GetRelayId())
		}
	}
	alone := answer.GetReceipt().GetRelayId() == e.home
	for code, confirmed := range e.confirmed {
		if alone && code != e.homeAgency {
			continue
		}
		if failed := e.failed[code]; failed != nil {
			answer.Deliveries = append(answer.Deliveries, failed)
			continue
		}
		d := &exchangev1.Delivery{AgencyCode: code, HomeRelayId: m.config.Relays[0].ID, UpdatedAt: at,
			Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING}
		if confirmed {
			d.Transport = exchangev1.TransportStatus_TRANSPORT_STATUS_DONE
			answer.Events = append(answer.Events, &exchangev1.TraceEvent{
				RelayId: relay, At: at, Action: exchangev1.TraceAction_TRACE_ACTION_CONFIRMED, AgencyCode: code})
		}
		answer.Deliveries = append(answer.Deliveries, d)
	}
	slices.SortFunc(answer.Deliveries, func(a, b *exchangev1.Delivery) int { return strings.Compare(a.GetAgencyCode(), b.GetAgencyCode()) })
	return answer
}
