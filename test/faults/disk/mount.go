package disk

import (
	"maps"
	"math"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// mount is one mount of a device: what the kernel asks for. It ends with the
// power, and whoever has something open then gets EIO for the rest of its life.
type mount struct {
	fuse.RawFileSystem
	d      *device
	server *fuse.Server

	// Guarded by the device's mu.
	nodes map[uint64]*node // those that the kernel knows
	dead  bool
}

// cached is how long the kernel may trust what it knows: nobody else changes it.
const cached = uint64(time.Hour / time.Second)

// enter takes the device, waits while it is frozen, and finds a node. After OK
// the caller has the lock.
func (m *mount) enter(ino uint64) (*node, fuse.Status) {
	m.d.mu.Lock()
	for m.d.frozen && !m.dead {
		m.d.waked.Wait()
	}
	n := m.nodes[ino]
	if m.dead || n == nil {
		m.d.mu.Unlock()
		return nil, fuse.EIO
	}
	return n, fuse.OK
}

func (m *mount) String() string { return "disk" }

func (n *node) fill(out *fuse.Attr) {
	out.Ino, out.Size, out.Blocks, out.Blksize = n.ino, uint64(n.now.size), uint64(n.now.blocks()*pageSize/sector), pageSize
	out.Mode, out.Nlink = syscall.S_IFREG|n.mode, uint32(n.links)
	if n.folder {
		out.Mode, out.Nlink = syscall.S_IFDIR|n.mode, 2
	}
	out.SetTimes(&n.mtime, &n.mtime, &n.mtime)
}

// tell gives a node to the kernel.
func (m *mount) tell(n *node, out *fuse.EntryOut) {
	m.nodes[n.ino] = n
	n.seen++
	out.NodeId, out.Generation, out.EntryValid, out.AttrValid = n.ino, 1, cached, cached
	n.fill(&out.Attr)
}

func (m *mount) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	n, status := m.enter(header.NodeId)
	if !status.Ok() {
		return status
	}
	defer m.d.mu.Unlock()
	child := n.names[name]
	if child == nil {
		return fuse.ENOENT
	}
	m.tell(child, out)
	return fuse.OK
}

func (m *mount) Forget(ino, times uint64) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	n := m.nodes[ino]
	if m.dead || n == nil || n == m.d.medium.root {
		return
	}
	if n.seen -= min(times, n.seen); n.seen == 0 {
		delete(m.nodes, ino)
	}
}

func (m *mount) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, status := m.enter(in.NodeId)
	if !status.Ok() {
		return status
	}
	defer m.d.mu.Unlock()
	n.fill(&out.Attr)
	out.AttrValid = cached
	return fuse.OK
}

func (m *mount) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, status := m.enter(in.NodeId)
	if !status.Ok() {
		return status
	}
	defer m.d.mu.Unlock()
	if mode, ok := in.GetMode(); ok {
		n.mode = mode & 0o7777
	}
	if t, ok := in.GetMTime(); ok {
		n.mtime = t
	}
	if size, ok := in.GetSize(); ok {
		m.d.medium.truncate(n, int64(size))
	}
	n.fill(&out.Attr)
	out.AttrValid = cached
	return fuse.OK
}

// add makes a file or folder.
func (m *mount) add(parent uint64, name string, folder bool, mode uint32, out *fuse.EntryOut) fuse.Status {
	n, status := m.enter(parent)
	if !status.Ok() {
		return status
	}
	defer m.d.mu.Unlock()
	if n.names[name] != nil {
		return fuse.Status(syscall.EEXIST)
	}
	child := m.d.medium.node(folder, mode&0o7777)
	m.change(change{{n, name, child}})
	m.tell(child, out)
	return fuse.OK
}

func (m *mount) change(c change) {
	m.d.counts.Changes++
	m.d.medium.do(c)
}

func (m *mount) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return m.add(in.NodeId, name, true, in.Mode, out)
}

func (m *mount) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return m.add(in.NodeId, name, false, in.Mode, out)
}

func (m *mount) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return m.add(in.NodeId, name, false, in.Mode, &out.EntryOut)
}

func (m *mount) remove(parent uint64, name string) fuse.Status {
	n, status := m.enter(parent)
	if !status.Ok() {
		return status
	}
	defer m.d.mu.Unlock()
	child := n.names[name]
	switch {
	case child == nil:
		return fuse.ENOENT
	case len(child.names) > 0:
		return fuse.Status(syscall.ENOTEMPTY)
	}
	m.change(change{{n, name, nil}})
	return fuse.OK
}

func (m *mount) Unlink(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return m.remove(header.NodeId, name)
}

func (m *mount) Rmdir(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return m.remove(header.NodeId, name)
}

