package agency_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/agency/agencytest"
	"github.com/truclienthong/truc/relay/envelope"
)

func TestReceiveGivesEachOnceWhateverBreaks(t *testing.T) {
	const documents = 12
	mesh := newMesh(t, bac, trung)
	sender, recipient := newClient(t, configOf(t, mesh, "G22")), configOf(t, mesh, "H26")
	for _, c := range []struct {
		step agencytest.Step
		n    int
	}{
		{agencytest.Attach, 1}, {agencytest.Receive, 1}, {agencytest.ReceiveSend, 1}, {agencytest.ReceiveSend, 5}, {agencytest.ReceiveSend, documents},
		{agencytest.Confirm, 1}, {agencytest.Confirm, 7}, {agencytest.Confirmed, 1}, {agencytest.Confirmed, documents},
	} {
		t.Run(fmt.Sprintf("%s %d", c.step, c.n), func(t *testing.T) {
			for i := range documents {
				submit(t, sender, fmt.Sprint(c.step, c.n, i), "H26", 10)
			}
			mesh.Fault(failOnce(c.step, c.n, cut()))
			seen := map[string]int{}
			for a, err := range newClient(t, recipient).Receive(testContext(t), agency.ReceiveOptions{Drain: true}) {
				if err != nil {
					t.Fatal(err)
				}
				seen[a.Envelope.GetHeader().GetDocumentId()]++
				if err := a.Confirm(testContext(t)); err != nil {
					t.Fatal(err)
				}
			}
			if len(seen) != documents || mesh.Waiting("H26") != 0 {
				t.Errorf("got %d of %d documents, %d wait still", len(seen), documents, mesh.Waiting("H26"))
			}
			for id, n := range seen {
				if n != 1 {
					t.Errorf("document %s was given %d times", id, n)
				}
			}
		})
	}
}

