package pdf

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

type point struct{ x, y float64 }

// piece is a string where it is drawn. Its place is given along its own line, so
// that turned text is as good as any.
type piece struct {
	text string
	// from and to are the ends along the line, height is across it, upwards.
	from, to, height float64
	// size is that of the letters, angle the whole degrees of the line.
	size  float64
	angle int
}

func newPiece(text string, from, to point, size, angle float64) piece {
	p := piece{text: text, size: size}
	if degrees := math.Round(angle * 180 / math.Pi); !math.IsNaN(degrees) {
		p.angle = (int(degrees) + 360) % 360
	}
	sin, cos := math.Sincos(float64(p.angle) * math.Pi / 180)
	along := func(at point) float64 { return finite(at.x*cos + at.y*sin) }
	p.from, p.to = along(from), along(to)
	p.height = finite(from.y*cos - from.x*sin)
	if p.from > p.to {
		p.from, p.to = p.to, p.from
	}
	if p.size = finite(p.size); p.size < 0.01 {
		p.size = 0.01
	}
	return p
}

func finite(f float64) float64 {
	if math.IsNaN(f) || math.Abs(f) > 1e9 {
		return 0
	}
	return f
}

// How letters come together, in sizes of a letter: what is on one line, what is
// the next letter or word of it and no other column, what is a blank, and what is
// the next line of a block.
const (
	sameLine    = 0.3
	overlaps    = -0.4
	otherColumn = 1.0
	blank       = 0.18
	nextLine    = 2.0
	otherSize   = 1.5
)

// continues reports whether b goes on where a ends.
func continues(a, b *piece) bool {
	if a.angle != b.angle || max(a.size, b.size) > otherSize*min(a.size, b.size) {
		return false
	}
	size := max(a.size, b.size)
	gap := (b.from - a.to) / size
	return math.Abs(a.height-b.height) <= sameLine*size && gap >= overlaps && gap <= otherColumn
}

// joined are runs of pieces that continue each other, in the order given.
func joined(pieces []piece) []piece {
	var out []piece
	for i := 0; i < len(pieces); {
		j := i + 1
		var b strings.Builder
		b.WriteString(pieces[i].text)
		run := pieces[i]
		for last := run.text; j < len(pieces) && continues(&run, &pieces[j]); j++ {
			next := &pieces[j]
			if next.from-run.to > blank*run.size && !strings.HasSuffix(last, " ") && !strings.HasPrefix(next.text, " ") {
				b.WriteByte(' ')
			}
			b.WriteString(next.text)
			last = next.text
			run.to, run.size = next.to, max(run.size, next.size)
		}
		run.text = b.String()
		if strings.TrimSpace(run.text) != "" {
			out = append(out, run)
		}
		i = j
	}
	return out
}

// layout gives the lines of what was drawn: first what was drawn one after the
// other, for a stamp may lie over other words, then what is side by side.
func layout(pieces []piece) string {
	pieces = joined(pieces)
	slices.SortStableFunc(pieces, func(a, b piece) int {
		return cmp.Or(cmp.Compare(a.angle, b.angle), cmp.Compare(b.height, a.height), cmp.Compare(a.from, b.from))
	})
	var lines []piece
	for i := 0; i < len(pieces); {
		j := i + 1
		for j < len(pieces) && pieces[j].angle == pieces[i].angle && pieces[i].height-pieces[j].height <= sameLine*pieces[i].size {
			j++
		}
		row := pieces[i:j]
		slices.SortStableFunc(row, func(a, b piece) int { return cmp.Compare(a.from, b.from) })
		lines = append(lines, joined(row)...)
		i = j
	}
	return blocks(lines)
}

// maxOpen is how many blocks are open side by side.
const maxOpen = 32

// blocks puts the lines of a block one after the other: what a line goes on with
// stands below it, in its column.
func blocks(lines []piece) string {
	type block struct {
		last piece
		text strings.Builder
	}
	var open []*block
	var out strings.Builder
	closeFirst := func(n int) {
		for _, b := range open[:n] {
			out.WriteString(b.text.String())
			out.WriteByte('\n')
		}
		open = slices.Delete(open, 0, n)
	}
	for _, line := range lines {
		i := slices.IndexFunc(open, func(b *block) bool {
			size := max(b.last.size, line.size)
			return b.last.angle == line.angle && size <= otherSize*min(b.last.size, line.size) &&
				b.last.height-line.height <= nextLine*size && b.last.height-line.height > sameLine*size &&
				line.from < b.last.to && b.last.from < line.to
		})
		if i < 0 {
			if len(open) == maxOpen {
				closeFirst(1)
			}
			open = append(open, &block{})
			i = len(open) - 1
		}
		open[i].last = line
		open[i].text.WriteString(line.text)
		open[i].text.WriteByte('\n')
	}
	closeFirst(len(open))
	return out.String()
}
