package agency_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/agency/agencytest"
	"github.com/truclienthong/truc/relay/envelope"
)

func TestMain(m *testing.M) {
	if os.Getenv(victimVariable) != "" {
		victim()
	}
	goleak.VerifyTestMain(m)
}

var (
	unavailable = exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING
	mismatch    = exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH
)

var agencies = []*exchangev1.AgencyInfo{
	{Code: "G22", Aliases: []string{"000.00.00.G22"}, Name: "Văn phòng Chính phủ", Tier: 1},
	{Code: "H26", Name: "UBND thành phố Hà Nội", Tier: 2},
	{Code: "H26.12", Name: "UBND quận Ba Đình", Tier: 3, ParentCode: "H26"},
	{Code: "H26.12.05", Name: "UBND phường Điện Biên", Tier: 4, ParentCode: "H26.12"},
	{Code: "H48", Name: "UBND thành phố Đà Nẵng", Tier: 2},
}

var (
	bac   = agencytest.Relay{ID: "bac", Region: "north"}
	trung = agencytest.Relay{ID: "trung", Region: "north"}
	nam   = agencytest.Relay{ID: "nam", Region: "south"}
)

func newMesh(t *testing.T, relays ...agencytest.Relay) *agencytest.Mesh {
	t.Helper()
	m, err := agencytest.New(agencytest.Config{Dir: t.TempDir(), Relays: relays, Agencies: agencies})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func configOf(t *testing.T, m *agencytest.Mesh, code string, relays ...string) agency.Config {
	t.Helper()
	path, err := m.Profile(code, relays...)
	if err != nil {
		t.Fatal(err)
	}
	config, err := agency.LoadProfile(path)
	if err != nil {
		t.Fatal(err)
	}
	config.Patience = 5 * time.Second
	return config.Quick()
}

func newClient(t *testing.T, config agency.Config) *agency.Client {
	t.Helper()
	c, err := agency.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func header(document string, to ...string) *exchangev1.Header {
	h := &exchangev1.Header{DocumentId: document, Document: &exchangev1.Document{Subject: "V/v thử nghiệm"}}
	for _, code := range to {
		h.Recipients = append(h.Recipients, &exchangev1.Recipient{To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: code}}})
	}
	return h
}

// content of a size, the same for the same size.
func content(size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)})
	_, _ = r.Read(b)
	return b
}

// files writes one file of each size and returns sources of them.
func files(t *testing.T, sizes ...int) []agency.Source {
	t.Helper()
	dir := t.TempDir()
	var sources []agency.Source
	for i, size := range sizes {
		path := filepath.Join(dir, fmt.Sprintf("văn bản %d.pdf", i+1))
		if err := os.WriteFile(path, content(size), 0o600); err != nil {
			t.Fatal(err)
		}
		sources = append(sources, agency.FileSource(path))
	}
	return sources
}

// failOnce fails the n-th time (from 1) that a step is reached, and no other.
func failOnce(step agencytest.Step, n int, err error) func(string, agencytest.Step) error {
	var mu sync.Mutex
	reached := 0
	return func(_ string, at agencytest.Step) error {
		if at != step {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if reached++; reached == n {
			return err
		}
		return nil
	}
}

func cut() error { return envelope.Refuse(unavailable, "cut by the test") }

// receiveAll drains the inbox.
func receiveAll(t *testing.T, c *agency.Client) []*agency.Arrival {
	t.Helper()
	var all []*agency.Arrival
	for a, err := range c.Receive(testContext(t), agency.ReceiveOptions{Drain: true}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

func submit(t *testing.T, c *agency.Client, document string, to string, sizes ...int) *agency.Receipt {
	t.Helper()
	r, err := c.Submit(testContext(t), agency.Document{Header: header(document, to), Parts: files(t, sizes...)})
	if err != nil {
		t.Fatalf("submit: %v", err)
	}
	return r
}

func checkFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%s holds %d bytes other than the %d sent", path, len(got), len(want))
	}
}
