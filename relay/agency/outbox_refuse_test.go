package agency_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/agency/agencytest"
	"github.com/truclienthong/truc/relay/envelope"
)

// What Submit refuses is the caller's again; what is refused later is set aside
// with the reason, whole.
func TestOutboxRefusals(t *testing.T) {
	s := newSender(t, bac)
	_, err := s.outbox.Submit(testContext(t), document(t, "1", "H99", 10))
	if refusal, ok := envelope.AsRefusal(err); !ok || len(refusal.Problems) != 1 || envelope.Temporary(err) {
		t.Errorf("got %v, want the refusal", err)
	}
	s.emptied()

	kept := s.keep(document(t, "2", "H99", 1000))
	if err := s.tend(); err == nil || !strings.Contains(err.Error(), "H99") {
		t.Errorf("tend: got %v, want the refusal", err)
	}
	aside := s.aside()
	if len(aside) != 1 || aside[0].Damaged || aside[0].EnvelopeID != kept.ID.String() || aside[0].DocumentID != "2" || aside[0].Reason != "unknown_recipient" || !strings.Contains(aside[0].Message, "H99") || len(s.waiting()) != 0 {
		t.Fatalf("set aside: %+v", aside)
	}
	checkFile(t, filepath.Join(s.dir, "failed", kept.ID.String(), "văn bản 1.pdf"), content(1000))
	// The id is free again, and a second failure has a place of its own.
	s.keep(document(t, "2", "H99", 1000))
	if err := s.tend(); err == nil || len(s.aside()) != 2 {
		t.Errorf("again: %v, %d set aside", err, len(s.aside()))
	}
}

// What is refused because of the agency, not of the document, stays.
func TestOutboxWaitsForTheAgencyToBeWelcome(t *testing.T) {
	s := newSender(t, bac)
	s.keep(document(t, "1", "H26", 10))
	s.mesh.Fault(func(_ string, step agencytest.Step) error {
		if step == agencytest.SubmitStart {
			return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED, "agency G22 is suspended")
		}
		return nil
	})
	if err := s.tend(); err == nil || len(s.waiting()) != 1 || len(s.aside()) != 0 || s.waiting()[0].LastError == "" {
		t.Errorf("suspended: %v, waiting %+v", err, s.waiting())
	}
	var kept *agency.KeptError
	if _, err := s.outbox.Submit(testContext(t), document(t, "1", "H26", 10)); !errors.As(err, &kept) {
		t.Errorf("submitted again: got %v, want it said that it is kept", err)
	}
	s.mesh.Fault(nil)
	if err := s.tend(); err != nil {
		t.Fatal(err)
	}
	s.emptied()
}

// What a document says of another one is set aside where that one's life does not
// allow it, or nobody knows it any more; not where the sender speaks of what it may
// have to hand over yet.
func TestOutboxSetsAsideWhatIsInVain(t *testing.T) {
	status := func(kind exchangev1.Kind) agency.Document {
		d := document(t, "1", "H26", 10)
		if kind == exchangev1.Kind_KIND_STATUS {
			d.Parts, d.Header.Document = nil, nil
			d.Header.Kind, d.Header.Status = kind, &exchangev1.Status{Code: "03", ResponseFor: &exchangev1.ResponseFor{AgencyCode: "H26", DocumentId: "9"}}
		}
		return d
	}
	for name, c := range map[string]struct {
		kind   exchangev1.Kind
		reason exchangev1.ErrorReason
		aside  int
	}{
		"too late":                {exchangev1.Kind_KIND_DOCUMENT, exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE, 1},
		"status of the forgotten": {exchangev1.Kind_KIND_STATUS, exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, 1},
		"recall of the unknown":   {exchangev1.Kind_KIND_DOCUMENT, exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSender(t, bac)
			s.keep(status(c.kind))
			s.mesh.Fault(func(_ string, step agencytest.Step) error {
				if step == agencytest.SubmitStart {
					return envelope.RefuseProblems([]envelope.Problem{{Field: "header", Reason: c.reason, Description: "is in vain"}})
				}
				return nil
			})
			if err := s.tend(); err == nil || len(s.aside()) != c.aside || len(s.waiting()) != 1-c.aside {
				t.Errorf("%v, set aside %+v, waiting %+v", err, s.aside(), s.waiting())
			}
		})
	}
}

