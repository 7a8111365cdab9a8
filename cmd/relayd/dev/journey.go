package dev

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
)

// arriveWithin is how long a journey may take; it takes milliseconds.
const arriveWithin = 30 * time.Second

// journey is a document of the demonstration.
type journey struct {
	title    string
	from     string
	to       []string // codes, or @group
	arrivals []string // agencies that receive it
	priority exchangev1.Priority
	typeName string
	subject  string
	files    map[string][]byte
}

func journeys() []journey {
	report := "Báo cáo tình hình kinh tế - xã hội tháng 10 năm 2026"
	return []journey{
		{
			title: "a commune writes to the Government Office", from: "H17.97.08", to: []string{"G22"}, arrivals: []string{"G22"},
			typeName: "Báo cáo", subject: report,
			files: map[string][]byte{
				"12-BC-UBND.pdf":  sample.PDF("Bao cao 12/BC-UBND", 230_000),
				"12-BC-UBND.docx": sample.DOCX(report, 40_000, "Kính gửi: Văn phòng Chính phủ."),
			},
		},
		{
			title: "a ministry sends a circular to every province", from: "G12", to: []string{"@provinces"},
			arrivals: []string{"H13", "H17", "H26", "H41"},
			typeName: "Công văn", subject: "V/v hướng dẫn lập dự toán ngân sách năm 2027",
			files: map[string][]byte{"8412-BTC-NSNN.pdf": sample.PDF("Cong van 8412/BTC-NSNN", 370_000)},
		},
		{
			title: "a province sends a hỏa tốc telegram", from: "H13", to: []string{"H41", "G17"}, arrivals: []string{"H41", "G17"},
			priority: exchangev1.Priority_PRIORITY_HOA_TOC,
			typeName: "Công điện", subject: "Về việc ứng phó bão số 12",
			files: map[string][]byte{"05-CD-UBND.pdf": sample.PDF("Cong dien 05/CD-UBND", 60_000)},
		},
	}
}

// travel sends every document, receives it at each recipient, and prints the
// journey as the relays tell it.
func travel(ctx context.Context, l Layout, o Options, operator *Operator) error {
	run := time.Now().Format("20060102150405")
	for i, j := range journeys() {
		if err := o.say("── %s", j.title); err != nil {
			return err
		}
		told, err := j.travel(ctx, l, operator, fmt.Sprintf("%s,2026,%s-%d", j.from, run, i+1))
		if err != nil {
			return fmt.Errorf("%s: %w", j.title, err)
		}
		if err := o.Print(told, told.text); err != nil {
			return err
		}
	}
	return nil
}

// told is one journey as it is printed; the JSON of `relayd dev -o json`.
type told struct {
	EnvelopeID string      `json:"envelope_id"`
	From       string      `json:"from"`
	To         []string    `json:"to"`
	Subject    string      `json:"subject"`
	Priority   int32       `json:"priority"`
	ReceiptMS  float64     `json:"receipt_ms"`
	Repeat     bool        `json:"repeat_got_original_receipt"`
	Files      []toldFile  `json:"files"`
	Events     []toldEvent `json:"events"`
}

type toldFile struct {
	Name     string `json:"name"`
	Size     int    `json:"size"`
	SHA256   string `json:"sha256"`
	Verified int    `json:"verified_at_recipients"`
}

type toldEvent struct {
	AfterMS float64 `json:"after_ms"`
	Relay   string  `json:"relay"`
	Action  string  `json:"action"`
	Peer    string  `json:"peer"`
	Agency  string  `json:"agency"`
}

func (j journey) travel(ctx context.Context, l Layout, operator *Operator, documentID string) (told, error) {
	ctx, cancel := context.WithTimeout(ctx, arriveWithin)
	defer cancel()
	document := j.document(documentID)
	sender, err := l.client(j.from)
	if err != nil {
		return told{}, err
	}
	defer sender.Close()
	if _, err := sender.Attach(ctx); err != nil {
		return told{}, err
	}
	begun := time.Now()
	receipt, err := sender.Submit(ctx, document)
	if err != nil {
		return told{}, err
	}
	t := told{EnvelopeID: receipt.ID.String(), From: j.from, To: j.to, Subject: j.subject, Priority: int32(j.priority),
		ReceiptMS: ms(time.Since(begun))}
	for _, source := range document.Parts {
		content := j.files[source.Name()]
		sum := sha256.Sum256(content)
		t.Files = append(t.Files, toldFile{Name: source.Name(), Size: len(content), SHA256: hex.EncodeToString(sum[:])})
	}
	// The sender's system forgot that it had sent it.
	again, err := sender.Submit(ctx, document)
	if err != nil {
		return told{}, fmt.Errorf("submitting again: %w", err)
	}
	t.Repeat = again.Repeat && again.ID == receipt.ID && again.AcceptedAt.Equal(receipt.AcceptedAt)

	for _, code := range j.arrivals {
		if err := j.receive(ctx, l, code, receipt.ID, t.Files); err != nil {
			return told{}, fmt.Errorf("agency %s: %w", code, err)
		}
	}
	if err := awaitDone(ctx, sender, receipt.ID); err != nil {
		return told{}, err
	}
	id := receipt.ID
	trace, err := operator.Custody.Trace(ctx, &adminv1.TraceRequest{EnvelopeId: id[:]})
	if err != nil {
		return told{}, err
	}
	for _, e := range trace.GetEvents() {
		t.Events = append(t.Events, toldEvent{
			AfterMS: ms(e.GetAt().AsTime().Sub(receipt.AcceptedAt)), Relay: e.GetRelayId(), Peer: e.GetPeerRelayId(), Agency: e.GetAgencyCode(),
			Action: strings.ToLower(strings.TrimPrefix(e.GetAction().String(), "TRACE_ACTION_")),
		})
	}
	return t, nil
}

