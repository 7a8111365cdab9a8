package envelope

import exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"

// Outcome is what became of a delivery, as audit and statistics count it.
type Outcome uint8

// The outcomes: every delivery has exactly one at any moment.
const (
	// Pending: on its way.
	Pending Outcome = iota
	// Delivered: the recipient's connector confirmed it.
	Delivered
	// Expired: its lifetime was over, or an operator gave it up.
	Expired
	// Refused: a relay refused it for good.
	Refused
	// Recalled: taken back before it was confirmed.
	Recalled
)

// Outcome is what became of the delivery.
func (d *Delivery) Outcome() Outcome {
	switch {
	case d.Place != Settled:
		return Pending
	case d.Transport == exchangev1.TransportStatus_TRANSPORT_STATUS_DONE:
		return Delivered
	case d.Reason == exchangev1.ErrorReason_ERROR_REASON_EXPIRED:
		return Expired
	case d.Reason == exchangev1.ErrorReason_ERROR_REASON_RECALLED:
		return Recalled
	}
	return Refused
}

// Signed reports whether a document carries a digital signature, as its header
// says: a block, the signature element of an edXML message, or when it was signed.
// Signatures inside of files are not looked for.
func Signed(h *exchangev1.Header) bool {
	return len(h.GetSignatures()) > 0 || len(h.GetSignatureRaw()) > 0 || h.GetSignedAt() != nil
}
