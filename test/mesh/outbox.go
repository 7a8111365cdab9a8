package mesh

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/truclienthong/truc/relay/agency"
)

// KeepCopies has the agency hand over by way of an outbox from now on: a document
// counts as sent as soon as the outbox has it, whatever the relays say. When the
// test ends, nothing may wait in it.
func (a *Agency) KeepCopies() {
	a.m.t.Helper()
	outbox, err := agency.OpenOutbox(agency.OutboxConfig{Dir: filepath.Join(a.m.Layout.Dir, "outboxes", a.Code), Client: a.Client})
	a.m.check("outbox of "+a.Code, err)
	a.mu.Lock()
	a.outbox = outbox
	a.mu.Unlock()
	ctx, stop := context.WithCancel(a.m.ctx)
	a.running.Go(func() { _ = outbox.Run(ctx) })
	a.onClose(stop)
}

// submit hands a document over, by way of the outbox where there is one.
func (a *Agency) submit(ctx context.Context, document agency.Document) (*agency.Receipt, error) {
	a.mu.Lock()
	outbox := a.outbox
	a.mu.Unlock()
	if outbox == nil {
		return a.Client.Submit(ctx, document)
	}
	receipt, err := outbox.Submit(ctx, document)
	if kept := (*agency.KeptError)(nil); errors.As(err, &kept) {
		return &agency.Receipt{ID: kept.ID, DocumentID: kept.DocumentID}, nil
	}
	return receipt, err
}

// emptyOutbox waits until two relays have everything that was handed over.
func (a *Agency) emptyOutbox() {
	a.m.t.Helper()
	a.mu.Lock()
	outbox := a.outbox
	a.mu.Unlock()
	if outbox == nil {
		return
	}
	a.m.Await("the outbox of "+a.Code+" is empty", func(ctx context.Context) error {
		failed := outbox.Tend(ctx)
		waiting, err := outbox.List()
		if err != nil || len(waiting) == 0 {
			return err
		}
		return fmt.Errorf("%d documents wait, the first %s: %s; %w", len(waiting), waiting[0].ID, waiting[0].LastError, failed)
	})
	aside, err := outbox.SetAside()
	a.m.check("outbox of "+a.Code, err)
	for _, s := range aside {
		a.m.t.Errorf("%s: document %s was set aside: %s", a.Code, s.DocumentID, s.Message)
	}
}
