package disk

import (
	"math/rand/v2"
	"slices"
)

const sector = 512

// drift is what a kernel does by itself: now and then it writes some of what is
// dirty, and commits the first of the changes to folders. Nobody may count on it,
// and what is written then may be overwritten before the next sync.
func (m *medium) drift() {
	if !m.config.Drift || m.random.IntN(64) > 0 {
		return
	}
	for _, n := range m.all(false) {
		for _, i := range sorted(n.dirty) {
			if m.random.IntN(2) == 0 {
				m.reach(n, i, 0.5, sector)
			}
		}
	}
	some := m.random.IntN(len(m.changes) + 1)
	m.apply(m.changes[:some])
	m.changes = slices.Clone(m.changes[some:])
}

// reach lets some units of a page reach the disk.
func (m *medium) reach(n *node, i int, likely float64, unit int) {
	now, held := n.page(i), n.held.at(i)
	if now == nil || now == held {
		return
	}
	mixed := page{}
	if held != nil {
		mixed = *held
	}
	any := false
	for at := 0; at < pageSize; at += unit {
		if m.random.Float64() < likely {
			copy(mixed[at:at+unit], now[at:at+unit])
			any = true
		}
	}
	if any {
		n.held.put(i, &mixed)
	}
}

// cut forgets what is not durable. With torn, any selection of the sectors, sizes
// and changes to folders that were on their way is there nevertheless.
func (m *medium) cut(torn bool, seed uint64) (lost Lost) {
	m.random = rand.New(rand.NewPCG(seed, 12))
	if torn {
		m.tear()
	}
	lost.Changes = len(m.changes)
	m.changes = nil
	for _, n := range m.all(false) {
		lost.Pages += len(n.dirty) + len(n.lost)
	}
	m.blocks, m.limit, m.allowance = 0, m.config.Size/pageSize, m.config.Size/pageSize
	var revert func(n *node)
	fresh := map[*node]bool{}
	revert = func(n *node) {
		n.links++
		if fresh[n] {
			return
		}
		fresh[n] = true
		n.seen = 0
		clear(n.dirty)
		clear(n.lost)
		n.now = n.held.copy()
		m.blocks += n.now.blocks()
		n.names = map[string]*node{}
		for name, child := range n.heldNames {
			n.names[name] = child
			child.links, child.parent, child.name = 0, n, name
			revert(child)
		}
	}
	m.root.links = 0
	revert(m.root)
	return lost
}

// copy drops what lies behind the end: a file that grows again reads as zeros
// there.
func (c *content) copy() content {
	keep := int((c.size + pageSize - 1) / pageSize)
	out := content{pages: slices.Clone(c.pages[:min(keep, len(c.pages))]), size: c.size}
	if in := int(c.size % pageSize); in > 0 && out.at(keep-1) != nil {
		last := *out.pages[keep-1]
		clear(last[in:])
		out.pages[keep-1] = &last
	}
	c.pages = slices.Clone(out.pages)
	return out
}

// tear lets a selection of what was on its way reach the disk.
func (m *medium) tear() {
	likely := []float64{0, 0.1, 0.5, 0.9, 1}
	unit := []int{sector, pageSize}[m.random.IntN(2)]
	for _, n := range m.all(false) {
		share := likely[m.random.IntN(len(likely))]
		for _, i := range sorted(n.dirty) {
			m.reach(n, i, share, unit)
		}
		if n.now.size != n.held.size && m.random.IntN(2) == 0 {
			n.held.size = n.now.size
		}
	}
	// One disk commits in order, another by name: a change needs those before it
	// that touch the same name, and a folder is removed after what was in it.
	share, inOrder := likely[m.random.IntN(len(likely))], m.random.IntN(2) == 0
	chosen, refused := make([]bool, len(m.changes)), map[edit]bool{}
	stopped := false
	for i, c := range m.changes {
		ok := !stopped && m.random.Float64() < share
		for _, e := range c {
			ok = ok && !refused[e.place()]
			if old := e.folder.heldNames[e.name]; e.node == nil && old != nil && old.folder && len(c) == 1 && len(old.heldNames) > 0 {
				ok = false
			}
		}
		chosen[i] = ok
		if ok {
			// Applied at once: later changes look at what is held.
			m.apply([]change{c})
			continue
		}
		stopped = stopped || inOrder
		for _, e := range c {
			refused[e.place()] = true
		}
	}
	m.choose(chosen)
}

// evict forgets what failed syncs lost, as a kernel does that needs the memory.
func (m *medium) evict() (pages int) {
	for _, n := range m.all(false) {
		for i := range n.lost {
			if i < len(n.now.pages) {
				was := n.now.pages[i]
				n.now.pages[i] = n.held.at(i)
				if was != nil && n.now.pages[i] == nil {
					n.now.pages[i] = blank
				}
				pages++
			}
		}
		clear(n.lost)
	}
	return pages
}

// all lists the files and folders that are reached by name, now or after a cut,
// each once and in an order that is the same for the same history.
func (m *medium) all(held bool) []*node {
	found := map[uint64]*node{}
	var walk func(n *node)
	walk = func(n *node) {
		if found[n.ino] != nil {
			return
		}
		found[n.ino] = n
		for _, child := range n.heldNames {
			walk(child)
		}
		if !held {
			for _, child := range n.names {
				walk(child)
			}
		}
	}
	walk(m.root)
	list := make([]*node, 0, len(found))
	for _, n := range found {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b *node) int { return int(int64(a.ino) - int64(b.ino)) })
	return list
}

func sorted(set map[int]bool) []int {
	list := make([]int, 0, len(set))
	for i := range set {
		list = append(list, i)
	}
	slices.Sort(list)
	return list
}
