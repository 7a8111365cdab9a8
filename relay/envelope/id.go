package envelope

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// ID is the id of an envelope: 16 bytes, written like a UUID (RFC 9562
// version 8). It is computed from what the sender wrote, so the same document
// handed over twice, even at two relays, has one id, and every hop can drop
// repeats by it.
type ID [16]byte

// idDomain separates these hashes from every other use of SHA-256.
const idDomain = "truc-envelope-v1"

// ComputeID returns the id of the envelope with the given canonical header:
// the first 16 bytes of SHA-256 over the domain, the sender's code, the
// document id and the SHA-256 of the canonical header, each with its length
// before it as 4 bytes big-endian; version and variant bits set.
func ComputeID(sender, documentID string, canonical []byte) ID {
	content := sha256.Sum256(canonical)
	h := sha256.New()
	for _, field := range [][]byte{[]byte(idDomain), []byte(sender), []byte(documentID), content[:]} {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(field)))
		h.Write(length[:])
		h.Write(field)
	}
	var id ID
	copy(id[:], h.Sum(nil))
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// HeaderID returns the canonical bytes of h and the envelope id they give.
func HeaderID(h *exchangev1.Header) (ID, []byte, error) {
	canonical, err := Canonical(h)
	if err != nil {
		return ID{}, nil, err
	}
	return ComputeID(h.GetSender().GetCode(), h.GetDocumentId(), canonical), canonical, nil
}

// ParseID reads the text form of an id.
func ParseID(s string) (ID, error) {
	u, err := uuid.Parse(s)
	if err != nil {
		return ID{}, fmt.Errorf("envelope id %q: %w", s, err)
	}
	return ID(u), nil
}

// IDFromBytes reads the wire form of an id, exactly 16 bytes.
func IDFromBytes(b []byte) (ID, error) {
	if len(b) != len(ID{}) {
		return ID{}, fmt.Errorf("envelope id has %d bytes, want 16", len(b))
	}
	return ID(b), nil
}

// String returns the text form of the id.
func (id ID) String() string { return uuid.UUID(id).String() }

// IsZero reports whether id was never set.
func (id ID) IsZero() bool { return id == ID{} }
