package pdf

import (
	"bytes"
	"compress/flate"
	"compress/lzw"
	"encoding/ascii85"
	"io"
)

// maxStream is the most that one stream may unfold into; those of text have
// some hundred kilobytes.
const maxStream = 16 << 20

// decode undoes the filters of a stream (7.4). What is damaged in the middle gives
// what was before; a filter for pictures gives nothing.
func (d *document) decode(s *stream) []byte {
	filters, parameters := d.list(s.dict["Filter"], s.dict["F"]), d.list(s.dict["DecodeParms"], s.dict["DP"])
	b := s.raw
	if len(filters) > 8 {
		return nil
	}
	for i, f := range filters {
		var parameter dict
		if i < len(parameters) {
			parameter = d.dictOf(parameters[i])
		}
		if !d.work.spend(len(b)) {
			return nil
		}
		switch d.get(f) {
		case name("FlateDecode"), name("Fl"):
			b = d.predicted(d.inflate(b), parameter)
		case name("LZWDecode"), name("LZW"):
			b = d.predicted(d.unlzw(b, d.numberOf(parameter["EarlyChange"], 1) != 0), parameter)
		case name("ASCIIHexDecode"), name("AHx"):
			if to := bytes.IndexByte(b, '>'); to >= 0 {
				b = b[:to]
			}
			b = unhexAll(b)
		case name("ASCII85Decode"), name("A85"):
			b = unascii85(b)
		case name("RunLengthDecode"), name("RL"):
			b = d.unrun(b)
		default:
			return nil
		}
	}
	return b
}

// list is a value, or those of an array; the short name is that of pictures inside
// content.
func (d *document) list(v, short value) array {
	if v == nil {
		v = short
	}
	switch v := d.get(v).(type) {
	case nil:
		return nil
	case array:
		return v
	default:
		return array{v}
	}
}

// inflate does not ask for the checksum at the end, which broken writers leave
// out, and pays before it keeps.
func (d *document) inflate(b []byte) []byte {
	if len(b) < 2 {
		return nil
	}
	if b[0]&0x0f == 8 && (int(b[0])<<8|int(b[1]))%31 == 0 {
		b = b[2:]
	}
	r := flate.NewReader(bytes.NewReader(b))
	defer r.Close()
	return d.readAll(r, len(b))
}

func (d *document) readAll(r io.Reader, like int) []byte {
	out := make([]byte, 0, min(4*like+512, 1<<20))
	for len(out) < maxStream {
		if len(out) == cap(out) {
			grown := make([]byte, len(out), min(2*cap(out), maxStream))
			copy(grown, out)
			out = grown
		}
		n, err := r.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		if !d.work.spend(n) || err != nil {
			break
		}
	}
	return out
}

// unlzw reads the LZW of PDF, which is that of TIFF where codes grow early; the
// library has the other.
func (d *document) unlzw(b []byte, early bool) []byte {
	if !early {
		r := lzw.NewReader(bytes.NewReader(b), lzw.MSB, 8)
		defer r.Close()
		return d.readAll(r, len(b))
	}
	type entry struct {
		before int
		length int
		first  byte
		last   byte
	}
	const clear, stop = 256, 257
	table := make([]entry, 258, 4096)
	for i := range 256 {
		table[i] = entry{-1, 1, byte(i), byte(i)}
	}
	var out []byte
	bits, have, width, previous := 0, 0, 9, -1
	for _, c := range b {
		for bits, have = bits<<8|int(c), have+8; have >= width; {
			have -= width
			code := bits >> have & (1<<width - 1)
			switch {
			case code == clear:
				table, width, previous = table[:258], 9, -1
				continue
			case code == stop || code > len(table) || code == len(table) && previous < 0:
				return out
			}
			if previous >= 0 && len(table) < 4096 {
				e := entry{previous, table[previous].length + 1, table[previous].first, 0}
				if e.last = e.first; code < len(table) {
					e.last = table[code].first
				}
				table = append(table, e)
			}
			if code >= len(table) {
				return out
			}
			n := table[code].length
			if len(out)+n > maxStream || !d.work.spend(n) {
				return out
			}
			out = append(out, make([]byte, n)...)
			for i, at := len(out)-1, code; at >= 0 && i >= 0; i-- {
				out[i], at = table[at].last, table[at].before
			}
			previous = code
			if size := len(table) + 1; size >= 1<<width && width < 12 {
				width++
			}
		}
		bits &= 1<<have - 1
	}
	return out
}

func unascii85(b []byte) []byte {
	if to := bytes.IndexByte(b, '~'); to >= 0 {
		b = b[:to]
	}
	b = bytes.TrimPrefix(bytes.TrimSpace(b), []byte("<~"))
	out := make([]byte, len(b)*4+8)
	n, _, _ := ascii85.Decode(out, b, true)
	return out[:n]
}

func (d *document) unrun(b []byte) []byte {
	var out []byte
	for i := 0; i < len(b) && b[i] != 128 && len(out) < maxStream; {
		n := int(b[i])
		i++
		if n < 128 {
			to := min(i+n+1, len(b))
			out, i = append(out, b[i:to]...), to
			continue
		}
		if i >= len(b) || !d.work.spend(257-n) {
			break
		}
		out = append(out, bytes.Repeat(b[i:i+1], 257-n)...)
		i++
	}
	return out
}

// predicted undoes the prediction of rows (7.4.4.4), as streams of objects may have
// it.
func (d *document) predicted(b []byte, parameter dict) []byte {
	predictor := d.numberOf(parameter["Predictor"], 1)
	if predictor < 10 {
		return b
	}
	colors, depth := d.numberOf(parameter["Colors"], 1), d.numberOf(parameter["BitsPerComponent"], 8)
	columns := d.numberOf(parameter["Columns"], 1)
	if colors < 1 || depth < 1 || columns < 1 || colors > 32 || depth > 16 || columns > 1<<20 {
		return nil
	}
	pixel := max(1, int(colors*depth+7)/8)
	row := int(colors*depth*columns+7) / 8
	if !d.work.spend(4 * len(b)) {
		return nil
	}
	out, above := make([]byte, 0, len(b)), make([]byte, row)
	for len(b) > 1 {
		kind := b[0]
		from := len(out)
		out = append(out, b[1:min(len(b), row+1)]...)
		line := out[from:]
		b = b[len(line)+1:]
		for i := range line {
			var left, corner byte
			if i >= pixel {
				left, corner = line[i-pixel], above[i-pixel]
			}
			switch kind {
			case 1:
				line[i] += left
			case 2:
				line[i] += above[i]
			case 3:
				line[i] += byte((int(left) + int(above[i])) / 2)
			case 4:
				line[i] += paeth(left, above[i], corner)
			}
		}
		above = line
	}
	return out
}

func paeth(a, b, c byte) byte {
	p := int(a) + int(b) - int(c)
	distance := func(x byte) int { return max(p-int(x), int(x)-p) }
	switch {
	case distance(a) <= distance(b) && distance(a) <= distance(c):
		return a
	case distance(b) <= distance(c):
		return b
	}
	return c
}
