package consensus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
)

// proveLog reads an existing raft.db before bbolt does. bbolt has a check sum on
// its two heads only: of what is wrong elsewhere it panics, reads behind the end
// of the file, or, where one head is damaged, goes back a transaction and
// forgets a vote without a word. So nothing may be wrong: both heads are whole,
// every page is where the tree or the list of free pages says, and each of them
// is one or the other, once. It changes nothing.
//
// File format 2 of bbolt, in the byte order of the machine:
//
//	page    id 8, flags 2, count 2, overflow 4, then elements
//	head    magic 4, version 4, page size 4, flags 4, root page 8, sequence 8,
//	        free list 8, high water 8, transaction 8, FNV-1a of all that 8
//	branch  position 4, key size 4, page 8; the key at position
//	leaf    flags 4, position 4, key size 4, value size 4; key and value there
//	bucket  root page 8 (0: a leaf page follows inline), sequence 8
func proveLog(r io.ReaderAt, size int64) error {
	p := &prover{r: r, size: size}
	if err := p.heads(); err != nil {
		return err
	}
	if p.high*p.page > uint64(size) {
		return fmt.Errorf("%d bytes are missing at its end", p.high*p.page-uint64(size))
	}
	p.seen = make([]bool, p.high)
	p.seen[0], p.seen[1] = true, true
	buckets, err := p.root()
	if err != nil {
		return err
	}
	// A start that was cut off at once left none.
	if len(buckets) > 0 && !slices.Equal(buckets, []string{"conf", "logs"}) {
		return fmt.Errorf("it holds %q instead of log and votes", buckets)
	}
	if err := p.freePages(); err != nil {
		return err
	}
	for id, seen := range p.seen {
		if !seen {
			return fmt.Errorf("page %d is neither used nor free", id)
		}
	}
	return nil
}

const (
	pageHead   = 16
	elementLen = 16
	headLen    = 64
	headMagic  = 0xED0CDAED

	branchPage = 0x01
	leafPage   = 0x02
	freePage   = 0x10

	noFreeList = 1<<64 - 1
)

var order = binary.NativeEndian

type prover struct {
	r    io.ReaderAt
	size int64

	page, high       uint64 // bytes of a page; number of pages
	rootPage, freeAt uint64
	seen             []bool
}

// heads reads both heads and takes the newer one.
func (p *prover) heads() error {
	var newest uint64
	offset := int64(0)
	for i := range 2 {
		b := make([]byte, headLen)
		if _, err := p.r.ReadAt(b, offset+pageHead); err != nil {
			return fmt.Errorf("head %d: %w", i, err)
		}
		sum := fnv.New64a()
		sum.Write(b[:headLen-8])
		size := uint64(order.Uint32(b[8:]))
		if order.Uint32(b) != headMagic || order.Uint64(b[headLen-8:]) != sum.Sum64() || size < 512 || size > 1<<20 {
			return fmt.Errorf("head %d is not what was written", i)
		}
		if transaction := order.Uint64(b[48:]); i == 0 || transaction > newest {
			newest = transaction
			p.rootPage, p.freeAt, p.high = order.Uint64(b[16:]), order.Uint64(b[32:]), order.Uint64(b[40:])
		}
		if p.page != 0 && p.page != size {
			return fmt.Errorf("its heads differ")
		}
		p.page, offset = size, int64(size)
	}
	if p.high < 3 || p.high > 1<<40 {
		return fmt.Errorf("it says that it has %d pages", p.high)
	}
	return nil
}

