package lifecycle

import (
	"slices"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// Outcome is what became of a statement.
type Outcome uint8

// The outcomes.
const (
	Moved   Outcome = iota // the state is another one
	Kept                   // it stands in the history, and has no effect
	Repeat                 // it was said before
	Refused                // it may not be said; see Verdict.Fault
)

var outcomeNames = [...]string{"moved", "kept", "repeat", "refused"}

func (o Outcome) String() string { return outcomeNames[o] }

// Fault is why a statement is refused.
type Fault uint8

// The faults.
const (
	NoFault    Fault = iota
	WrongParty       // it is not for this party to say
	NoReason         // 02, 13, 16 and documents about documents need a reason
	NotAsked         // 15 and 16 answer a question, and none is open
	Over             // the document was returned or recalled: nothing can be asked any more
	InRecall         // it is being taken back: nothing can be changed
)

// Verdict is what follows from a statement.
type Verdict struct {
	Outcome Outcome
	Fault   Fault
}

// moves is where the recipient's codes lead; what is not here is kept.
// (STANDARD §9: 03 may come without 01; 04, 05 and 06 without 03 imply it; 02
// after 03 is late; after 04 the document is being worked on, and is not
// returned any more.)
var moves = [...]map[Act]Phase{
	Sent: {
		SaysArrived: Arrived, SaysReturned: Returned, SaysAccepted: Accepted,
		SaysAssigned: Assigned, SaysProcessing: Processing, SaysFinished: Finished,
	},
	Arrived: {
		SaysReturned: Returned, SaysAccepted: Accepted,
		SaysAssigned: Assigned, SaysProcessing: Processing, SaysFinished: Finished,
	},
	Accepted:   {SaysReturned: Returned, SaysAssigned: Assigned, SaysProcessing: Processing, SaysFinished: Finished},
	Assigned:   {SaysAssigned: Assigned, SaysProcessing: Processing, SaysFinished: Finished},
	Processing: {SaysAssigned: Assigned, SaysProcessing: Processing, SaysFinished: Finished},
	Finished:   {},
	Returned:   {},
	Recalled:   {},
}

// says is who may say what. Other is for both.
var says = [acts]Party{AsksRecall: Sender, Updates: Sender, Replaces: Sender, IsWithdrawn: Mesh}

// Speaker is who says an act; of one that is not in the standard either may be.
func Speaker(a Act) Party { return says[a] }

// needReason are the acts that must say why.
var needReason = [acts]bool{SaysReturned: true, AsksRecall: true, Disagrees: true, Updates: true, Replaces: true}

// codeOf is how an act shows as the last code.
var codeOf = [acts]exchangev1.StatusCode{
	SaysArrived: 1, SaysReturned: 2, SaysAccepted: 3, SaysAssigned: 4, SaysProcessing: 5, SaysFinished: 6,
	AsksRecall: 13, Agrees: 15, Disagrees: 16, IsWithdrawn: 15,
}

// Next is the state after a statement, which is the same one unless the outcome
// is Moved.
func (s State) Next(said Statement) (State, Verdict) {
	if fault := s.fault(said); fault != NoFault {
		return s, Verdict{Refused, fault}
	}
	next := s
	switch said.Act {
	case AsksRecall:
		if s.Asked == Recall {
			return s, Verdict{Outcome: Repeat}
		}
		next.Asked = Recall
	case Updates, Replaces:
		if s.Phase.Ended() {
			return s, Verdict{Outcome: Kept} // a replacement stands alone
		}
		next.Asked = Change
	case Agrees:
		if s.Asked == Recall {
			next.Phase = Recalled
		}
		next.Asked = Nothing
	case Disagrees:
		next.Asked = Nothing
	case IsWithdrawn:
		if s.Phase != Sent {
			return s, Verdict{Outcome: Kept} // it had been fetched after all
		}
		next.Phase, next.Asked = Recalled, Nothing
	default:
		to, ok := moves[s.Phase][said.Act]
		if !ok {
			return s, Verdict{Outcome: Kept}
		}
		if to == s.Phase && codeOf[said.Act] == s.Code && said.At.Equal(s.At) {
			return s, Verdict{Outcome: Repeat}
		}
		next.Late = to == Returned && s.Phase == Accepted
		next.Implied = s.Implied || to >= Assigned && to <= Finished && s.Phase < Accepted
		next.Phase = to
		if to.Ended() {
			next.Asked = Nothing // nothing is left to take back or change
		}
	}
	next.Code, next.At, next.Note = codeOf[said.Act], said.At, said.Note
	return next, Verdict{Outcome: Moved}
}

// fault is why a statement may not be made in this state.
func (s State) fault(said Statement) Fault {
	switch {
	case said.Act == Other && said.By == Mesh, said.Act != Other && said.By != says[said.Act]:
		return WrongParty
	case needReason[said.Act] && said.Note == "":
		return NoReason
	}
	switch said.Act {
	case Agrees, Disagrees:
		if s.Asked == Nothing {
			return NotAsked
		}
	case AsksRecall, Updates:
		if s.Phase.Ended() {
			return Over
		}
	}
	if s.Asked == Recall && (said.Act == Updates || said.Act == Replaces) {
		return InRecall
	}
	return NoFault
}

// Fold is the state after all statements, in the order in which relays accepted
// them; those of one time in the order in which they are given.
func Fold(all []Statement) State {
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, Statement.Before)
	var s State
	for _, said := range sorted {
		s, _ = s.Next(said)
	}
	return s
}