func (m *mount) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	n, status := m.enter(in.NodeId)
	if !status.Ok() {
		return status
	}
	defer m.d.mu.Unlock()
	other := m.nodes[in.Newdir]
	if other == nil {
		return fuse.EIO
	}
	moved, there := n.names[from], other.names[to]
	const noReplace = 1
	switch {
	case moved == nil:
		return fuse.ENOENT
	case in.Flags&^noReplace != 0:
		return fuse.EINVAL
	case in.Flags&noReplace != 0 && there != nil:
		return fuse.Status(syscall.EEXIST)
	case there != nil && len(there.names) > 0:
		return fuse.Status(syscall.ENOTEMPTY)
	}
	m.change(change{{other, to, moved}, {n, from, nil}})
	return fuse.OK
}

func (m *mount) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, status := m.enter(in.NodeId)
	if !status.Ok() {
		return status
	}
	defer m.d.mu.Unlock()
	if in.Flags&syscall.O_TRUNC != 0 && !n.folder {
		m.d.medium.truncate(n, 0)
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

func (m *mount) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, status := m.enter(in.NodeId)
	if !status.Ok() {
		return nil, status
	}
	defer m.d.mu.Unlock()
	m.d.counts.Reads++
	if m.d.strikes(FailRead, n) {
		return nil, fuse.EIO
	}
	return fuse.ReadResultData(buf[:n.read(buf, int64(in.Offset))]), fuse.OK
}

func (m *mount) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, status := m.enter(in.NodeId)
	if !status.Ok() {
		return 0, status
	}
	defer m.d.mu.Unlock()
	m.d.counts.Writes++
	off := int64(in.Offset)
	if room := m.d.medium.room(n, off, len(data)); room < len(data) {
		m.d.hits++
		if room == 0 {
			return 0, fuse.Status(syscall.ENOSPC)
		}
		data = data[:room]
	}
	switch {
	case m.d.strikes(FailWrite, n):
		m.d.medium.write(n, data[:m.d.medium.random.IntN(len(data))], off)
		return 0, fuse.EIO
	case len(data) > 1 && m.d.strikes(ShortWrite, n):
		data = data[:1+m.d.medium.random.IntN(len(data)-1)]
	}
	m.d.medium.write(n, data, off)
	return uint32(len(data)), fuse.OK
}

func (m *mount) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n, status := m.enter(in.NodeId)
	if !status.Ok() {
		return status
	}
	defer m.d.mu.Unlock()
	const keepSize = 1
	if in.Mode&^keepSize != 0 {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	if err := m.d.medium.allocate(n, int64(in.Offset), int64(in.Length), in.Mode&keepSize == 0); err != nil {
		m.d.hits++
		return fuse.ToStatus(err)
	}
	return fuse.OK
}

func (m *mount) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return m.sync(in.NodeId, func(n *node) fuse.Status {
		m.d.counts.Syncs++
		if m.d.strikes(FailSync, n) {
			m.d.medium.failSync(n)
			return fuse.EIO
		}
		m.d.medium.sync(n)
		return fuse.OK
	})
}

func (m *mount) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return m.sync(in.NodeId, func(n *node) fuse.Status {
		m.d.counts.FolderSyncs++
		if m.d.strikes(FailSync, n) {
			return fuse.EIO
		}
		m.d.medium.syncFolder(n)
		return fuse.OK
	})
}

// sync does what a sync does before or after the time that it takes: a cut in
// between finds it done, or not.
func (m *mount) sync(ino uint64, do func(*node) fuse.Status) fuse.Status {
	n, status := m.enter(ino)
	if !status.Ok() {
		return status
	}
	delay := m.d.delay(n)
	early := delay == 0 || m.d.medium.random.IntN(2) == 0
	if early {
		status = do(n)
	}
	m.d.mu.Unlock()
	if delay > 0 {
		time.Sleep(delay)
		if n, again := m.enter(ino); !again.Ok() {
			return again
		} else if !early {
			status = do(n)
		}
		m.d.mu.Unlock()
	}
	return status
}

func (m *mount) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (m *mount) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	_, status := m.enter(in.NodeId)
	if status.Ok() {
		m.d.mu.Unlock()
	}
	return status
}

func (m *mount) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	n, status := m.enter(in.NodeId)
	if !status.Ok() {
		return status
	}
	defer m.d.mu.Unlock()
	// By inode, so that a listing goes on where it was when names come and go.
	names := slices.SortedFunc(maps.Keys(n.names), func(a, b string) int { return int(int64(n.names[a].ino) - int64(n.names[b].ino)) })
	for _, name := range names {
		child := n.names[name]
		if child.ino <= in.Offset {
			continue
		}
		mode := uint32(syscall.S_IFREG)
		if child.folder {
			mode = syscall.S_IFDIR
		}
		if !out.AddDirEntry(fuse.DirEntry{Name: name, Ino: child.ino, Mode: mode, Off: child.ino}) {
			break
		}
	}
	return fuse.OK
}

func (m *mount) StatFs(_ <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if _, status := m.enter(in.NodeId); !status.Ok() {
		return status
	}
	defer m.d.mu.Unlock()
	medium := m.d.medium
	free := uint64(max(0, medium.allowance-medium.blocks))
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 255
	out.Blocks, out.Bfree, out.Bavail = uint64(medium.config.Size/pageSize), free, free
	out.Files, out.Ffree = math.MaxInt32, math.MaxInt32
	return fuse.OK
}
