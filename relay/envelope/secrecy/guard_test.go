package secrecy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	. "github.com/truclienthong/truc/relay/envelope/secrecy"
	"github.com/truclienthong/truc/relay/envelope/secrecy/secrecytest"
)

// counting counts what is read of a file that goes on for ever.
type counting struct {
	head []byte
	read int
}

func (c *counting) Read(p []byte) (int, error) {
	n := copy(p, c.head[min(c.read, len(c.head)):])
	if n == 0 {
		n = len(p)
	}
	c.read += n
	return n, nil
}

func TestGuard(t *testing.T) {
	t.Parallel()
	marked := secrecytest.PDF{Runs: secrecytest.Text("MẬT")}.Bytes()
	for name, c := range map[string]struct {
		head   []byte
		size   uint64
		mark   Mark
		unread error
		read   int // 0: all of it
	}{
		"a marked file":            {head: marked, size: uint64(len(marked)), mark: Mat},
		"of another kind":          {head: make([]byte, 4096), size: 1 << 40, read: 1024},
		"smaller than a head":      {head: []byte("%PDF"), size: 4},
		"larger than is looked at": {head: marked, size: MaxContent + 1, unread: ErrTooLarge, read: 1024},
		"nothing":                  {},
	} {
		r := &counting{head: c.head}
		got, err := NewGuard(1).Look(t.Context(), r, c.size)
		if err != nil || got.Mark != c.mark || !errors.Is(got.Unread, c.unread) {
			t.Errorf("%s: %v, %v; want %v, %v", name, got, err, c.mark, c.unread)
		}
		if want := max(c.read, int(min(c.size, 1<<20))); c.read > 0 && r.read != c.read || c.read == 0 && r.read != want {
			t.Errorf("%s: %d bytes were read", name, r.read)
		}
	}
	if _, err := NewGuard(1).Look(t.Context(), bytes.NewReader(marked[:100]), uint64(len(marked))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that ends early: %v", err)
	}
}

// blocking is a file whose bytes behind the head do not come until they may.
type blocking struct {
	io.Reader
	goOn chan struct{}
}

func (b *blocking) Read(p []byte) (int, error) {
	if len(p) > 1024 {
		<-b.goOn
	}
	return b.Reader.Read(p)
}

// As many files are in memory as the guard has places; who waits for one can give
// up, and files of other kinds wait for none.
func TestGuardHasPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := secrecytest.PDF{Runs: secrecytest.Text("MẬT"), Filler: 4096}.Bytes()
		g, goOn := NewGuard(1), make(chan struct{})
		look := func(ctx context.Context) <-chan error {
			done := make(chan error, 1)
			go func() {
				found, err := g.Look(ctx, &blocking{bytes.NewReader(file), goOn}, uint64(len(file)))
				if err == nil && found.Mark != Mat {
					err = errors.New("the mark was not found")
				}
				done <- err
			}()
			synctest.Wait()
			return done
		}
		first := look(t.Context())
		ctx, cancel := context.WithCancel(t.Context())
		second := look(ctx)
		if found, err := g.Look(t.Context(), bytes.NewReader(make([]byte, 4096)), 4096); err != nil || found != (Finding{}) {
			t.Errorf("of another kind: %v, %v", found, err)
		}
		cancel()
		if err := <-second; !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up: %v", err)
		}
		close(goOn)
		if err := <-first; err != nil {
			t.Error(err)
		}
		if err := <-look(t.Context()); err != nil {
			t.Errorf("the place is not free again: %v", err)
		}
	})
}