func TestOutboxSetsDamageAside(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"file shorter":        func(dir string) error { return os.Truncate(filepath.Join(dir, "văn bản 1.pdf"), 5) },
		"file missing":        func(dir string) error { return os.Remove(filepath.Join(dir, "văn bản 1.pdf")) },
		"description missing": func(dir string) error { return os.Remove(filepath.Join(dir, "envelope.json")) },
		"description cut":     func(dir string) error { return os.Truncate(filepath.Join(dir, "envelope.json"), 20) },
		"description of another": func(dir string) error {
			return os.Rename(dir, filepath.Join(filepath.Dir(dir), strings.Repeat("0", 32)))
		},
		"file of other bytes": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "văn bản 1.pdf"), content(1001)[:1000], 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSender(t, bac)
			kept := s.keep(document(t, "1", "H26", 1000))
			s.keep(document(t, "2", "H26", 10))
			if err := spoil(kept.Dir); err != nil {
				t.Fatal(err)
			}
			if err := s.tend(); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("tend: got %v, want it said", err)
			}
			aside := s.aside()
			if len(aside) != 1 || !aside[0].Damaged || aside[0].Reason != "damaged" || len(s.waiting()) != 0 || s.mesh.Accepted() != 1 {
				t.Fatalf("set aside %+v, waiting %+v, %d accepted; want the damaged one aside and the other handed over", aside, s.waiting(), s.mesh.Accepted())
			}
		})
	}
	t.Run("healed by its sender", func(t *testing.T) {
		for _, left := range [][]byte{content(1000)[:5], content(1001)[:1000]} {
			s := newSender(t, bac)
			kept := s.keep(document(t, "1", "H26", 1000))
			if err := os.WriteFile(filepath.Join(kept.Dir, "văn bản 1.pdf"), left, 0o600); err != nil {
				t.Fatal(err)
			}
			s.submit(document(t, "1", "H26", 1000))
			s.arrived("H26", 1000)
			if len(s.aside()) != 1 {
				t.Errorf("set aside: %+v", s.aside())
			}
		}
	})
}

func TestOutboxIsBounded(t *testing.T) {
	s := newSender(t, bac)
	s.reopen(func(c *agency.OutboxConfig) {
		s.impatient(c)
		c.MaxBytes = 100_000
	})
	_, err := s.outbox.Submit(testContext(t), document(t, "1", "H26", 200_000))
	if refusal, ok := envelope.AsRefusal(err); !ok || refusal.Reason != exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE || envelope.Temporary(err) {
		t.Errorf("larger than the outbox: got %v", err)
	}
	// Ten at once, with room for four.
	s.mesh.Stop("bac")
	var group sync.WaitGroup
	outcomes := make(chan error, 10)
	for i := range 10 {
		group.Go(func() {
			_, err := s.outbox.Submit(testContext(t), agency.Document{Header: header(fmt.Sprint(i), "H26"), Parts: []agency.Source{agency.BytesSource("a.pdf", content(12_000))}})
			outcomes <- err
		})
	}
	group.Wait()
	close(outcomes)
	kept := 0
	for err := range outcomes {
		if as := (*agency.KeptError)(nil); errors.As(err, &as) {
			kept++
		} else if refusal, ok := envelope.AsRefusal(err); !ok || refusal.Reason != exchangev1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED || refusal.Quota != "outbox" || !strings.Contains(err.Error(), s.dir) {
			t.Errorf("got %v, want it kept, or refused for want of room", err)
		}
	}
	if kept != 4 || len(s.waiting()) != 4 {
		t.Errorf("%d kept, %d waiting; want 4", kept, len(s.waiting()))
	}
	for _, path := range tree(t, s.dir) {
		if strings.HasPrefix(path, ".") {
			t.Errorf("%s was left behind", path)
		}
	}
}

