package index_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/truclienthong/truc/relay/spool/index"
)

func TestMain(m *testing.M) {
	// Opening badger dominates; -rapid.checks runs more.
	if err := flag.Set("rapid.checks", "6"); err != nil {
		panic(err)
	}
	// Badger leaves these behind where it fails to open, as it does with damage.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreAnyFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"),
		// Where badger breaks an opening off, for damage that it finds late, it
		// leaves these behind.
		goleak.IgnoreAnyFunction("github.com/dgraph-io/badger/v4/y.(*WaterMark).process"),
		goleak.IgnoreAnyFunction("github.com/dgraph-io/badger/v4.(*DB).updateSize"),
		goleak.IgnoreAnyFunction("github.com/dgraph-io/ristretto/v2.(*defaultPolicy[...]).processItems"),
		goleak.IgnoreAnyFunction("github.com/dgraph-io/ristretto/v2.(*Cache[...]).processItems"))
}

// sealed counts batches, and writes the count where only Seal writes.
type sealed struct{ batches uint64 }

func (s *sealed) config(dir string) index.Config {
	return index.Config{
		Dir: dir, Memory: 4 << 20, Overlay: 64 << 10,
		Barrier: func(context.Context) error { return nil },
		Seal: func(b *index.Batch) func() {
			b.Put(index.PositionKey(), binary.BigEndian.AppendUint64(nil, s.batches))
			return func() {}
		},
	}
}

