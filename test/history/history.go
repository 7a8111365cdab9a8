// Package history keeps what senders were told and what recipients wrote into
// their books, and says where the two contradict a promise of the mesh.
//
// It knows nothing of relays: a suite records what happens at the edges while it
// breaks what lies between, and asks at the end. The rules (promises 1, 4 and 5,
// and that nothing reaches the wrong desk):
//
//   - what a sender got a receipt for, each recipient takes once;
//   - what a recipient takes was handed in for it, with the same bytes and the
//     same document id, and each envelope id stands for one content;
//   - one document of one sender has one envelope id, however often and wherever
//     it is handed in;
//   - a submission without an answer may arrive or not, but at most once and
//     unchanged.
package history

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
)

// Document is what a sender hands in.
type Document struct {
	// Sender is an agency code, ID the sender's id of the document.
	Sender, ID string
	// To are the recipients, single agencies.
	To []string
	// Sum is that of the content: SumOf.
	Sum [32]byte
}

// SumOf is one sum over all files of a document, by name.
func SumOf(files map[string][]byte) (sum [32]byte) {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		one := sha256.Sum256(files[name])
		fmt.Fprintf(h, "%d %s %x\n", len(name), name, one)
	}
	return [32]byte(h.Sum(nil))
}

// key names a document within the history.
type key struct{ sender, id string }

// handed is what became of a document at its sender's side.
type handed struct {
	Document
	envelope envelope.ID // zero until somebody was told of it
	// promised: a receipt came, or the outbox has taken it.
	promised bool
	at       time.Time
	excused  map[string]string // recipient to reason
}

type desk struct {
	agency string
	id     envelope.ID
}

// History is safe for concurrent use. The zero value is empty.
type History struct {
	mu        sync.Mutex
	documents map[key]*handed
	envelopes map[envelope.ID]key
	taken     map[desk]time.Time
	found     []Violation
}

// Violation is one broken promise.
type Violation struct {
	// Rule is "lost", "doubled", "changed", "wrong desk" or "forked".
	Rule string
	// What says which document, envelope and agency.
	What string
}

func (v Violation) String() string { return v.Rule + ": " + v.What }

// HandIn says that a sender begins to hand a document in. Call it before the
// first attempt, once for each document.
func (h *History) HandIn(d Document) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.documents == nil {
		h.documents, h.envelopes, h.taken = map[key]*handed{}, map[envelope.ID]key{}, map[desk]time.Time{}
	}
	k := key{d.Sender, d.ID}
	if _, ok := h.documents[k]; ok {
		panic("history: document " + d.ID + " of " + d.Sender + " is handed in twice")
	}
	h.documents[k] = &handed{Document: d}
}

// Promised says that the sender of a document was told that it is accepted, as
// the envelope id. It may be told so again.
func (h *History) Promised(sender, document string, id envelope.ID, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := key{sender, document}
	d := h.documents[k]
	if d == nil {
		panic("history: receipt for a document that was never handed in: " + document)
	}
	if !d.promised {
		d.promised, d.at = true, at
	}
	h.name(k, id)
}

// name binds an envelope id to a document; requires mu.
func (h *History) name(k key, id envelope.ID) {
	if other, ok := h.envelopes[id]; ok && other != k {
		h.violate("forked", "envelope %s is document %s of %s and document %s of %s", id, other.id, other.sender, k.id, k.sender)
		return
	}
	h.envelopes[id] = k
	if d := h.documents[k]; d.envelope.IsZero() {
		d.envelope = id
	} else if d.envelope != id {
		h.violate("forked", "document %s of %s has the envelopes %s and %s", k.id, k.sender, d.envelope, id)
	}
}

// Excuse says that a recipient need not get a document: it was given up on
// purpose, and the sender was told. It must still not get it twice or changed.
func (h *History) Excuse(sender, document, recipient, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.documents[key{sender, document}]
	if d.excused == nil {
		d.excused = map[string]string{}
	}
	d.excused[recipient] = reason
}

// Took says that a recipient has written an envelope into its books as new:
// what it was told of the sender and document, and the sum of the bytes that
// are in its folder.
func (h *History) Took(agency string, id envelope.ID, sender, document string, sum [32]byte, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k, place := key{sender, document}, desk{agency, id}
	d := h.documents[k]
	if d == nil {
		h.violate("wrong desk", "%s took envelope %s, document %q of %q, which nobody handed in", agency, id, document, sender)
		return
	}
	h.name(k, id)
	if before, ok := h.taken[place]; ok {
		h.violate("doubled", "%s took envelope %s (%s) at %s and again at %s", agency, id, document, before.Format(clock), at.Format(clock))
		return
	}
	h.taken[place] = at
	if !slices.Contains(d.To, agency) {
		h.violate("wrong desk", "%s took envelope %s (%s of %s), which is for %v", agency, id, document, sender, d.To)
	}
	if !bytes.Equal(sum[:], d.Sum[:]) {
		h.violate("changed", "%s took envelope %s (%s of %s) with sum %x, handed in was %x", agency, id, document, sender, sum[:6], d.Sum[:6])
	}
}

const clock = "15:04:05.000"

func (h *History) violate(rule, format string, args ...any) {
	h.found = append(h.found, Violation{Rule: rule, What: fmt.Sprintf(format, args...)})
}

// Lack is a delivery that was promised and has not come.
type Lack struct {
	Sender, Document, Recipient string
	ID                          envelope.ID
	Promised                    time.Time
}

// Missing lists what was promised and has not come yet, oldest first, and how
// many deliveries were promised in all.
func (h *History) Missing() (lacks []Lack, promised int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, d := range h.documents {
		if !d.promised {
			continue
		}
		for _, to := range d.To {
			if _, ok := d.excused[to]; ok {
				continue
			}
			promised++
			if _, ok := h.taken[desk{to, d.envelope}]; !ok {
				lacks = append(lacks, Lack{k.sender, k.id, to, d.envelope, d.at})
			}
		}
	}
	slices.SortFunc(lacks, func(a, b Lack) int { return a.Promised.Compare(b.Promised) })
	return lacks, promised
}

// Found lists what is wrong already, whatever may still come.
func (h *History) Found() []Violation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.found)
}

// Violations lists everything that is wrong once nothing more will come.
func (h *History) Violations() []Violation {
	all := h.Found()
	lacks, _ := h.Missing()
	for _, l := range lacks {
		all = append(all, Violation{Rule: "lost", What: fmt.Sprintf("%s never took envelope %s (%s of %s), promised at %s",
			l.Recipient, l.ID, l.Document, l.Sender, l.Promised.Format(clock))})
	}
	return all
}

// Counts returns how many documents were handed in and promised, and how many
// deliveries were taken.
func (h *History) Counts() (handedIn, promised, taken int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.documents {
		if d.promised {
			promised++
		}
	}
	return len(h.documents), promised, len(h.taken)
}
