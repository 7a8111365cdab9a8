package pdf

import (
	"bytes"
	"math"
	"strings"
)

// matrix maps coordinates (8.3.3).
type matrix [6]float64

var identity = matrix{1, 0, 0, 1, 0, 0}

// then is m followed by n.
func (m matrix) then(n matrix) matrix {
	return matrix{
		m[0]*n[0] + m[1]*n[2], m[0]*n[1] + m[1]*n[3],
		m[2]*n[0] + m[3]*n[2], m[2]*n[1] + m[3]*n[3],
		m[4]*n[0] + m[5]*n[2] + n[4], m[4]*n[1] + m[5]*n[3] + n[5],
	}
}

// state is the part of the graphics state that moves text (9.3).
type state struct {
	ctm                                 matrix
	font                                *font
	size, spacing, words, leading, rise float64
	scale                               float64
}

// Bounds of what is drawn: how deep forms draw forms, and states lie in states;
// how many strings one page has, of which real ones have some thousands.
const (
	maxForms  = 8
	maxStates = 64
	maxPieces = 1 << 17
)

// drawing runs the operators of one page, or of what is put on it.
type drawing struct {
	d      *document
	pieces []piece
	// beside are texts that stand for what is drawn (14.9.4).
	beside []string
	forms  int
}

// run draws content with resources.
func (w *drawing) run(content []byte, resources dict, ctm matrix) {
	w.forms++ // form looks whether there may be one more
	defer func() { w.forms-- }()
	d := w.d
	c := &canvas{drawing: w, resources: resources, state: state{ctm: ctm, scale: 1}, line: identity, at: identity}
	c.fonts, c.forms = d.dictOf(resources["Font"]), d.dictOf(resources["XObject"])
	p := &parser{data: content, work: d.work}
	var operands []value
	for {
		p.values = 0
		v := p.next(0)
		if v == value(end{}) {
			return
		}
		k, ok := v.(keyword)
		if !ok {
			if operands = append(operands, v); len(operands) > 64 {
				operands = operands[1:]
			}
			continue
		}
		if k == "ID" {
			skipPicture(p)
		}
		c.operate(k, operands)
		operands = operands[:0]
	}
}

// skipPicture goes to the end of a picture inside content.
func skipPicture(p *parser) {
	for from := p.at; ; {
		i := bytes.Index(p.data[p.at:], []byte("EI"))
		if i < 0 {
			// Not its end but that of a damaged stream: go on as if it was none.
			p.at = from
			p.work.spend(len(p.data) - from)
			return
		}
		p.at += i + 2
		p.work.spend(i + 2)
		if (p.at == len(p.data) || class[p.data[p.at]] == isSpace) && class[p.data[p.at-3]] == isSpace {
			return
		}
	}
}

// canvas is one content stream with its states.
type canvas struct {
	*drawing
	resources    dict
	fonts, forms dict
	state        state
	saved        []state
	// line and at are the matrices of the line and of the next letter.
	line, at matrix
}

func (c *canvas) operate(k keyword, operands []value) {
	n := func(i int) float64 {
		if i >= len(operands) {
			return 0
		}
		f, _ := operands[i].(float64)
		return f
	}
	first := func() value {
		if len(operands) == 0 {
			return nil
		}
		return operands[len(operands)-1]
	}
	s := &c.state
	switch k {
	case "q":
		if len(c.saved) < maxStates {
			c.saved = append(c.saved, *s)
		}
	case "Q":
		if i := len(c.saved) - 1; i >= 0 {
			*s, c.saved = c.saved[i], c.saved[:i]
		}
	case "cm":
		s.ctm = matrix{n(0), n(1), n(2), n(3), n(4), n(5)}.then(s.ctm)
	case "BT":
		c.line, c.at = identity, identity
	case "Tf":
		if len(operands) >= 2 {
			if f, ok := operands[0].(name); ok {
				s.font = c.d.fontOf(c.fonts[f])
			}
			s.size = n(1)
		}
	case "Tc":
		s.spacing = n(0)
	case "Tw":
		s.words = n(0)
	case "Tz":
		s.scale = n(0) / 100
	case "TL":
		s.leading = n(0)
	case "Ts":
		s.rise = n(0)
	case "Td":
		c.move(n(0), n(1))
	case "TD":
		s.leading = -n(1)
		c.move(n(0), n(1))
	case "Tm":
		c.line = matrix{n(0), n(1), n(2), n(3), n(4), n(5)}
		c.at = c.line
	case "T*":
		c.move(0, -s.leading)
	case "Tj":
		c.show(first())
	case "'":
		c.move(0, -s.leading)
		c.show(first())
	case "\"":
		s.words, s.spacing = n(0), n(1)
		c.move(0, -s.leading)
		c.show(first())
	case "TJ":
		list, _ := first().(array)
		for _, v := range list {
			if shift, ok := v.(float64); ok {
				c.advance(-shift / 1000 * s.size * s.scale)
				continue
			}
			c.show(v)
		}
	case "Do":
		if f, ok := first().(name); ok {
			c.form(c.forms[f])
		}
	case "BDC", "DP":
		c.property(first())
	}
}