func TestReceiveGivesTheUnconfirmedToTheNextProcess(t *testing.T) {
	mesh := newMesh(t, bac)
	sender := newClient(t, configOf(t, mesh, "G22"))
	submit(t, sender, "1", "H26", 10)
	submit(t, sender, "2", "H26", 10)
	recipient := newClient(t, configOf(t, mesh, "H26"))
	all := receiveAll(t, recipient)
	if len(all) != 2 {
		t.Fatalf("got %d arrivals, want 2", len(all))
	}
	if again := receiveAll(t, recipient); len(again) != 0 {
		t.Errorf("the same process was given %d again", len(again))
	}
	all[0].Release()
	if again := receiveAll(t, recipient); len(again) != 1 || again[0].ID != all[0].ID {
		t.Errorf("after Release: got %d arrivals, want the released one", len(again))
	}
	if err := all[1].Confirm(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if next := receiveAll(t, newClient(t, configOf(t, mesh, "H26"))); len(next) != 1 || next[0].ID != all[0].ID {
		t.Errorf("the next process was given %d, want the one unconfirmed", len(next))
	}
}

// What is given back is given out again, on the stream that is open, beside what else
// arrives.
func TestReceiveGivesOutAgainWhatWasReleased(t *testing.T) {
	mesh := newMesh(t, bac)
	sender := newClient(t, configOf(t, mesh, "G22"))
	recipient := newClient(t, configOf(t, mesh, "H26"))
	first := submit(t, sender, "1", "H26", 10).ID
	given := map[envelope.ID]int{}
	for arrival, err := range recipient.Receive(testContext(t), agency.ReceiveOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		given[arrival.ID]++
		if arrival.ID == first && given[first] < 4 {
			if given[first] == 2 {
				submit(t, sender, "2", "H26", 10)
			}
			arrival.Release()
			arrival.Release()
			continue
		}
		if err := arrival.Confirm(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if len(given) == 2 && given[first] == 4 {
			break
		}
	}
	for id, n := range given {
		if want := map[bool]int{true: 4, false: 1}[id == first]; n != want {
			t.Errorf("envelope %s was given out %d times, want %d", id, n, want)
		}
	}
	if n := mesh.Waiting("H26"); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// A confirmation that was answered but lost at the relay, for example with it,
// is repeated when the envelope comes again, and the envelope not given out.
func TestReceiveConfirmsAgain(t *testing.T) {
	mesh := newMesh(t, bac)
	sender, recipient := newClient(t, configOf(t, mesh, "G22")), newClient(t, configOf(t, mesh, "H26"))
	submit(t, sender, "1", "H26", 10)
	a := receiveAll(t, recipient)[0]
	mesh.Forget(true)
	if err := a.Confirm(testContext(t)); err != nil {
		t.Fatal(err)
	}
	mesh.Forget(false)
	if mesh.Waiting("H26") != 1 {
		t.Fatal("the test's relay did not forget")
	}
	if again := receiveAll(t, recipient); len(again) != 0 || mesh.Waiting("H26") != 0 {
		t.Errorf("given %d again, %d waiting; want it confirmed again in silence", len(again), mesh.Waiting("H26"))
	}
}

// A confirmation that a relay answered which did not have the envelope yet, while
// the envelope arrived a second time, is made once more.
func TestReceiveConfirmsWhatArrivedDuringAConfirmation(t *testing.T) {
	mesh := newMesh(t, bac)
	sender := newClient(t, configOf(t, mesh, "G22"))
	first := submit(t, sender, "1", "H26", 10)
	recipient := newClient(t, configOf(t, mesh, "H26"))

	mesh.Forget(true)
	asked, answer := make(chan struct{}), make(chan struct{})
	var cut atomic.Bool
	mesh.Fault(func(_ string, step agencytest.Step) error {
		switch {
		case step == agencytest.Confirmed && mesh.Count(step) == 1:
			close(asked)
			<-answer
		case step == agencytest.ReceiveSend && cut.CompareAndSwap(true, false):
			return errors.New("cut")
		}
		return nil
	})
	ended := make(chan error, 1)
	for a, err := range recipient.Receive(testContext(t), agency.ReceiveOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if a.ID == first.ID {
			go func() { ended <- a.Confirm(testContext(t)) }()
			<-asked
			cut.Store(true)
			submit(t, sender, "2", "H26", 10)
			continue
		}
		break // the first came again before this one
	}
	mesh.Forget(false)
	close(answer)
	if err := <-ended; err != nil || mesh.Waiting("H26") != 1 {
		t.Errorf("%v, %d wait, want the second document alone", err, mesh.Waiting("H26"))
	}
}

func TestReceiveWaitsForWhatArrivesAndMoves(t *testing.T) {
	mesh := newMesh(t, bac, trung)
	sender := newClient(t, configOf(t, mesh, "G22", "trung"))
	recipient := newClient(t, configOf(t, mesh, "H26", "bac"))
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	arrived := make(chan string)
	var done sync.WaitGroup
	var last error
	done.Go(func() {
		defer close(arrived)
		for a, err := range recipient.Receive(ctx, agency.ReceiveOptions{}) {
			if err != nil {
				last = err
				return
			}
			arrived <- a.Envelope.GetHeader().GetDocumentId()
		}
	})
	for i := range 3 {
		if i == 1 {
			mesh.Stop("bac") // which it was attached to; trung was learned
		}
		document := fmt.Sprint(i)
		submit(t, sender, document, "H26", 10)
		if got := <-arrived; got != document {
			t.Errorf("got %s, want %s", got, document)
		}
	}
	cancel()
	done.Wait()
	if !errors.Is(last, context.Canceled) {
		t.Errorf("ended with %v, want the end of the context", last)
	}
}

// Outside its region a client does not wait for the time at which every choice is
// questioned.
func TestReceiveGoesBackToTheNearerRelay(t *testing.T) {
	mesh := newMesh(t, bac, nam)
	mesh.Stop("bac")
	recipient := newClient(t, configOf(t, mesh, "H26").Away(50*time.Millisecond))
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	// Attached to nam, then bac comes back: the stream must end at nam and open
	// at bac.
	at := make(chan string, 16)
	mesh.Fault(func(relay string, step agencytest.Step) error {
		if step == agencytest.Receive {
			at <- relay
		}
		return nil
	})
	var done sync.WaitGroup
	done.Go(func() {
		for range recipient.Receive(ctx, agency.ReceiveOptions{}) {
		}
	})
	if got := <-at; got != "nam" {
		t.Errorf("first attached to %s, want nam", got)
	}
	if err := mesh.Start("bac"); err != nil {
		t.Fatal(err)
	}
	if got := <-at; got != "bac" {
		t.Errorf("then attached to %s, want bac of the home region", got)
	}
	cancel()
	done.Wait()
}

func TestReceiveEndsOnARefusalThatStays(t *testing.T) {
	mesh := newMesh(t, bac)
	mesh.Fault(func(_ string, step agencytest.Step) error {
		if step == agencytest.Receive {
			return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED, "suspended")
		}
		return nil
	})
	var last error
	for _, last = range newClient(t, configOf(t, mesh, "H26")).Receive(testContext(t), agency.ReceiveOptions{}) {
	}
	if refusal, ok := envelope.AsRefusal(last); !ok || refusal.Reason != exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED {
		t.Errorf("ended with %v, want the refusal", last)
	}
}

func TestDrainGivesUpWhenNoRelayAnswers(t *testing.T) {
	mesh := newMesh(t, bac)
	config := configOf(t, mesh, "H26")
	config.Patience = 50 * time.Millisecond
	mesh.Stop("bac")
	var last error
	for _, last = range newClient(t, config).Receive(testContext(t), agency.ReceiveOptions{Drain: true}) {
	}
	if last == nil || !envelope.Temporary(last) {
		t.Errorf("ended with %v, want a temporary failure", last)
	}
}

func TestPartIsReadWholeWhateverBreaks(t *testing.T) {
	const size = 300_000 // five pieces
	for _, c := range []struct {
		step agencytest.Step
		n    int
	}{{agencytest.Fetch, 1}, {agencytest.FetchSend, 1}, {agencytest.FetchSend, 3}, {agencytest.FetchSend, 5}} {
		t.Run(fmt.Sprintf("%s %d", c.step, c.n), func(t *testing.T) {
			mesh := newMesh(t, bac, trung)
			submit(t, newClient(t, configOf(t, mesh, "G22")), "1", "H26", size)
			a := receiveAll(t, newClient(t, configOf(t, mesh, "H26")))[0]
			mesh.Fault(failOnce(c.step, c.n, cut()))
			r, err := a.Part(testContext(t), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got, err := io.ReadAll(r)
			if err != nil || string(got) != string(content(size)) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
			if c.step == agencytest.FetchSend {
				if sent := mesh.Count(agencytest.FetchSend); sent != 6 {
					t.Errorf("%d pieces were sent, want 6: what was read must not travel again", sent)
				}
			}
		})
	}
}

func TestPartNoticesDamage(t *testing.T) {
	for name, size := range map[string]int{"inline": 1000, "fetched": 300_000} {
		mesh := newMesh(t, bac)
		submit(t, newClient(t, configOf(t, mesh, "G22")), "1", "H26", size)
		mesh.Damage(func(_ string, _ int, data []byte) []byte { data[len(data)/2] ^= 1; return data })
		r, err := receiveAll(t, newClient(t, configOf(t, mesh, "H26")))[0].Part(testContext(t), 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r); !errors.Is(err, agency.ErrDamaged) {
			t.Errorf("%s: got %v, want ErrDamaged", name, err)
		}
		r.Close()
	}
}

func TestAnArrivalThatWasChangedIsNotGivenOut(t *testing.T) {
	mesh := newMesh(t, bac)
	sender := newClient(t, configOf(t, mesh, "G22"))
	bad := submit(t, sender, "1", "H26", 10)
	good := submit(t, sender, "2", "H26", 10)
	mesh.Tamper(bad.ID, func(h *exchangev1.Header) { h.Document.Subject = "khác" })
	all := receiveAll(t, newClient(t, configOf(t, mesh, "H26")))
	if len(all) != 1 || all[0].ID != good.ID {
		t.Errorf("got %d arrivals, want only the unchanged one", len(all))
	}
}

func TestOneTraceFromSenderToRecipient(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	mesh := newMesh(t, bac)
	senderConfig, recipientConfig := configOf(t, mesh, "G22"), configOf(t, mesh, "H26")
	senderConfig.Tracer, recipientConfig.Tracer = provider.Tracer("sender"), provider.Tracer("recipient")
	submit(t, newClient(t, senderConfig), "1", "H26", 10)
	a := receiveAll(t, newClient(t, recipientConfig))[0]
	if _, err := a.Save(testContext(t), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if err := a.Confirm(testContext(t)); err != nil {
		t.Fatal(err)
	}
	want := trace.SpanContextFromContext(a.Context(t.Context())).TraceID()
	names := ""
	for _, span := range recorder.Ended() {
		names += span.Name() + " "
		if span.SpanContext().TraceID() != want || !want.IsValid() {
			t.Errorf("span %s is of trace %s, want %s", span.Name(), span.SpanContext().TraceID(), want)
		}
	}
	if names != "submit save confirm " {
		t.Errorf("spans %q, want submit, save, confirm", names)
	}
}

func TestTrackAndLookup(t *testing.T) {
	mesh := newMesh(t, bac)
	sender := newClient(t, configOf(t, mesh, "G22"))
	r := submit(t, sender, "số 1", "000.00.00.G22", 10)
	for name, track := range map[string]func() (*exchangev1.TrackResponse, error){
		"by envelope": func() (*exchangev1.TrackResponse, error) { return sender.Track(testContext(t), r.ID) },
		"by document": func() (*exchangev1.TrackResponse, error) { return sender.TrackDocument(testContext(t), "số 1") },
	} {
		answer, err := track()
		if err != nil || string(answer.GetReceipt().GetEnvelopeId()) != string(r.ID[:]) || len(answer.GetDeliveries()) != 1 {
			t.Errorf("%s: got %v, %v", name, answer, err)
		}
	}
	if _, err := sender.Track(testContext(t), envelope.ID{1}); err == nil || envelope.Temporary(err) {
		t.Errorf("an unknown id: got %v, want it refused for good", err)
	}
	for name, c := range map[string]struct {
		query agency.Query
		want  string
	}{
		"all, over pages": {agency.Query{}, "[G22 H26 H26.12 H26.12.05 H48]"},
		"under":           {agency.Query{Under: "H26.12"}, "[H26.12 H26.12.05]"},
		"tier":            {agency.Query{Tier: 2}, "[H26 H48]"},
		"older code":      {agency.Query{Code: "000.00.00.G22"}, "[G22]"},
		"none":            {agency.Query{Search: "không có"}, "[]"},
	} {
		got := []string{}
		for a, err := range sender.Lookup(testContext(t), c.query) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, a.GetCode())
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: got %v, want %s", name, got, c.want)
		}
	}
	var pages []string
	for after, more := "", true; more; more = after != "" {
		page, next, err := sender.LookupPage(testContext(t), agency.Query{Under: "H26"}, 1, after)
		if err != nil || len(page) != 1 {
			t.Fatalf("page of one after %q: got %v, %v", after, page, err)
		}
		pages, after = append(pages, page[0].GetCode()), next
	}
	if want := "[H26 H26.12 H26.12.05]"; fmt.Sprint(pages) != want {
		t.Errorf("page by page: got %v, want %s", pages, want)
	}
	if _, _, err := sender.LookupPage(testContext(t), agency.Query{}, agency.MaxPage+1, ""); err == nil || envelope.Temporary(err) {
		t.Errorf("a page of %d: got %v, want it refused for good", agency.MaxPage+1, err)
	}
	answer, err := sender.Attach(testContext(t))
	if err != nil || answer.GetHomeRelayId() != "bac" {
		t.Errorf("attach: %v, %v", answer, err)
	}
}

func TestClosedClient(t *testing.T) {
	mesh := newMesh(t, bac)
	c, err := agency.New(configOf(t, mesh, "G22"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(testContext(t)); err == nil || envelope.Temporary(err) {
		t.Errorf("a closed client: got %v, want a refusal", err)
	}
}