func (j journey) document(documentID string) agency.Document {
	header := &exchangev1.Header{
		Kind: exchangev1.Kind_KIND_DOCUMENT, DocumentId: documentID, Priority: j.priority,
		Document: &exchangev1.Document{TypeName: j.typeName, Subject: j.subject, Place: "Hà Nội"},
	}
	for _, to := range j.to {
		r := &exchangev1.Recipient{To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: to}}}
		if group, ok := strings.CutPrefix(to, "@"); ok {
			r = &exchangev1.Recipient{To: &exchangev1.Recipient_Group{Group: group}}
		}
		header.Recipients = append(header.Recipients, r)
	}
	d := agency.Document{Header: header}
	for _, name := range slices.Sorted(maps.Keys(j.files)) {
		d.Parts = append(d.Parts, agency.BytesSource(name, j.files[name]))
	}
	return d
}

// receive saves and confirms what waits for the agency until the envelope is
// there, then compares the files with what was sent.
func (j journey) receive(ctx context.Context, l Layout, code string, id envelope.ID, files []toldFile) error {
	client, err := l.client(code)
	if err != nil {
		return err
	}
	defer client.Close()
	inbox := filepath.Join(l.Dir, "inboxes", code)
	if err := os.MkdirAll(inbox, 0o755); err != nil {
		return err
	}
	for arrival, err := range client.Receive(ctx, agency.ReceiveOptions{}) {
		if err != nil {
			return err
		}
		saved, err := arrival.Save(ctx, inbox)
		if err != nil {
			return err
		}
		if err := arrival.Confirm(ctx); err != nil {
			return err
		}
		if arrival.ID != id {
			continue // of an earlier run
		}
		for i, f := range files {
			content, err := os.ReadFile(filepath.Join(saved.Dir, f.Name))
			if err != nil {
				return err
			}
			if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != f.SHA256 {
				return fmt.Errorf("%s arrived with SHA-256 %x, sent was %s", f.Name, sum, f.SHA256)
			}
			files[i].Verified++
		}
		return nil
	}
	return ctx.Err()
}

// awaitDone waits until the confirmations are back at the ingress.
func awaitDone(ctx context.Context, sender *agency.Client, id envelope.ID) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		track, err := sender.Track(ctx, id)
		if err != nil {
			return err
		}
		open := 0
		for _, d := range track.GetDeliveries() {
			if d.GetTransport() != exchangev1.TransportStatus_TRANSPORT_STATUS_DONE {
				open++
			}
		}
		if open == 0 && len(track.GetDeliveries()) > 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d deliveries are not confirmed: %w", open, ctx.Err())
		}
	}
}

func (l Layout) client(code string) (*agency.Client, error) {
	config, err := agency.LoadProfile(l.Profile(code))
	if err != nil {
		return nil, err
	}
	return agency.New(config)
}

func (t told) text(w io.Writer) error {
	p := &printer{w: w}
	p.line("   envelope %s  %s → %s", t.EnvelopeID, t.From, strings.Join(t.To, ", "))
	p.line("   %q, receipt after %.1f ms; handed over again: %s", t.Subject, t.ReceiptMS, map[bool]string{true: "the original receipt", false: "ANOTHER RECEIPT"}[t.Repeat])
	for _, e := range t.Events {
		peer := ""
		if e.Peer != "" {
			peer = " → " + e.Peer
			if e.Action == "taken" {
				peer = " ← " + e.Peer
			}
		}
		p.line("   %8.1f ms  %-6s %s%s %s", e.AfterMS, e.Relay, e.Action, peer, e.Agency)
	}
	for _, f := range t.Files {
		p.line("   %s  %d bytes  sha256 %s, the same at %d recipients", f.Name, f.Size, f.SHA256, f.Verified)
	}
	p.line("")
	return p.err
}

// printer keeps the first error of many lines.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
