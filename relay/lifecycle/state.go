package lifecycle

import (
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// Phase is how far a document has come at one recipient.
type Phase uint8

// The phases. Returned and Recalled are ends.
const (
	Sent       Phase = iota // nothing was said of it yet
	Arrived                 // 01 đã đến
	Accepted                // 03 đã tiếp nhận
	Assigned                // 04 phân công xử lý
	Processing              // 05 đang xử lý
	Finished                // 06 hoàn thành
	Returned                // 02 từ chối tiếp nhận
	Recalled                // taken back: 15 to a recall, or withdrawn by the mesh
)

var phaseNames = [...]string{"sent", "arrived", "accepted", "assigned", "processing", "finished", "returned", "recalled"}

func (p Phase) String() string { return phaseNames[p] }

// Ended reports whether nothing leaves the phase.
func (p Phase) Ended() bool { return p == Returned || p == Recalled }

// Question is what the sender asks of the recipient.
type Question uint8

// The questions.
const (
	Nothing Question = iota
	Recall           // 13 lấy lại, or a document of type revoke
	Change           // a document of type update or replace
)

var questionNames = [...]string{"nothing", "recall", "change"}

func (q Question) String() string { return questionNames[q] }

// State is where the delivery to one recipient stands.
type State struct {
	Phase Phase
	// Asked is the question that is open.
	Asked Question
	// Code is the last one that had an effect, as relays answer it
	// (Delivery.status); UNSPECIFIED before the first.
	Code exchangev1.StatusCode
	// Implied: the document was worked on without having been accepted (03).
	Implied bool
	// Late: it was returned after it had been accepted.
	Late bool
	// At is when that was, Note what was said with it.
	At   time.Time
	Note string
}

// Party is who says something.
type Party uint8

// The parties.
const (
	Recipient Party = iota
	Sender
	Mesh
)

var partyNames = [...]string{"recipient", "sender", "mesh"}

func (p Party) String() string { return partyNames[p] }

// Act is what is said.
type Act uint8

// The acts: those of the standard's codes, those of documents about documents,
// and what the mesh does by itself.
const (
	Other        Act = iota // a code that is not in the standard
	SaysArrived             // 01
	SaysReturned            // 02
	SaysAccepted            // 03
	SaysAssigned            // 04
	SaysProcessing
	SaysFinished
	AsksRecall  // 13, or a document of type revoke
	Agrees      // 15
	Disagrees   // 16
	Updates     // a document of type update
	Replaces    // a document of type replace
	IsWithdrawn // taken out of the inbox before it was fetched
	acts        // how many there are
)

var actNames = [acts]string{
	"other", "01", "02", "03", "04", "05", "06", "recall", "15", "16", "update", "replacement", "withdrawn",
}

func (a Act) String() string { return actNames[a] }

// Statement is one thing that was said of a document at one recipient.
type Statement struct {
	Act Act
	// Code as it was written, two digits; "" where a document says it.
	Code string
	By   Party
	// At is when, by the clock of who says it; Heard when a relay accepted it,
	// by that relay's clock.
	At, Heard time.Time
	// Note is the reason or remark.
	Note string
}

// codes are the acts of the standard's codes and back.
var codes = map[string]Act{
	"01": SaysArrived, "02": SaysReturned, "03": SaysAccepted, "04": SaysAssigned, "05": SaysProcessing, "06": SaysFinished,
	"13": AsksRecall, "15": Agrees, "16": Disagrees,
}

// ActOf is the act of a two-digit code; Other where the standard has none.
func ActOf(code string) Act { return codes[code] }

// ActOfBusiness is the act of a document about another one; false where it is
// about none.
func ActOfBusiness(b exchangev1.BusinessType) (Act, bool) {
	switch b {
	case exchangev1.BusinessType_BUSINESS_TYPE_REVOKE:
		return AsksRecall, true
	case exchangev1.BusinessType_BUSINESS_TYPE_UPDATE:
		return Updates, true
	case exchangev1.BusinessType_BUSINESS_TYPE_REPLACE:
		return Replaces, true
	}
	return Other, false
}

// BusinessOf is the type of a document that says an act; NEW where none does.
func BusinessOf(a Act) exchangev1.BusinessType {
	switch a {
	case AsksRecall:
		return exchangev1.BusinessType_BUSINESS_TYPE_REVOKE
	case Updates:
		return exchangev1.BusinessType_BUSINESS_TYPE_UPDATE
	case Replaces:
		return exchangev1.BusinessType_BUSINESS_TYPE_REPLACE
	}
	return exchangev1.BusinessType_BUSINESS_TYPE_NEW
}