// The room for a document is taken before it is copied.
func TestOutboxGivesNoRoomTwice(t *testing.T) {
	s := newSender(t, bac)
	s.reopen(func(c *agency.OutboxConfig) { c.MaxBytes = 1 << 20 })
	copying, goOn := make(chan struct{}), make(chan struct{})
	slow := &growing{Source: agency.BytesSource("a.pdf", content(800_000)), write: func(_ string, reads int) error {
		if reads == 3 { // once it was looked into, and room was taken
			close(copying)
			<-goOn
		}
		return nil
	}}
	var first sync.WaitGroup
	first.Go(func() { s.submit(agency.Document{Header: header("1", "H26"), Parts: []agency.Source{slow}}) })
	<-copying
	_, err := s.outbox.Submit(testContext(t), document(t, "2", "H26", 800_000))
	if refusal, ok := envelope.AsRefusal(err); !ok || refusal.Reason != exchangev1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED {
		t.Errorf("while another takes the room: got %v", err)
	}
	close(goOn)
	first.Wait()
	s.submit(document(t, "2", "H26", 800_000))
}

// growing is a file that somebody writes to while it is read.
type growing struct {
	agency.Source
	path  string
	write func(path string, reads int) error
	reads int
}

func (g *growing) Open() (io.ReadSeekCloser, error) {
	g.reads++
	if err := g.write(g.path, g.reads); err != nil {
		return nil, err
	}
	return g.Source.Open()
}

func TestOutboxNoticesAFileThatChanges(t *testing.T) {
	for name, write := range map[string]func(path string, reads int) error{
		"longer": func(path string, reads int) error {
			return os.WriteFile(path, make([]byte, 100+reads), 0o600)
		},
		"shorter": func(path string, reads int) error {
			return os.WriteFile(path, make([]byte, 100-reads), 0o600)
		},
		"other bytes": func(path string, reads int) error {
			return os.WriteFile(path, slices.Repeat([]byte{byte(reads)}, 100), 0o600)
		},
		"other bytes once copied": func(path string, reads int) error {
			return os.WriteFile(path, slices.Repeat([]byte{byte(max(reads, 3))}, 100), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSender(t, bac)
			path := filepath.Join(t.TempDir(), "a.pdf")
			_, err := s.outbox.Submit(testContext(t), agency.Document{Header: header("1", "H26"),
				Parts: []agency.Source{&growing{Source: agency.FileSource(path), path: path, write: write}}})
			if err == nil || !strings.Contains(err.Error(), "changed while it was being read") || s.mesh.Count(agencytest.SubmitStart) != 0 {
				t.Errorf("got %v, %d submits; want it said that the file changed", err, s.mesh.Count(agencytest.SubmitStart))
			}
			s.emptied()
		})
	}
}

func TestOutboxTakesNothingThatIsNotSound(t *testing.T) {
	s := newSender(t, bac)
	secret := document(t, "1", "H26", 10)
	secret.Header.Secrecy = exchangev1.Secrecy_SECRECY_TUYET_MAT
	// A file that does not exist is not looked for: nothing of a secret is read.
	secret.Parts = []agency.Source{agency.FileSource(filepath.Join(t.TempDir(), "none.pdf"))}
	missing := document(t, "2", "H26", 10)
	missing.Parts = secret.Parts
	other := document(t, "3", "H26", 10)
	other.Header.Parts = []*exchangev1.Part{{Sha256: make([]byte, 32)}}
	for name, c := range map[string]struct {
		document agency.Document
		says     string
	}{
		"a secret":        {secret, "header.secrecy"},
		"no header":       {agency.Document{}, "header"},
		"no file":         {missing, "none.pdf"},
		"not as declared": {other, "not the one that the header describes"},
	} {
		if _, err := s.outbox.Submit(testContext(t), c.document); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
	s.emptied()
	if n := s.mesh.Count(agencytest.SubmitStart); n != 0 {
		t.Errorf("a relay was asked %d times", n)
	}
	for _, config := range []agency.OutboxConfig{{}, {Dir: s.dir}, {Client: s.client}, {Dir: s.dir, Client: s.client, MaxBytes: -1}} {
		if _, err := agency.OpenOutbox(config); err == nil {
			t.Errorf("%+v: got no error", config)
		}
	}
}
