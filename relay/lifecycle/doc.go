// Package lifecycle is the life of a document at one of its recipients: what
// the recipient's officers say of it (statuses 01 to 06), and what its sender
// asks for afterwards (recall, update, replacement) with the recipient's answer.
//
// It is pure: a State, a Statement, and what follows. Who keeps statements, and
// how they travel, is the business of others (the ingress of the document keeps
// them: Life). The state of a delivery is the fold of all statements about it in
// the order in which relays accepted them (Fold), so what they come to does not
// hang on the ways that they took: an answer is accepted behind its question.
//
// What it promises:
//
//   - Every statement is judged: it moves the state, is kept in the history
//     without moving it, is a repeat, or is refused with a reason. None is
//     forgotten: what is refused at the door never gets in, and what got in
//     past it is kept without effect.
//   - A state is left only along the tables of this package (STANDARD §9,
//     QD28 Art. 10(2)(h)); Returned and Recalled are never left.
//   - An answer (15, 16) is to a question that was asked and is still open.
//
// # Who may say what
//
// The sender asks: 13, and documents of the types revoke, update and replace.
// The recipient says everything else. Only the mesh withdraws a document: by
// taking it out of an inbox from which it was not fetched yet. Codes that are
// not in the standard are kept, whoever of the two says them.
//
// # Races
//
// Recall, update and replacement meet a document that is on its way, or work on
// it that goes on meanwhile. What comes out:
//
//	first                      then                     outcome
//	recall                     the document reaches     withdrawn: it is never given out
//	                           the home relay
//	document in the inbox,     recall                   withdrawn: the mesh completes the recall
//	not confirmed
//	recall is being taken      the recipient confirms   whichever is durable first at the home relay;
//	                                                    who comes second is told
//	document confirmed         recall                   the recipient is asked
//	document waits elsewhere   recall                   it waits for the document, at the home relay
//	recall asked               01 03 04 05 06           the work moves on, the question stays open
//	recall asked               02                       returned: there is nothing left to take back
//	recall asked               recall                   the question stays open: a repeat
//	recall asked               update, replacement      refused: it is being taken back
//	recall refused (16)        recall                   asked again
//	update asked               recall                   the recall takes its place
//	update asked               01 03 04 05 06           the work moves on, the question stays open
//	update asked               02                       returned: there is nothing left to change
//	update asked               update, replacement      the later one takes its place
//	recalled or returned       recall, update           refused: there is nothing to take back or change
//	recalled or returned       replacement              nothing to replace here; the new document stands alone
//	recalled                   01 to 06                 kept: it crossed with the recall
//	returned                   01 to 06                 kept: a new document is needed
//	no question open           15, 16                   kept, no effect, with a warning
//	answer heard               its question is heard    answered: they count as they were accepted
//
// Only the home relay of a recipient takes a document back: any other relay that
// has it may not know that it was handed on already. Where a recipient moves to
// another home while it confirms, the new home asks the others before it agrees.
package lifecycle
