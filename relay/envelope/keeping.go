package envelope

import (
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/lifecycle"
)

// Arrived is when the recipient's connector had made the document durable; zero:
// it has not, as far as this relay knows.
func (d *Delivery) Arrived() time.Time {
	if d.Place != Settled || d.Transport != exchangev1.TransportStatus_TRANSPORT_STATUS_DONE {
		return time.Time{}
	}
	return d.UpdatedAt
}

// Accepted is how long after its arrival the recipient confirmed a document, and
// whether that was the same day (ND30 Art. 21(2)), as the document's ingress knows
// it. Whether the document was sent in time, Calendar.Sent tells of its header and
// Record.AcceptedAt.
func (d *Delivery) Accepted(c lifecycle.Calendar, now time.Time) (lifecycle.Keeping, time.Duration) {
	return c.Accepted(d.Life, d.Arrived(), now)
}
