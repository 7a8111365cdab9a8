package agency_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/agency/agencytest"
)

// One agency hands over a document, another takes it in.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	// A mesh to try it on; in earnest there is a profile from the data centre.
	mesh, err := agencytest.New(agencytest.Config{Dir: dir, Agencies: []*exchangev1.AgencyInfo{{Code: "G22"}, {Code: "H26"}}})
	if err != nil {
		log.Fatal(err)
	}
	defer mesh.Close()

	sender := open(mesh, "G22")
	defer sender.Close()
	receipt, err := sender.Submit(ctx, agency.Document{
		Header: &exchangev1.Header{
			DocumentId: "G22,2025/10/20,7816/VPCP-TTĐT",
			Recipients: []*exchangev1.Recipient{{To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: "H26"}}}},
			Document: &exchangev1.Document{
				Code:    &exchangev1.Code{Number: "7816", Notation: "VPCP-TTĐT"},
				Subject: "V/v gửi, nhận văn bản điện tử",
			},
		},
		Parts: []agency.Source{agency.BytesSource("công văn.pdf", []byte("%PDF-1.7 …"))},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("sent", receipt.DocumentID, "to", receipt.Recipients, "recipient")

	recipient := open(mesh, "H26")
	defer recipient.Close()
	for arrival, err := range recipient.Receive(ctx, agency.ReceiveOptions{Drain: true}) {
		if err != nil {
			log.Fatal(err)
		}
		saved, err := arrival.Save(ctx, filepath.Join(dir, "incoming"))
		if err != nil {
			log.Fatal(err)
		}
		if err := arrival.Confirm(ctx); err != nil {
			log.Fatal(err)
		}
		fmt.Println("received", arrival.Envelope.GetHeader().GetDocumentId(), "with", saved.Files[0].Name)
	}

	tracked, err := sender.Track(ctx, receipt.ID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tracked.GetDeliveries()[0].GetAgencyCode(), tracked.GetDeliveries()[0].GetTransport())
	// Output:
	// sent G22,2025/10/20,7816/VPCP-TTĐT to 1 recipient
	// received G22,2025/10/20,7816/VPCP-TTĐT with công văn.pdf
	// H26 TRANSPORT_STATUS_DONE
}

// The only relay that had a document is lost, and the sender's outbox hands it
// over again.
func ExampleOutbox() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	mesh, err := agencytest.New(agencytest.Config{
		Dir: dir, Relays: []agencytest.Relay{{ID: "bac", Region: "Bắc"}},
		Agencies: []*exchangev1.AgencyInfo{{Code: "G22"}, {Code: "H26"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer mesh.Close()
	client := open(mesh, "G22")
	defer client.Close()

	outbox, err := agency.OpenOutbox(agency.OutboxConfig{Dir: filepath.Join(dir, "outbox"), Client: client})
	if err != nil {
		log.Fatal(err)
	}
	mesh.Copies(1)
	receipt, err := outbox.Submit(ctx, agency.Document{
		Header: &exchangev1.Header{
			DocumentId: "12",
			Recipients: []*exchangev1.Recipient{{To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: "H26"}}}},
			Document:   &exchangev1.Document{Subject: "Công điện"},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("copies", receipt.Copies)
	mesh.Lose("bac")
	if err := mesh.Start("bac"); err != nil {
		log.Fatal(err)
	}
	fmt.Println("the mesh has", mesh.Accepted())

	if err := outbox.Tend(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("the mesh has", mesh.Accepted())
	mesh.Copy(receipt.ID)
	if err := outbox.Tend(ctx); err != nil {
		log.Fatal(err)
	}
	waiting, err := outbox.List()
	fmt.Println("waiting", len(waiting), err)
	// Output:
	// copies 1
	// the mesh has 0
	// the mesh has 1
	// waiting 0 <nil>
}

func open(mesh *agencytest.Mesh, code string) *agency.Client {
	profile, err := mesh.Profile(code)
	if err != nil {
		log.Fatal(err)
	}
	config, err := agency.LoadProfile(profile)
	if err != nil {
		log.Fatal(err)
	}
	client, err := agency.New(config)
	if err != nil {
		log.Fatal(err)
	}
	return client
}
