package rot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
)

const logPage = 4096

// raftPlaces are those of the log, the votes and the snapshots.
func raftPlaces() (all []place) {
	inLog := func(name string, find func(b []byte) int64) {
		all = append(all, place{"Raft log: " + name, func(data string) (wound, bool) {
			file := filepath.Join(data, "raft", "raft.db")
			b, err := os.ReadFile(file)
			if err != nil || len(b) < 4*logPage {
				return wound{}, false
			}
			at := find(b)
			return flip("the Raft log", file, at, int(at)%2), at >= 0 && at < int64(len(b))
		}})
	}
	newest := func(b []byte) int64 { // the head that counts
		if binary.NativeEndian.Uint64(b[16+48:]) > binary.NativeEndian.Uint64(b[logPage+16+48:]) {
			return 0
		}
		return logPage
	}
	page := func(b []byte, field int64) int64 {
		return int64(binary.NativeEndian.Uint64(b[newest(b)+16+field:])) * logPage
	}
	for name, field := range (bits{"magic": 0, "version": 4, "page size": 8, "root page": 16, "free list": 32, "high water": 40, "transaction": 48, "check sum": 56}) {
		inLog("newer head: "+name, func(b []byte) int64 { return newest(b) + 16 + field })
		inLog("older head: "+name, func(b []byte) int64 { return logPage - newest(b) + 16 + field })
	}
	for name, field := range (bits{"id": 0, "kind": 8, "count": 10, "overflow": 12, "first element": 16, "its position": 20, "its key's size": 24, "its value's size": 28, "a key": 4000}) {
		inLog("root page: "+name, func(b []byte) int64 { return page(b, 16) + field })
	}
	for name, field := range (bits{"id": 0, "kind": 8, "count": 10, "overflow": 12, "first free page": 16}) {
		inLog("list of free pages: "+name, func(b []byte) int64 { return page(b, 32) + field })
	}
	for _, key := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand", "truc.summed-from"} {
		for name, behind := range (bits{"name": -1, "value": 0, "last byte": 7, "check sum": 9}) {
			inLog(key+": "+name, func(b []byte) int64 {
				return int64(bytes.LastIndex(b, []byte(key))+len(key)) + behind
			})
		}
	}
	// The name of a group in one of the newest entries: another is as good a name.
	for n := range 4 {
		inLog(fmt.Sprintf("entry, %d from the end", n), func(b []byte) int64 {
			var found []int64
			for _, from := range liveLeaves(b, page(b, 16)) {
				leaf := b[from:min(from+leafSize(b, from), int64(len(b)))]
				for at := 0; ; {
					i := bytes.Index(leaf[at:], []byte(groupPrefix))
					if i < 0 {
						break
					}
					at += i + len(groupPrefix)
					found = append(found, from+int64(at)+1)
				}
			}
			if len(found) <= n {
				return -1
			}
			return found[len(found)-1-n]
		})
	}
	cutAt := func(pattern, of, name string, size int64) {
		all = append(all, place{fmt.Sprintf("%s, left: %s", of, name), func(data string) (wound, bool) {
			files := filesBelow(data, pattern)
			if len(files) == 0 {
				return wound{}, false
			}
			file := files[len(files)-1]
			at := offset(size, sizeOf(file))
			return cut(of, file, at), at >= 0 && at < sizeOf(file)
		}})
	}
	for name, size := range (bits{"nothing": 0, "a page": logPage, "two pages": 2 * logPage, "half": 1 << 40, "all but a page": -logPage, "all but a byte": -1}) {
		cutAt("raft/raft.db", "the Raft log", name, size)
	}
	inFile := func(pattern, of, name string, find func(b []byte) int64) {
		all = append(all, place{of + ": " + name, func(data string) (wound, bool) {
			files := filesBelow(data, pattern)
			if len(files) == 0 {
				return wound{}, false
			}
			file := files[len(files)-1]
			b, err := os.ReadFile(file)
			at := find(b)
			return flip(of, file, at, 1), err == nil && at >= 0 && at < int64(len(b))
		}})
	}
	const snapshot = "a Raft snapshot"
	for _, word := range []string{`"Index":`, `"Term":`, `"ConfigurationIndex":`, `"Size":`, `"CRC":"`, `"Address":"`, `"ID":"`, `"Suffrage":`} {
		inFile("raft/snapshots/*/meta.json", snapshot, word, func(b []byte) int64 { return int64(bytes.Index(b, []byte(word)) + len(word)) })
	}
	for name, at := range (bits{"magic": 0, "format": 11, "type of the head": 12, "length": 13, "length, low byte": 16, "index": 24, "time": 30, "last": -1, "check sum": -3, "middle": 1 << 40}) {
		inFile("raft/snapshots/*/state.bin", snapshot, "state: "+name, func(b []byte) int64 { return offset(at, int64(len(b))) })
	}
	inFile("raft/snapshots/*/sum", snapshot, "sum", func([]byte) int64 { return 2 })
	for name, size := range (bits{"nothing": 0, "half": 1 << 40, "all but a byte": -1}) {
		for _, file := range []string{"state.bin", "meta.json", "sum"} {
			cutAt("raft/snapshots/*/"+file, snapshot, file+" "+name, size)
		}
		cutAt("raft/applied", "a relay's small files", "applied "+name, size)
		cutAt("raft.member", "a relay's small files", "member "+name, size)
	}
	for name, at := range (bits{"index": 0, "index, low byte": 7, "check sum": 9}) {
		inFile("raft/applied", "a relay's small files", "applied: "+name, func([]byte) int64 { return at })
	}
	return all
}

// leafSize is that of a page with its overflow.
func leafSize(b []byte, at int64) int64 {
	return (1 + int64(binary.NativeEndian.Uint32(b[at+12:]))) * logPage
}

// liveLeaves finds the leaf pages below a page, in order of their keys, and those
// of the buckets in it: see consensus/pages.go for the format.
func liveLeaves(b []byte, at int64) (leaves []int64) {
	if at+16 > int64(len(b)) {
		return nil
	}
	flags, count := binary.NativeEndian.Uint16(b[at+8:]), int64(binary.NativeEndian.Uint16(b[at+10:]))
	for i := range count {
		element := at + 16 + i*16
		switch flags {
		case 1: // branch
			leaves = append(leaves, liveLeaves(b, int64(binary.NativeEndian.Uint64(b[element+8:]))*logPage)...)
		case 2:
			if binary.NativeEndian.Uint32(b[element:]) != 1 {
				return []int64{at} // of entries or votes
			}
			value := element + int64(binary.NativeEndian.Uint32(b[element+4:])) + int64(binary.NativeEndian.Uint32(b[element+8:]))
			if root := int64(binary.NativeEndian.Uint64(b[value:])); root > 0 {
				leaves = append(leaves, liveLeaves(b, root*logPage)...)
			}
		}
	}
	return leaves
}