func (c *canvas) move(x, y float64) {
	c.line = matrix{1, 0, 0, 1, x, y}.then(c.line)
	c.at = c.line
}

func (c *canvas) advance(by float64) { c.at = matrix{1, 0, 0, 1, by, 0}.then(c.at) }

// show draws a string.
func (c *canvas) show(v value) {
	t, ok := v.(text)
	s := &c.state
	if !ok || s.font == nil || s.size == 0 {
		return
	}
	from := c.here()
	var shown strings.Builder
	s.font.letters(t, func(l letter) {
		if !c.d.work.spend(4 + len(l.means)) {
			return
		}
		shown.WriteString(l.means)
		by := l.width*s.size + s.spacing
		if l.space {
			by += s.words
		}
		c.advance(by * s.scale)
	})
	to := c.here()
	if shown.Len() == 0 {
		return
	}
	// The height of a letter on the page, and where its line runs.
	m := c.at.then(s.ctm)
	if len(c.pieces) >= maxPieces || !c.d.work.spend(32) {
		c.d.work.left = -1
		return
	}
	c.pieces = append(c.pieces, newPiece(shown.String(), from, to, math.Abs(s.size)*math.Hypot(m[2], m[3]), math.Atan2(m[1]*sign(s.size*s.scale), m[0]*sign(s.size*s.scale))))
}

func sign(f float64) float64 { return math.Copysign(1, f) }

func (c *canvas) here() point {
	m := c.at.then(c.state.ctm)
	return point{m[4] + c.state.rise*m[2], m[5] + c.state.rise*m[3]}
}

// form draws a form; pictures are none.
func (c *canvas) form(v value) {
	number, isRef := v.(ref)
	s, ok := c.d.get(v).(*stream)
	if !ok || s.dict["Subtype"] != name("Form") || c.drawing.forms >= maxForms {
		return
	}
	b, known := c.d.forms[int(number)]
	if !known || !isRef {
		b = c.d.decode(s)
		if isRef && c.d.held+len(b) <= maxHeld {
			c.d.held += len(b)
			c.d.forms[int(number)] = b
		}
	}
	resources := c.d.dictOf(s.dict["Resources"])
	if resources == nil {
		resources = c.resources
	}
	c.run(b, resources, c.d.matrixOf(s.dict["Matrix"]).then(c.state.ctm))
}

// property reads the words that stand for what is drawn next.
func (c *canvas) property(v value) {
	if n, ok := v.(name); ok {
		v = c.d.dictOf(c.resources["Properties"])[n]
	}
	if t, ok := c.d.get(c.d.dictOf(v)["ActualText"]).(text); ok {
		c.beside = append(c.beside, readable(t))
		c.d.work.spend(32 + len(t))
	}
}

func (d *document) matrixOf(v value) matrix {
	a, ok := d.get(v).(array)
	if !ok || len(a) != 6 {
		return identity
	}
	var m matrix
	for i := range m {
		m[i] = d.numberOf(a[i], identity[i])
	}
	return m
}
