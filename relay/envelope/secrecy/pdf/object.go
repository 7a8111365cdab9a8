package pdf

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// The values of PDF (ISO 32000-1, 7.3): nil, bool, float64, and these.
type (
	value   any
	name    string
	text    string // a string, as its bytes
	keyword string // an operator, or a word of the file's structure
	array   []value
	dict    map[name]value
	ref     int // the number of an object
)

// stream is a dictionary with bytes as they are in the file.
type stream struct {
	dict dict
	raw  []byte
}

// maxDepth is how deep arrays and dictionaries may lie in each other, maxValues
// how many values one object may hold.
const (
	maxDepth  = 40
	maxValues = 1 << 19
)

// parser reads values, of the file or of a content stream. When the work is
// used up, everything has ended.
type parser struct {
	data []byte
	at   int
	work *work
	// refs: "12 0 R" is a reference, which it is not in content.
	refs bool
	// values counts those of one object or one operation.
	values int
}

// end is what comes after the last value.
type end struct{}

const (
	isSpace = 1 << iota
	isDelimiter
)

var class = func() (c [256]byte) {
	for _, b := range []byte("\x00\t\n\f\r ") {
		c[b] = isSpace
	}
	for _, b := range []byte("()<>[]{}/%") {
		c[b] = isDelimiter
	}
	return c
}()

// skip goes to the next byte that means something.
func (p *parser) skip() {
	from := p.at
	for p.at < len(p.data) {
		switch b := p.data[p.at]; {
		case class[b] == isSpace:
			p.at++
		case b == '%':
			for p.at < len(p.data) && p.data[p.at] != '\n' && p.data[p.at] != '\r' {
				p.at++
			}
		default:
			p.work.spend(p.at - from)
			return
		}
	}
	p.work.spend(p.at - from)
}

// next reads a value or a keyword.
func (p *parser) next(depth int) value {
	p.skip()
	from := p.at
	v := p.value(depth)
	p.work.spend(p.at - from + 1)
	return v
}

func (p *parser) value(depth int) value {
	from := p.at
	if p.values++; p.at >= len(p.data) || depth > maxDepth || p.values > maxValues || p.work.out() {
		p.at = len(p.data)
		return end{}
	}
	switch b := p.data[p.at]; b {
	case '/':
		return p.name()
	case '(':
		return p.literal()
	case '[':
		p.at++
		return p.array(depth)
	case '<':
		if p.at+1 < len(p.data) && p.data[p.at+1] == '<' {
			p.at += 2
			return p.dict(depth)
		}
		return p.hex()
	case ']', '{', '}', ')':
		p.at++
		return keyword(b)
	case '>':
		p.at++
		if p.at < len(p.data) && p.data[p.at] == '>' {
			p.at++
			return keyword(">>")
		}
		return keyword(">")
	}
	for p.at < len(p.data) && class[p.data[p.at]] == 0 {
		p.at++
	}
	return p.word(p.data[from:p.at])
}

// word is a number, a reference, a constant, or a keyword.
func (p *parser) word(w []byte) value {
	if n, ok := number(w); ok {
		if p.refs && n >= 0 && n == math.Trunc(n) && n < maxObject {
			if at, ok := p.reference(); ok {
				p.at = at
				return ref(n)
			}
		}
		if i := int(n); float64(i) == n && i >= 0 && i < len(common) {
			return common[i]
		}
		return n
	}
	if v, ok := words[string(w)]; ok {
		return v
	}
	return keyword(w)
}

// Values that occur all the time, made once: putting one into an interface takes
// memory each time.
var (
	common = func() (c [1024]value) {
		for i := range c {
			c[i] = float64(i)
		}
		return c
	}()
	words = func() map[string]value {
		w := map[string]value{"true": true, "false": false, "null": nil}
		for _, k := range strings.Fields("obj endobj stream R q Q cm w J j M d ri i gs m l c v y h re S s f F f* B B* b b* n W W* BT ET Tc Tw Tz TL Tf Tr Ts Td TD Tm T* Tj TJ ' \" CS cs SC SCN sc scn G g RG rg K k sh Do MP DP BMC BDC EMC") {
			w[k] = keyword(k)
		}
		return w
	}()
)

// reference looks for the rest of a reference, "0 R".
func (p *parser) reference() (after int, ok bool) {
	i := p.at
	for i < len(p.data) && class[p.data[i]] == isSpace {
		i++
	}
	digits := i
	for i < len(p.data) && i-digits < 6 && p.data[i] >= '0' && p.data[i] <= '9' {
		i++
	}
	if i == digits {
		return 0, false
	}
	blanks := i
	for i < len(p.data) && class[p.data[i]] == isSpace {
		i++
	}
	if i == blanks || i >= len(p.data) || p.data[i] != 'R' || i+1 < len(p.data) && class[p.data[i+1]] == 0 {
		return 0, false
	}
	return i + 1, true
}

