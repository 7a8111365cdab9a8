package sample_test

import (
	"archive/zip"
	"bytes"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/truclienthong/truc/cmd/relayd/sample"
)

func TestPDFIsWellFormed(t *testing.T) {
	b := sample.PDF("Bao cao (thang)", 100_000)
	if len(b) < 95_000 || len(b) > 110_000 {
		t.Errorf("size %d, want about 100000", len(b))
	}
	if !bytes.HasPrefix(b, []byte("%PDF-1.4\n")) || !bytes.HasSuffix(b, []byte("%%EOF\n")) {
		t.Error("no PDF head or tail")
	}
	at := regexp.MustCompile(`startxref\n(\d+)\n`).FindSubmatch(b)
	start, err := strconv.Atoi(string(at[1]))
	if err != nil || !bytes.HasPrefix(b[start:], []byte("xref\n")) {
		t.Errorf("startxref %s does not point at the table: %v", at[1], err)
	}
	for i, entry := range regexp.MustCompile(`(\d{10}) 00000 n `).FindAllSubmatch(b[start:], -1) {
		offset, _ := strconv.Atoi(string(entry[1]))
		if want := strconv.Itoa(i+1) + " 0 obj"; !bytes.HasPrefix(b[offset:], []byte(want)) {
			t.Errorf("object %d is not at %d", i+1, offset)
		}
	}
	if !bytes.Equal(b, sample.PDF("Bao cao (thang)", 100_000)) {
		t.Error("the same title gave other bytes")
	}
}

func TestDOCXIsWellFormed(t *testing.T) {
	b := sample.DOCX("Công văn <1>", 50_000, "Kính gửi & trân trọng")
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := z.Open("word/document.xml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(f)
	if err != nil || !strings.Contains(string(text), "Kính gửi &amp; trân trọng") {
		t.Errorf("document.xml: %v, %q", err, text)
	}
}
