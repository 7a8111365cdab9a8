package secrecy_test

import (
	"strings"
	"testing"

	. "github.com/truclienthong/truc/relay/envelope/secrecy"
	"github.com/truclienthong/truc/relay/envelope/secrecy/secrecytest"
)

// BenchmarkInFile is what looking into a file costs whoever takes or hands it over,
// of the size that files have on average.
func BenchmarkInFile(b *testing.B) {
	const size = 230 << 10
	text := strings.Repeat(ordinary+"\n", 150)
	scan := secrecytest.PDF{Runs: page(secrecytest.Run{}), Filler: size}.Bytes()
	letters := secrecytest.PDF{Runs: secrecytest.Wrapped(text, 90), Packed: true}
	letters.Filler = size - len(letters.Bytes())
	table := make([]byte, size)
	for i, x := 0, uint32(1); i < len(table); i++ {
		x = x*1664525 + 1013904223
		table[i] = byte(x >> 24)
	}
	for name, file := range map[string][]byte{
		"PDF of 6 pages of text": letters.Bytes(),
		"PDF of a scanned page":  scan,
		"DOCX of 6 pages":        secrecytest.DOCX{Body: text, More: map[string]string{"word/media/image1.png": string(table[:180<<10])}}.Bytes(),
		"neither":                table,
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(file)))
			b.ReportAllocs()
			for b.Loop() {
				if m, err := InFile(file); m != None || err != nil {
					b.Fatal(m, err)
				}
			}
			b.ReportMetric(float64(len(file)), "file-B")
		})
	}
}