// number reads a number as forgiving viewers do: "--5" and "1.2.3" occur.
func number(w []byte) (float64, bool) {
	if len(w) == 0 || len(w) > 40 || (w[0] > '9' || w[0] < '0') && w[0] != '-' && w[0] != '+' && w[0] != '.' {
		return 0, false
	}
	whole, digits := 0, true
	for i, b := range w {
		if b < '0' || b > '9' || i > 8 {
			digits = false
			break
		}
		whole = whole*10 + int(b-'0')
	}
	if digits {
		return float64(whole), true
	}
	for len(w) > 1 && w[0] == '-' && w[1] == '-' {
		w = w[1:]
	}
	n, err := strconv.ParseFloat(string(w), 64)
	return n, err == nil && !math.IsNaN(n) && math.Abs(n) < 1e12
}

func (p *parser) name() value {
	p.at++
	from, plain := p.at, true
	for p.at < len(p.data) && class[p.data[p.at]] == 0 {
		plain = plain && p.data[p.at] != '#'
		p.at++
	}
	raw := p.data[from:p.at]
	if plain {
		return name(raw)
	}
	var b []byte
	for i := 0; i < len(raw); i++ {
		if raw[i] == '#' && i+2 < len(raw) && unhex(raw[i+1]) >= 0 && unhex(raw[i+2]) >= 0 {
			b = append(b, byte(unhex(raw[i+1])<<4|unhex(raw[i+2])))
			i += 2
			continue
		}
		b = append(b, raw[i])
	}
	return name(b)
}

func unhex(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b >= 'a' && b <= 'f':
		return int(b-'a') + 10
	case b >= 'A' && b <= 'F':
		return int(b-'A') + 10
	}
	return -1
}

func (p *parser) hex() value {
	p.at++
	closing := bytes.IndexByte(p.data[p.at:], '>')
	if closing < 0 {
		closing = len(p.data) - p.at
	}
	b := unhexAll(p.data[p.at : p.at+closing])
	p.at = min(p.at+closing+1, len(p.data))
	return text(b)
}

func unhexAll(digits []byte) []byte {
	b := make([]byte, 0, len(digits)/2+1)
	half, high := false, 0
	for _, d := range digits {
		v := unhex(d)
		switch {
		case v < 0:
		case half:
			b, half = append(b, byte(high<<4|v)), false
		default:
			high, half = v, true
		}
	}
	if half {
		b = append(b, byte(high<<4))
	}
	return b
}

func (p *parser) literal() value {
	p.at++
	var b []byte
	for depth := 1; p.at < len(p.data); {
		c := p.data[p.at]
		p.at++
		switch c {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return text(b)
			}
		case '\\':
			b = p.escape(b)
			continue
		}
		b = append(b, c)
	}
	return text(b)
}

// escape reads what follows a backslash in a string.
func (p *parser) escape(b []byte) []byte {
	if p.at >= len(p.data) {
		return b
	}
	c := p.data[p.at]
	p.at++
	switch c {
	case 'n':
		return append(b, '\n')
	case 'r':
		return append(b, '\r')
	case 't':
		return append(b, '\t')
	case 'b':
		return append(b, '\b')
	case 'f':
		return append(b, '\f')
	case '\n':
		return b
	case '\r':
		if p.at < len(p.data) && p.data[p.at] == '\n' {
			p.at++
		}
		return b
	}
	if c < '0' || c > '7' {
		return append(b, c)
	}
	octal := int(c - '0')
	for range 2 {
		if p.at >= len(p.data) || p.data[p.at] < '0' || p.data[p.at] > '7' {
			break
		}
		octal = octal<<3 | int(p.data[p.at]-'0')
		p.at++
	}
	return append(b, byte(octal))
}

func (p *parser) array(depth int) value {
	a := make(array, 0, 4)
	for {
		v := p.next(depth + 1)
		switch k, isWord := v.(keyword); {
		case v == value(end{}), isWord && k == "]":
			return a
		case isWord && (k == "endobj" || k == ">>"):
			return a
		}
		a = append(a, v)
	}
}

func (p *parser) dict(depth int) value {
	d := dict{}
	for {
		v := p.next(depth + 1)
		if k, ok := v.(keyword); ok && (k == ">>" || k == "endobj" || k == "stream") || v == value(end{}) {
			return d
		}
		key, ok := v.(name)
		if !ok {
			continue
		}
		v = p.next(depth + 1)
		if k, ok := v.(keyword); ok {
			if k == ">>" || k == "endobj" {
				return d
			}
			continue
		}
		if v == value(end{}) {
			return d
		}
		d[key] = v
	}
}
