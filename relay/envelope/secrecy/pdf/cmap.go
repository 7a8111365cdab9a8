package pdf

import (
	"unicode/utf16"
)

// maxLetters is how many characters all fonts of a file may name together, and
// maxMeaning how long one of them may be: a ligature has three letters.
const (
	maxLetters = 200_000
	maxMeaning = 64
)

// cmap says what the codes of a font mean (9.10.3).
type cmap struct {
	// widths are the lengths of codes, in bytes, by their first byte.
	widths [256]uint8
	means  map[uint32]string
}

// key keeps codes of different lengths apart.
func key(code []byte) uint32 {
	k := uint32(len(code)) << 24
	for _, b := range code {
		k = k&0xff000000 | (k&0xffffff)<<8&0xffffff | uint32(b)
	}
	return k
}

// readCMap reads a ToUnicode program.
func (d *document) readCMap(program []byte) *cmap {
	c := &cmap{means: map[uint32]string{}}
	p := &parser{data: program, work: d.work}
	var operands []value
	for {
		p.values = 0
		v := p.next(0)
		if v == value(end{}) {
			return c
		}
		k, ok := v.(keyword)
		if !ok {
			if operands = append(operands, v); len(operands) > 4096 {
				operands = operands[1:]
			}
			continue
		}
		switch k {
		case "endcodespacerange":
			for i := 0; i+1 < len(operands); i += 2 {
				c.space(operands[i], operands[i+1])
			}
		case "endbfchar":
			for i := 0; i+1 < len(operands); i += 2 {
				d.means(c, operands[i], operands[i+1])
			}
		case "endbfrange":
			for i := 0; i+2 < len(operands); i += 3 {
				d.meansAll(c, operands[i], operands[i+1], operands[i+2])
			}
		}
		operands = operands[:0]
	}
}

func (c *cmap) space(from, to value) {
	low, ok := from.(text)
	high, also := to.(text)
	if !ok || !also || len(low) == 0 || len(low) > 3 || len(low) != len(high) {
		return
	}
	for b := int(low[0]); b <= int(high[0]); b++ {
		c.widths[b] = uint8(len(low))
	}
}

func (d *document) means(c *cmap, code, meaning value) {
	from, ok := code.(text)
	if !ok || len(from) == 0 || len(from) > 3 {
		return
	}
	if to, ok := meaning.(text); ok && len(to) <= maxMeaning {
		d.mean(c, key([]byte(from)), utf16be([]byte(to)))
	}
}

func (d *document) mean(c *cmap, code uint32, meaning string) {
	if d.letters++; d.letters <= maxLetters && d.work.spend(8) {
		c.means[code] = meaning
	}
}

func (d *document) meansAll(c *cmap, low, high, meaning value) {
	from, ok := low.(text)
	to, also := high.(text)
	if !ok || !also || len(from) == 0 || len(from) > 3 || len(from) != len(to) {
		return
	}
	first, last := key([]byte(from)), key([]byte(to))
	switch m := meaning.(type) {
	case array:
		for i := 0; i < len(m) && first+uint32(i) <= last; i++ {
			if t, ok := m[i].(text); ok && len(t) <= maxMeaning {
				d.mean(c, first+uint32(i), utf16be([]byte(t)))
			}
		}
	case text:
		if len(m) < 2 || len(m) > maxMeaning {
			return
		}
		for code := first; code <= last && d.letters <= maxLetters && !d.work.out(); code++ {
			units := []byte(m)
			n := uint32(units[len(units)-2])<<8 | uint32(units[len(units)-1])
			n += code - first
			units[len(units)-2], units[len(units)-1] = byte(n>>8), byte(n)
			d.mean(c, code, utf16be(units))
		}
	}
}

func utf16be(b []byte) string {
	if len(b) == 1 {
		return string(rune(b[0]))
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = uint16(b[2*i])<<8 | uint16(b[2*i+1])
	}
	return string(utf16.Decode(units))
}