func open(t testing.TB, cfg index.Config) *index.Store {
	t.Helper()
	s, err := index.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// key makes keys of few tables, some of which are prefixes of others.
func key(n int) []byte {
	return append([]byte{5, byte(n % 3)}, fmt.Sprintf("%03d", n)[:1+n%3]...)
}

func contents(t testing.TB, v *index.View, prefix []byte) map[string]string {
	t.Helper()
	got := make(map[string]string)
	var last []byte
	it := v.Iterator(prefix)
	defer it.Close()
	for ; it.Valid(); it.Next() {
		if last != nil && bytes.Compare(last, it.Key()) >= 0 {
			t.Fatalf("key %x comes after %x", it.Key(), last)
		}
		last = it.Key()
		got[string(it.Key())] = string(it.Value())
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return got
}

// A store is a map, whatever is flushed when, and a view is the map it was.
func TestStoreIsAMap(t *testing.T) {
	root := t.TempDir()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		var count sealed
		cfg := count.config(filepath.Join(root, fmt.Sprint(runs)))
		s := open(t, cfg)
		now, onDisk := map[string]string{}, map[string]string{}
		var diskBatches uint64
		type picture struct {
			v    *index.View
			want map[string]string
		}
		var pictures []picture
		wantAll := func(v *index.View, want map[string]string) {
			if got := contents(t, v, []byte{5}); !maps.Equal(got, want) {
				rt.Fatalf("view holds %q, want %q", got, want)
			}
			for n := range 40 {
				k := key(n)
				got, found, err := v.Get(k)
				value, exists := want[string(k)]
				if err != nil || found != exists || found && string(got) != value {
					rt.Fatalf("get %x: %q, %v, %v, want %q, %v", k, got, found, err, value, exists)
				}
			}
		}
		closePictures := func() {
			for _, p := range pictures {
				wantAll(p.v, p.want)
				p.v.Close()
			}
			pictures = nil
		}
		rt.Repeat(map[string]func(*rapid.T){
			"apply": func(rt *rapid.T) {
				var b index.Batch
				for range rapid.IntRange(1, 6).Draw(rt, "keys") {
					k := key(rapid.IntRange(0, 39).Draw(rt, "key"))
					switch _, exists := now[string(k)]; {
					case rapid.Bool().Draw(rt, "delete"):
						b.Delete(k)
						delete(now, string(k))
						// Insert must not follow in the same batch.
						s.Apply(&b)
						count.batches++
						b = index.Batch{}
						continue
					case !exists:
						b.Insert(k, []byte(fmt.Sprint(count.batches)))
					default:
						b.Put(k, []byte(fmt.Sprint(count.batches)))
					}
					now[string(k)] = fmt.Sprint(count.batches)
				}
				if !b.Empty() {
					s.Apply(&b)
					count.batches++
				}
			},
			"apply a large batch": func(rt *rapid.T) {
				var b index.Batch
				for n := range 1500 {
					k := append([]byte{7}, fmt.Sprintf("%06d", n)...)
					b.Put(k, bytes.Repeat([]byte{1}, 100))
				}
				s.Apply(&b)
				count.batches++
			},
			"flush": func(rt *rapid.T) {
				if err := s.Flush(context.Background()); err != nil {
					rt.Fatal(err)
				}
				onDisk, diskBatches = maps.Clone(now), count.batches
			},
			"take a picture": func(rt *rapid.T) {
				pictures = append(pictures, picture{s.View(), maps.Clone(now)})
			},
			"look at pictures": func(rt *rapid.T) { closePictures() },
			"crash": func(rt *rapid.T) {
				closePictures()
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				s = open(t, cfg)
				now, count.batches = maps.Clone(onDisk), diskBatches
				v := s.View()
				defer v.Close()
				b, found, err := v.Get(index.PositionKey())
				if err != nil || found != (diskBatches > 0) || found && binary.BigEndian.Uint64(b) != diskBatches {
					rt.Fatalf("the index says %x, %v, %v, want the position after %d batches", b, found, err, diskBatches)
				}
			},
			"": func(rt *rapid.T) {
				wantAll(s.Latest(), now)
				v := s.View()
				defer v.Close()
				wantAll(v, now)
			},
		})
		closePictures()
		if err := s.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}

// Views look while batches are applied and flushed: each sees all of a batch or
// nothing of it.
func TestViewsSeeWholeBatches(t *testing.T) {
	var count sealed
	s := open(t, count.config(t.TempDir()))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	stop, looked := make(chan struct{}), make(chan string, 1)
	go func() {
		defer close(looked)
		for {
			select {
			case <-stop:
				return
			default:
			}
			v := s.View()
			a, _, errA := v.Get([]byte{5, 'a'})
			z, _, errZ := v.Get([]byte{5, 'z'})
			all := make(map[string]int)
			err := v.Each([]byte{5}, func(_, value []byte) error {
				all[string(value)]++
				return nil
			})
			v.Close()
			if errA != nil || errZ != nil || err != nil || !bytes.Equal(a, z) || len(all) > 1 {
				looked <- fmt.Sprintf("a view holds %q and %q of one batch, %v (%v %v %v)", a, z, all, errA, errZ, err)
				return
			}
		}
	}()
	for n := range 3000 {
		var b index.Batch
		for _, k := range []byte("az") {
			b.Put([]byte{5, k}, []byte(fmt.Sprint(n)))
		}
		b.Put([]byte{6, byte(n), byte(n >> 8)}, make([]byte, 200))
		s.Apply(&b)
		if s.Full() {
			if err := s.Freeze(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	if problem := <-looked; problem != "" {
		t.Error(problem)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if err := s.Flush(context.Background()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	v := s.View()
	defer v.Close()
	if _, _, err := v.Get([]byte{5, 'a'}); err == nil {
		t.Error("a view of a closed index answers")
	}
}

func TestAnotherFormatIsRefused(t *testing.T) {
	var count sealed
	cfg := count.config(t.TempDir())
	s := open(t, cfg)
	var b index.Batch
	b.Put(index.FormatKey(), []byte{0, 0, 0, 99})
	s.Apply(&b)
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := index.Open(cfg); err == nil {
		s.Close()
		t.Error("an index of another format was opened")
	}
	if !slices.Equal(index.FormatKey(), []byte{0, 0}) {
		t.Error("the place of the format may never change")
	}
}
