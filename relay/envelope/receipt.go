package envelope

import (
	"crypto/sha256"

	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/routing"
)

func receiptOf(relay routing.RelayID, r *Record) *exchangev1.Receipt {
	sum := sha256.Sum256(r.Header)
	copies := max(r.Copies, 1)
	if r.Damaged {
		copies--
	}
	return &exchangev1.Receipt{
		EnvelopeId:   r.ID[:],
		RelayId:      string(relay),
		AcceptedAt:   timestamppb.New(r.CommittedAt),
		Copies:       copies,
		HeaderSha256: sum[:],
		Recipients:   uint32(len(r.Deliveries)),
		ContentSize:  r.Size(),
	}
}