// read returns a page with its overflow, and notes that it is used.
func (p *prover) read(id uint64) ([]byte, error) {
	if id >= p.high {
		return nil, fmt.Errorf("page %d is behind the end", id)
	}
	head := make([]byte, pageHead)
	if _, err := p.r.ReadAt(head, int64(id*p.page)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	pages := uint64(order.Uint32(head[12:])) + 1
	if order.Uint64(head) != id || id+pages > p.high {
		return nil, fmt.Errorf("page %d is not what was written", id)
	}
	for i := id; i < id+pages; i++ {
		if p.seen[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		p.seen[i] = true
	}
	b := make([]byte, pages*p.page)
	if _, err := p.r.ReadAt(b, int64(id*p.page)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return b, nil
}

// root returns the names of the buckets, and proves them.
func (p *prover) root() (buckets []string, err error) {
	err = p.tree(p.rootPage, nil, func(flags uint32, key, value []byte) error {
		if flags != 1 || len(value) < 16 {
			return fmt.Errorf("%q is no bucket", key)
		}
		buckets = append(buckets, string(key))
		plain := func(flags uint32, _, _ []byte) error {
			if flags != 0 {
				return fmt.Errorf("a bucket in %q", buckets)
			}
			return nil
		}
		if at := order.Uint64(value); at != 0 {
			return p.tree(at, nil, plain)
		}
		if len(value) < 16+pageHead {
			return fmt.Errorf("bucket %q is cut off", key)
		}
		return p.elements(0, value[16:], nil, plain)
	})
	return buckets, err
}

// tree walks the pages below one, in order of their keys. Its first key is low,
// where that is known.
func (p *prover) tree(id uint64, low []byte, leaf func(flags uint32, key, value []byte) error) error {
	b, err := p.read(id)
	if err != nil {
		return err
	}
	return p.elements(id, b, low, leaf)
}

func (p *prover) elements(id uint64, b, low []byte, leaf func(flags uint32, key, value []byte) error) error {
	flags, count := order.Uint16(b[8:]), int(order.Uint16(b[10:]))
	wrong := func(what string) error { return fmt.Errorf("page %d: %s", id, what) }
	if flags != branchPage && flags != leafPage {
		return wrong(fmt.Sprintf("of kind %x", flags))
	}
	if pageHead+count*elementLen > len(b) || flags == branchPage && count == 0 {
		return wrong(fmt.Sprintf("of %d elements", count))
	}
	var before []byte
	for i := range count {
		at := pageHead + i*elementLen
		e := b[at : at+elementLen]
		var position, keySize, valueSize uint32
		if flags == branchPage {
			position, keySize = order.Uint32(e), order.Uint32(e[4:])
		} else {
			position, keySize, valueSize = order.Uint32(e[4:]), order.Uint32(e[8:]), order.Uint32(e[12:])
		}
		start := uint64(at) + uint64(position)
		end := start + uint64(keySize) + uint64(valueSize)
		if keySize == 0 || start < uint64(pageHead+count*elementLen) || end > uint64(len(b)) {
			return wrong(fmt.Sprintf("element %d is outside", i))
		}
		key := b[start : start+uint64(keySize)]
		if i > 0 && bytes.Compare(before, key) >= 0 || i == 0 && low != nil && bytes.Compare(key, low) < 0 {
			return wrong(fmt.Sprintf("element %d is out of order", i))
		}
		before = key
		var err error
		if flags == branchPage {
			err = p.tree(order.Uint64(e[8:]), key, leaf)
		} else {
			err = leaf(order.Uint32(e), key, b[start+uint64(keySize):end])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// freePages reads the list of free pages.
func (p *prover) freePages() error {
	if p.freeAt == noFreeList {
		return fmt.Errorf("it has no list of free pages")
	}
	b, err := p.read(p.freeAt)
	if err != nil {
		return err
	}
	count, at := uint64(order.Uint16(b[10:])), uint64(pageHead)
	if count == 0xFFFF {
		count, at = order.Uint64(b[pageHead:]), pageHead+8
	}
	if order.Uint16(b[8:]) != freePage || count > (uint64(len(b))-at)/8 {
		return fmt.Errorf("page %d is no list of free pages", p.freeAt)
	}
	for i := range count {
		id := order.Uint64(b[at+i*8:])
		if id >= p.high || p.seen[id] {
			return fmt.Errorf("page %d is said to be free", id)
		}
		p.seen[id] = true
	}
	return nil
}
