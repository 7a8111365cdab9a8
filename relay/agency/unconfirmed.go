package agency

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// unconfirmedFile is in a folder that Save made until the mesh has confirmed that
// the agency has the envelope. It comes with the folder, and goes without a sync:
// one that is back after a power cut is only asked about once more.
const unconfirmedFile = ".unconfirmed"

// takenBackSuffix ends the hidden name of a folder that is being removed.
const takenBackSuffix = ".takenback"

// confirmed says that the mesh knows that the agency has what is in a folder.
func confirmed(folder string) error {
	return unlessGone(os.Remove(filepath.Join(folder, unconfirmedFile)))
}

// destroy removes a folder whose envelope was taken back before it was confirmed;
// false: the mesh had confirmed it before, so it stays until its sender asks.
func destroy(folder string) (bool, error) {
	if _, err := os.Lstat(filepath.Join(folder, unconfirmedFile)); err != nil {
		return false, unlessGone(err)
	}
	// Nobody may take what is left for a document, should this end in between.
	aside := filepath.Join(filepath.Dir(folder), "."+filepath.Base(folder)+takenBackSuffix)
	if err := os.Rename(folder, aside); err != nil {
		return false, err
	}
	return true, os.RemoveAll(aside)
}

// TakenBack is an envelope in a folder that its sender took back.
type TakenBack struct {
	ID     envelope.ID
	Sender string
}

// DestroyTakenBack removes from dir what Save wrote there and could not be
// confirmed, because the process ended in between, and what was taken back since: it
// does not come again, so nobody would hear of it. Call it when a process begins, and
// now and then. What is unconfirmed and was not taken back comes again, and stays.
func (c *Client) DestroyTakenBack(ctx context.Context, dir string) (all []TakenBack, err error) {
	found, err := os.ReadDir(dir)
	if err != nil {
		return nil, unlessGone(err)
	}
	for _, entry := range found {
		folder := filepath.Join(dir, entry.Name())
		if strings.HasSuffix(folder, takenBackSuffix) { // a process ended in between
			if err := os.RemoveAll(folder); err != nil {
				return all, err
			}
		}
		if _, err := os.Lstat(filepath.Join(folder, unconfirmedFile)); err != nil {
			continue
		}
		one, taken, err := c.takenBack(ctx, folder)
		if err != nil {
			return all, err
		}
		if !taken {
			continue
		}
		gone, err := destroy(folder)
		if err != nil {
			return all, err
		}
		if gone {
			all = append(all, one)
		}
	}
	return all, nil
}

// takenBack asks the mesh about the envelope in a folder.
func (c *Client) takenBack(ctx context.Context, folder string) (one TakenBack, taken bool, err error) {
	text, err := os.ReadFile(filepath.Join(folder, envelopeFile))
	if err != nil {
		return one, false, unlessGone(err)
	}
	var d description
	if err := json.Unmarshal(text, &d); err != nil {
		return one, false, nil // none of ours
	}
	if one.ID, err = envelope.ParseID(d.EnvelopeID); err != nil {
		return one, false, nil
	}
	track, err := c.track(ctx, one.ID, &exchangev1.TrackRequest{
		AgencyCode: d.Agency, AllRelays: true, Envelope: &exchangev1.TrackRequest_EnvelopeId{EnvelopeId: one.ID[:]},
	})
	if refusal := (*envelope.Refusal)(nil); errors.As(err, &refusal) && !envelope.Temporary(err) {
		return one, false, nil // nobody knows it any more
	}
	if err != nil {
		return one, false, fmt.Errorf("what became of envelope %s: %w", one.ID, err)
	}
	one.Sender = track.GetHeader().GetSender().GetCode()
	for _, delivery := range track.GetDeliveries() {
		taken = taken || delivery.GetReason() == exchangev1.ErrorReason_ERROR_REASON_RECALLED &&
			delivery.GetTransport() == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL
	}
	return one, taken && len(track.GetDeliveries()) == 1, nil
}
