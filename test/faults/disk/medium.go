package disk

import (
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

const pageSize = 4096

type page [pageSize]byte

// blank is a page that has its block and reads as zeros; nil is one without.
var blank = new(page)

// content is what a file holds in one of its two states. Pages are shared between
// the states until one of them is written to.
type content struct {
	pages []*page
	size  int64
}

// node is a file or a folder.
type node struct {
	ino    uint64
	folder bool
	mode   uint32
	mtime  time.Time
	// now is what programs see, held what the disk surely has.
	now, held content
	// dirty are the pages of now that a sync has to write; lost those that a
	// sync failed to write: the kernel takes them for clean from then on.
	dirty, lost map[int]bool

	names, heldNames map[string]*node
	// parent and name are where it is now, or was last.
	parent *node
	name   string
	links  int    // names by which it is reached now
	seen   uint64 // look-ups that the kernel has not given back
}

// edit gives a name in a folder to a node, or takes it away.
type edit struct {
	folder *node
	name   string
	node   *node
}

// change is one operation on folders that no sync has covered yet; it reaches
// the disk whole or not at all.
type change []edit

// medium is the disk: a tree of nodes, each as programs see it and as the disk
// holds it. It has no lock.
type medium struct {
	config  Config
	random  *rand.Rand
	root    *node
	next    uint64
	changes []change
	// blocks counts pages in use, as programs see them; limit is how many there
	// may be, allowance how many programs are told.
	blocks, limit, allowance int64
}

func newMedium(config Config) *medium {
	m := &medium{config: config, random: rand.New(rand.NewPCG(config.Seed, 11)), next: 1}
	m.limit, m.allowance = config.Size/pageSize, config.Size/pageSize
	m.root = m.node(true, 0o755)
	m.root.links = 1
	m.root.parent = m.root
	return m
}

func (m *medium) node(folder bool, mode uint32) *node {
	n := &node{ino: m.next, folder: folder, mode: mode, mtime: time.Now(), dirty: map[int]bool{}, lost: map[int]bool{}}
	if folder {
		n.names, n.heldNames = map[string]*node{}, map[string]*node{}
	}
	m.next++
	return n
}

// do makes a change that programs see at once. What a name is given to comes
// before what it is taken from.
func (m *medium) do(c change) {
	for _, e := range c {
		if old := e.folder.names[e.name]; old != nil {
			m.unlink(old)
		}
		if e.node == nil {
			delete(e.folder.names, e.name)
			continue
		}
		e.folder.names[e.name] = e.node
		e.node.links++
		e.node.parent, e.node.name = e.folder, e.name
	}
	m.changes = append(m.changes, c)
	m.drift()
}

// unlink takes one name from a node; the space is free once the last is gone.
func (m *medium) unlink(n *node) {
	if n.links == 1 {
		m.count(n, -n.now.blocks())
	}
	n.links--
}

// count notes blocks that a file takes or gives back.
func (m *medium) count(n *node, blocks int64) {
	if n.links > 0 {
		m.blocks += blocks
	}
}

// path is below the root, without a leading slash.
func (n *node) path() string {
	if n.parent == nil || n.parent == n {
		return ""
	}
	return path.Join(n.parent.path(), n.name)
}

func (c *content) blocks() (n int64) {
	for _, p := range c.pages {
		if p != nil {
			n++
		}
	}
	return n
}

func (n *node) page(i int) *page { return n.now.at(i) }

func (c *content) at(i int) *page {
	if i < len(c.pages) {
		return c.pages[i]
	}
	return nil
}

func (c *content) put(i int, p *page) {
	if i >= len(c.pages) {
		c.pages = append(c.pages, make([]*page, i+1-len(c.pages))...)
	}
	c.pages[i] = p
}

func (n *node) read(buf []byte, off int64) int {
	if off >= n.now.size {
		return 0
	}
	buf = buf[:min(int64(len(buf)), n.now.size-off)]
	for done := 0; done < len(buf); {
		at := off + int64(done)
		in := int(at % pageSize)
		step := min(pageSize-in, len(buf)-done)
		if p := n.page(int(at / pageSize)); p != nil {
			copy(buf[done:done+step], p[in:])
		} else {
			clear(buf[done : done+step])
		}
		done += step
	}
	return len(buf)
}

// room says how many bytes of a write fit.
func (m *medium) room(n *node, off int64, length int) int {
	free := m.limit - m.blocks
	for done := 0; done < length; {
		at := off + int64(done)
		if n.page(int(at/pageSize)) == nil {
			if free--; free < 0 {
				return done
			}
		}
		done += min(pageSize-int(at%pageSize), length-done)
	}
	return length
}

// write changes what programs see. The caller has seen to it that there is room.
func (m *medium) write(n *node, data []byte, off int64) {
	for done := 0; done < len(data); {
		at := off + int64(done)
		i, in := int(at/pageSize), int(at%pageSize)
		step := min(pageSize-in, len(data)-done)
		copy(m.own(n, i)[in:], data[done:done+step])
		done += step
	}
	n.now.size = max(n.now.size, off+int64(len(data)))
	n.mtime = time.Now()
	m.drift()
}

// own returns a page of now that may be written to, and marks it.
func (m *medium) own(n *node, i int) *page {
	p := n.page(i)
	switch {
	case p == nil:
		m.count(n, 1)
		p = new(page)
		n.now.put(i, p)
	case p == blank || p == n.held.at(i):
		c := *p
		p = &c
		n.now.put(i, p)
	}
	n.dirty[i] = true
	delete(n.lost, i)
	return p
}

// allocate gives blocks to a stretch of a file.
func (m *medium) allocate(n *node, off, length int64, grow bool) error {
	if m.room(n, off, int(length)) < int(length) {
		return syscall.ENOSPC
	}
	for i := off / pageSize; i*pageSize < off+length; i++ {
		if n.page(int(i)) == nil {
			n.now.put(int(i), blank)
			n.dirty[int(i)] = true
			m.count(n, 1)
		}
	}
	if grow {
		n.now.size = max(n.now.size, off+length)
	}
	return nil
}

func (m *medium) truncate(n *node, size int64) {
	if size < n.now.size {
		keep := int((size + pageSize - 1) / pageSize)
		for i := keep; i < len(n.now.pages); i++ {
			if n.now.pages[i] != nil {
				m.count(n, -1)
			}
			n.dirty[i] = true
		}
		n.now.pages = slices.Clone(n.now.pages[:min(keep, len(n.now.pages))])
		if in := int(size % pageSize); in > 0 && n.page(keep-1) != nil {
			clear(m.own(n, keep-1)[in:])
		}
	}
	n.now.size = size
	n.mtime = time.Now()
}

// sync makes the content of a file durable, but for what a failed sync lost.
func (m *medium) sync(n *node) {
	for i := range n.dirty {
		n.held.put(i, n.page(i))
	}
	clear(n.dirty)
	n.held.size = n.now.size
	if m.config.Journaled {
		m.apply(m.changes)
		m.changes = nil
	} else if own := m.config.OwnNames; own != "" && strings.HasPrefix(n.path(), own) {
		m.settle(func(e edit) bool { return e.node == n })
	}
}

// failSync is a sync that failed: what it had to write counts as clean, and is
// not on the disk.
func (m *medium) failSync(n *node) {
	maps.Copy(n.lost, n.dirty)
	clear(n.dirty)
}

// syncFolder makes the names in a folder durable.
func (m *medium) syncFolder(folder *node) {
	if m.config.Journaled {
		m.apply(m.changes)
		m.changes = nil
		return
	}
	m.settle(func(e edit) bool { return e.folder == folder })
}

// settle makes changes durable, and those before them that they rest on: to the
// same names.
func (m *medium) settle(wanted func(edit) bool) {
	needed, chosen := map[edit]bool{}, make([]bool, len(m.changes))
	for i, c := range slices.Backward(m.changes) {
		for _, e := range c {
			chosen[i] = chosen[i] || wanted(e) || needed[e.place()]
		}
		for _, e := range c {
			if chosen[i] {
				needed[e.place()] = true
			}
		}
	}
	m.choose(chosen)
}

func (e edit) place() edit { return edit{folder: e.folder, name: e.name} }

// choose makes some changes durable and keeps the others waiting.
func (m *medium) choose(chosen []bool) {
	var rest []change
	for i, c := range m.changes {
		if chosen[i] {
			m.apply([]change{c})
		} else {
			rest = append(rest, c)
		}
	}
	m.changes = rest
}

func (m *medium) apply(changes []change) {
	for _, c := range changes {
		for _, e := range c {
			if e.node == nil {
				delete(e.folder.heldNames, e.name)
			} else {
				e.folder.heldNames[e.name] = e.node
			}
		}
	}
}
