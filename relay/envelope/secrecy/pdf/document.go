package pdf

import (
	"bytes"
	"maps"
	"slices"
)

// Bounds of memory: the numbers of objects, how many there may be, and how many
// bytes are kept unpacked.
const (
	maxObject  = 1 << 24
	maxObjects = 1 << 19
	maxHeld    = 32 << 20
)

// document is a file with its objects by number.
type document struct {
	file []byte
	work *work
	// objects says where the last definition of each object lies: later ones of a
	// file take the place of earlier ones.
	objects map[int]place
	// unpacked are the streams of objects that were read.
	unpacked [][]byte
	fonts    map[int]*font
	// forms are the decoded bytes of forms, which many pages use.
	forms map[int][]byte
	// held is the size of unpacked and forms, letters the entries of the fonts.
	held, letters int
	info          ref
	locked        bool
}

// place is where an object's value begins: in the file, or in unpacked[in-1].
type place struct{ in, at int }

// find goes through the file once, from object to object.
func (d *document) find() {
	p := &parser{data: d.file, work: d.work, refs: true}
	object, trailer := after(d.file, 0, "obj"), after(d.file, 0, "trailer")
	for (object >= 0 || trailer >= 0) && !d.work.out() {
		if trailer >= 0 && (object < 0 || trailer < object) {
			p.at, p.values = trailer, 0
			if t, ok := p.next(0).(dict); ok {
				d.trailer(t)
			}
			trailer = after(d.file, trailer, "trailer")
			continue
		}
		at := object
		if number, ok := objectBefore(d.file, at-len("obj")); ok && len(d.objects) < maxObjects {
			d.objects[number] = place{0, at}
			p.at, p.values = at, 0
			if inside, ok := p.next(0).(dict); ok {
				if s, end := d.streamAt(inside, p.at, false); s != nil {
					// What looks like an object in a stream is none.
					at = end
					d.special(s)
				}
			}
		}
		d.work.spend(at - object + 1)
		object = after(d.file, at, "obj")
		if 0 <= trailer && trailer < at {
			trailer = after(d.file, at, "trailer")
		}
	}
}

// after is where a word ends that begins at or after a place, -1 for nowhere.
func after(b []byte, from int, word string) int {
	if i := bytes.Index(b[from:], []byte(word)); i >= 0 {
		return from + i + len(word)
	}
	return -1
}

// objectBefore reads "12 0 " before the word obj at i.
func objectBefore(b []byte, i int) (int, bool) {
	back := func(accept func(byte) bool) (from, to int) {
		to = i
		for i > 0 && to-i < 12 && accept(b[i-1]) {
			i--
		}
		return i, to
	}
	space := func(c byte) bool { return class[c] == isSpace }
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	back(space)
	if from, to := back(digit); from == to {
		return 0, false
	}
	if from, to := back(space); from == to {
		return 0, false
	}
	from, to := back(digit)
	n, ok := number(b[from:to])
	return int(n), ok && n < maxObject
}

// special looks at the streams that say something about the file.
func (d *document) special(s *stream) {
	switch s.dict["Type"] {
	case name("XRef"):
		d.trailer(s.dict)
	case name("ObjStm"):
		d.unpack(s)
	}
}

func (d *document) trailer(t dict) {
	if t["Encrypt"] != nil {
		d.locked = true
	}
	if r, ok := t["Info"].(ref); ok {
		d.info = r
	}
}

// unpack notes the objects of a stream of objects (7.5.7).
func (d *document) unpack(s *stream) {
	count, _ := d.get(s.dict["N"]).(float64)
	first, _ := d.get(s.dict["First"]).(float64)
	b := d.decode(s)
	if d.held += len(b); first < 0 || int(first) > len(b) || d.held > maxHeld {
		return
	}
	d.unpacked = append(d.unpacked, b)
	p := &parser{data: b[:int(first)], work: d.work}
	for range int(max(0, min(count, maxObjects))) {
		p.values = 0
		number, isNumber := p.next(0).(float64)
		offset, isOffset := p.next(0).(float64)
		if !isNumber || !isOffset || len(d.objects) >= maxObjects {
			return
		}
		if at := first + offset; number >= 0 && number < maxObject && at >= 0 && int(at) < len(b) {
			d.objects[int(number)] = place{len(d.unpacked), int(at)}
		}
	}
}

// get follows references to a value.
func (d *document) get(v value) value {
	for range 8 {
		r, ok := v.(ref)
		if !ok {
			return v
		}
		v = d.object(int(r))
	}
	return nil
}

// object reads an object.
func (d *document) object(number int) value {
	at, ok := d.objects[number]
	if !ok {
		return nil
	}
	data := d.file
	if at.in > 0 {
		data = d.unpacked[at.in-1]
	}
	p := &parser{data: data, at: at.at, work: d.work, refs: true}
	v := p.next(0)
	if inside, ok := v.(dict); ok && at.in == 0 {
		if s, _ := d.streamAt(inside, p.at, true); s != nil {
			return s
		}
	}
	if _, ok := v.(keyword); ok {
		return nil
	}
	return v
}

// streamAt finds the bytes that follow a dictionary, and where they end. The length
// is believed where the word endstream stands there; lengths that are objects
// of their own only once all objects are known.
func (d *document) streamAt(of dict, at int, known bool) (*stream, int) {
	p := &parser{data: d.file, at: at, work: d.work}
	p.skip()
	if !bytes.HasPrefix(d.file[p.at:], []byte("stream")) {
		return nil, 0
	}
	from := p.at + len("stream")
	if from < len(d.file) && d.file[from] == '\r' {
		from++
	}
	if from < len(d.file) && d.file[from] == '\n' {
		from++
	}
	length := of["Length"]
	if r, ok := length.(ref); ok && (known || d.objects[int(r)] != (place{})) {
		length = d.length(int(r))
	}
	if n, ok := length.(float64); ok && n >= 0 && int(n) <= len(d.file)-from {
		to := from + int(n)
		if i := bytes.Index(d.file[to:min(len(d.file), to+32)], []byte("endstream")); i >= 0 {
			return &stream{of, d.file[from:to]}, to + i
		}
	}
	i := bytes.Index(d.file[from:], []byte("endstream"))
	if i < 0 {
		i = len(d.file) - from
	}
	d.work.spend(i)
	return &stream{of, d.file[from : from+i]}, from + i
}

// length reads an object that is a number.
func (d *document) length(number int) value {
	at, ok := d.objects[number]
	if !ok || at.in != 0 {
		return nil
	}
	p := &parser{data: d.file, at: at.at, work: d.work}
	return p.next(0)
}

// numbers are those of all objects, in order, so that a file always has the same
// text.
func (d *document) numbers() []int { return slices.Sorted(maps.Keys(d.objects)) }

func (d *document) dictOf(v value) dict {
	switch v := d.get(v).(type) {
	case dict:
		return v
	case *stream:
		return v.dict
	}
	return nil
}

func (d *document) numberOf(v value, otherwise float64) float64 {
	if n, ok := d.get(v).(float64); ok {
		return n
	}
	return otherwise
}
