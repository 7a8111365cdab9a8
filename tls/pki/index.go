package pki

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnknownSerial: this authority has issued no such certificate.
var ErrUnknownSerial = errors.New("no certificate with this serial number was issued here")

// Issued is one certificate of the index.
type Issued struct {
	// Serial number in the form of FormatSerial.
	Serial    string
	Identity  string // SPIFFE id
	Hosts     []string
	IssuedAt  time.Time
	NotBefore time.Time
	NotAfter  time.Time
	// KeyHash is the SHA-256 of the SubjectPublicKeyInfo in hexadecimal.
	KeyHash string
	// RevokedAt is zero unless MarkRevoked was called; Reason is its reason.
	RevokedAt time.Time
	Reason    string
}

const (
	eventIssued  = "issued"
	eventRevoked = "revoked"
)

// event is one line of the index. Fields are only ever added.
type event struct {
	Event     string    `json:"event"`
	At        time.Time `json:"at"`
	Serial    string    `json:"serial"`
	Identity  string    `json:"identity,omitempty"`
	Hosts     []string  `json:"hosts,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	KeyHash   string    `json:"key_hash,omitempty"`
	Reason    string    `json:"reason,omitempty"`
}

// index is the file of events. Other processes may append to it too, so it is
// read anew, under a lock of the file, before every use.
type index struct {
	path string
	mu   sync.Mutex // one use of the file at a time in this process
}

func openIndex(path string) (*index, error) {
	i := &index{path: path}
	if _, err := i.read(); err != nil {
		return nil, err
	}
	return i, nil
}

// FormatSerial is the form in which serial numbers are shown and asked for:
// lower-case hexadecimal, two digits per byte.
func FormatSerial(serial []byte) string { return hex.EncodeToString(serial) }

// ParseSerial is the reverse of FormatSerial; it also takes upper case, colons
// between bytes and leading zeros, as other tools print them. The result is
// big-endian without leading zeros, as revocations have it.
func ParseSerial(s string) ([]byte, error) {
	digits := strings.ReplaceAll(strings.TrimSpace(s), ":", "")
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	serial, err := hex.DecodeString(digits)
	serial = bytes.TrimLeft(serial, "\x00")
	if err != nil || len(serial) == 0 || len(serial) > 20 {
		return nil, fmt.Errorf("serial number %q: must be 1 to 20 bytes in hexadecimal, not zero", s)
	}
	return serial, nil
}

// List returns every certificate issued, oldest first.
func (a *Authority) List() ([]Issued, error) {
	return a.index.read()
}

// Find returns the certificate with this serial number, or ErrUnknownSerial.
func (a *Authority) Find(serial string) (Issued, error) {
	wanted, err := ParseSerial(serial)
	if err != nil {
		return Issued{}, err
	}
	list, err := a.index.read()
	if err != nil {
		return Issued{}, err
	}
	for _, issued := range list {
		if issued.Serial == FormatSerial(wanted) {
			return issued, nil
		}
	}
	return Issued{}, fmt.Errorf("serial number %s: %w", FormatSerial(wanted), ErrUnknownSerial)
}

// MarkRevoked writes down that a certificate was taken back; the first time
// and reason stay. It does not make it so for any relay: the directory does.
func (a *Authority) MarkRevoked(serial, reason string) error {
	issued, err := a.Find(serial)
	if err != nil {
		return fmt.Errorf("mark revoked: %w", err)
	}
	if !issued.RevokedAt.IsZero() {
		return nil
	}
	return a.index.append(event{Event: eventRevoked, At: time.Now().UTC(), Serial: issued.Serial, Reason: reason})
}

// read returns the state of the index; a line cut short at the end was never
// acknowledged and does not count.
func (i *index) read() ([]Issued, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	file, err := os.Open(i.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // nothing issued yet
	}
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_SH); err != nil {
		return nil, fmt.Errorf("lock index %s: %w", i.path, err)
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	var list []Issued
	place := make(map[string]int)
	whole := content[:bytes.LastIndexByte(content, '\n')+1]
	number := 0
	for line := range bytes.Lines(whole) {
		number++
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("index %s, line %d is damaged: %w", i.path, number, err)
		}
		switch e.Event {
		case eventIssued:
			place[e.Serial] = len(list)
			list = append(list, Issued{
				Serial: e.Serial, Identity: e.Identity, Hosts: e.Hosts, IssuedAt: e.At,
				NotBefore: e.NotBefore, NotAfter: e.NotAfter, KeyHash: e.KeyHash,
			})
		case eventRevoked:
			if at, ok := place[e.Serial]; ok && list[at].RevokedAt.IsZero() {
				list[at].RevokedAt, list[at].Reason = e.At, e.Reason
			}
		}
	}
	return list, nil
}

// append makes one event durable. A line that an earlier crash cut short is
// cut off first, or it would spoil this one.
func (i *index) append(e event) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("append to index: %w", err)
	}
	file, err := os.OpenFile(i.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("append to index: %w", err)
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock index %s: %w", i.path, err)
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return fmt.Errorf("append to index: %w", err)
	}
	end := int64(bytes.LastIndexByte(content, '\n') + 1)
	if err := file.Truncate(end); err != nil {
		return fmt.Errorf("append to index: %w", err)
	}
	if _, err := file.WriteAt(append(line, '\n'), end); err != nil {
		return fmt.Errorf("append to index: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("append to index: %w", err)
	}
	if end == 0 {
		return syncDirectory(i.path) // the file may be new
	}
	return nil
}
