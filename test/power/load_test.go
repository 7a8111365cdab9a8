package power

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/history"
	"github.com/truclienthong/truc/test/mesh"
)

// agencies hand in and take; two have their home at each relay.
var agencies = []string{"G22", "G12", "H17", "H41", "H13", "H13.16"}

// load begins the load; it ends with the test.
func (s *stand) load() {
	for i, code := range agencies {
		s.running.Go(func() { s.receive(code, rand.New(rand.NewPCG(s.seed, streamRecipients+uint64(i)))) })
	}
	for i, code := range agencies {
		random := rand.New(rand.NewPCG(s.seed, streamSenders+uint64(i)))
		client := s.client(code)
		s.running.Go(func() {
			defer client.Close()
			s.send(code, client, nil, random)
		})
		if i%2 == 0 {
			continue
		}
		// The documents of an outbox are promised as soon as it has them.
		kept := s.client(code)
		outbox, err := agency.OpenOutbox(agency.OutboxConfig{Dir: filepath.Join(s.m.Layout.Dir, "outboxes", code), Client: kept})
		if err != nil {
			s.t.Fatal(err)
		}
		s.running.Go(func() { _ = outbox.Run(s.ctx) })
		s.running.Go(func() {
			defer kept.Close()
			s.send(code+" by outbox", kept, outbox, rand.New(rand.NewPCG(s.seed, streamSenders+100+uint64(i))))
		})
	}
	s.operate()
}

func (s *stand) client(code string) *agency.Client {
	config, err := agency.LoadProfile(s.m.Layout.Profile(code))
	if err != nil {
		s.t.Fatal(err)
	}
	config.Logger = slog.New(slog.DiscardHandler)
	client, err := agency.New(config)
	if err != nil {
		s.t.Fatal(err)
	}
	return client
}

// pace is how long a sender rests between documents, at most.
const pace = 250 * time.Millisecond

func (s *stand) send(who string, client *agency.Client, outbox *agency.Outbox, random *rand.Rand) {
	desk := s.m.Agency(agencyOf(who))
	for number := 0; ; number++ {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(time.Duration(random.Int64N(int64(pace)))):
		}
		to := make([]string, 0, 3)
		for _, i := range random.Perm(len(agencies))[:1+random.IntN(3)] {
			to = append(to, agencies[i])
		}
		s.pause.RLock()
		s.handIn(desk, client, outbox, fmt.Sprintf("%s, %d", who, number), files(random), to)
		s.pause.RUnlock()
	}
}

func agencyOf(who string) string {
	for _, code := range agencies {
		if who == code || who == code+" by outbox" {
			return code
		}
	}
	panic("nobody is called " + who)
}

// files are what a document consists of: mostly small, sometimes of several
// records of the journal.
func files(random *rand.Rand) mesh.Files {
	f := mesh.Files{}
	for i := range 1 + random.IntN(2) {
		size := 1 + random.IntN(60_000)
		if random.IntN(20) == 0 {
			size = random.IntN(3 << 20)
		}
		content := make([]byte, size)
		for at := 0; at < size; at += 8 {
			word := random.Uint64()
			for j := at; j < min(at+8, size); j++ {
				content[j] = byte(word >> (8 * (j - at)))
			}
		}
		f[fmt.Sprintf("part-%d.pdf", i)] = content
	}
	return f
}

// handIn hands one document in until it has an answer.
func (s *stand) handIn(desk *mesh.Agency, client *agency.Client, outbox *agency.Outbox, id string, files mesh.Files, to []string) {
	document := desk.Document(files, to...)
	document.Header.DocumentId = id
	s.history.HandIn(history.Document{Sender: desk.Code, ID: id, To: to, Sum: history.SumOf(files)})
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	var receipt *agency.Receipt
	var err error
	if outbox == nil {
		receipt, err = client.Submit(ctx, document)
	} else {
		receipt, err = outbox.Submit(ctx, document)
		if kept := (*agency.KeptError)(nil); errors.As(err, &kept) {
			receipt, err = &agency.Receipt{ID: kept.ID}, nil
		}
	}
	switch {
	case err == nil:
		s.history.Promised(desk.Code, id, receipt.ID, time.Now())
	case s.ctx.Err() == nil:
		s.t.Errorf("document %s: no relay takes it: %v", id, err)
	}
}

// probe hands a document in and waits for its receipt, load or no load.
func (s *stand) probe() {
	s.t.Helper()
	client := s.client("G22")
	defer client.Close()
	s.handIn(s.m.Agency("G22"), client, nil, fmt.Sprintf("probe %d", s.random.Uint64()), files(s.random), agencies[:3])
}

// receive takes what comes for an agency. Each connection is one of a new client
// without memory, and what was confirmed leaves the folder: only the mesh keeps it
// from coming again.
func (s *stand) receive(code string, random *rand.Rand) {
	folder := filepath.Join(s.m.Layout.Dir, "folders", code)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		s.t.Error(err)
		return
	}
	for s.ctx.Err() == nil {
		client := s.client(code)
		session, end := context.WithTimeout(s.ctx, time.Duration(1+random.IntN(5))*time.Second)
		for arrival, err := range client.Receive(session, agency.ReceiveOptions{}) {
			if err == nil {
				err = s.take(session, code, folder, arrival)
			}
			if err != nil && session.Err() == nil && !envelope.Temporary(err) {
				s.t.Errorf("%s receives: %v", code, err)
			}
		}
		end()
		client.Close()
	}
}

func (s *stand) take(ctx context.Context, code, folder string, arrival *agency.Arrival) error {
	saved, err := arrival.Save(ctx, folder)
	if err != nil {
		arrival.Release()
		return err
	}
	if !saved.Repeat {
		content := mesh.Files{}
		for _, f := range saved.Files {
			if content[f.Name], err = os.ReadFile(f.Path); err != nil {
				return err
			}
		}
		header := arrival.Envelope.GetHeader()
		s.history.Took(code, arrival.ID, header.GetSender().GetCode(), header.GetDocumentId(), history.SumOf(content), time.Now())
	}
	if err := arrival.Confirm(ctx); err != nil {
		arrival.Release()
		return err
	}
	return os.RemoveAll(saved.Dir)
}
