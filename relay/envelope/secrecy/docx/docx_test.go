package docx_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/truclienthong/truc/relay/envelope/secrecy/docx"
	"github.com/truclienthong/truc/relay/envelope/secrecy/secrecytest"
)

func TestText(t *testing.T) {
	t.Parallel()
	wide := func(s string) string {
		b := []byte{0xff, 0xfe}
		for _, u := range utf16.Encode([]rune(s)) {
			b = append(b, byte(u), byte(u>>8))
		}
		return string(b)
	}
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"words in runs":            {secrecytest.DOCX{Body: "một hai\nba"}.Bytes(), "một hai\nba\n"},
		"a tab":                    {secrecytest.DOCX{Body: "một\thai"}.Bytes(), "một\nhai\n"},
		"a box":                    {secrecytest.DOCX{Body: "ba", Box: "một"}.Bytes(), "một\nKính gửi:\nba\n"},
		"deleted":                  {secrecytest.DOCX{Body: "một", Raw: `<w:p><w:del><w:r><w:delText>hai</w:delText></w:r></w:del><w:moveFrom><w:r><w:t>hai</w:t></w:r></w:moveFrom></w:p>`}.Bytes(), "một\n"},
		"what the program fills":   {secrecytest.DOCX{Raw: `<w:p><w:r><w:instrText>PAGE</w:instrText></w:r><w:r><w:t>3</w:t></w:r></w:p>`}.Bytes(), "3\n"},
		"capitals":                 {secrecytest.DOCX{Raw: `<w:p><w:r><w:rPr><w:caps/></w:rPr><w:t>một</w:t></w:r><w:r><w:t>hai</w:t></w:r><w:r><w:rPr><w:caps w:val="0"/></w:rPr><w:t>ba</w:t></w:r></w:p>`}.Bytes(), "MỘThaiba\n"},
		"a header":                 {secrecytest.DOCX{Header: "một"}.Bytes(), "một\n"},
		"a footnote":               {secrecytest.DOCX{Footnote: "một"}.Bytes(), "một\n"},
		"two bytes a letter":       {secrecytest.Zip(map[string]string{"word/document.xml": wide(`<?xml version="1.0" encoding="UTF-16"?><w:document><w:p><w:r><w:t>một</w:t></w:r></w:p></w:document>`)}), "một\n"},
		"OpenDocument":             {secrecytest.Zip(map[string]string{"content.xml": `<office:text><text:p>một <text:span>hai</text:span><text:tab/>ba<office:annotation><text:p>x</text:p></office:annotation></text:p></office:text>`}), "một hai\nba\n"},
		"a table program's":        {secrecytest.Zip(map[string]string{"xl/sharedStrings.xml": `<sst><si><t>một</t></si><si><r><t>h</t></r><r><t>ai</t></r></si></sst>`}), "một\nhai\n"},
		"a table program's header": {secrecytest.Zip(map[string]string{"xl/worksheets/sheet1.xml": `<headerFooter><oddHeader>&amp;Ltrang 1&amp;C&amp;"Arial,Bold"&amp;14MẬT&amp;R&amp;D</oddHeader></headerFooter>`}), "trang 1\nMẬT\n"},
		"slides":                   {secrecytest.Zip(map[string]string{"ppt/slides/slide1.xml": `<p:sp><a:p><a:r><a:t>một</a:t></a:r></a:p></p:sp>`}), "một\n"},
		"never closed":             {secrecytest.Zip(map[string]string{"word/document.xml": `<w:document><w:p><w:r><w:t>một`}), "một\n"},
	} {
		content, err := docx.Text(c.file)
		if got := strings.Join(content.Texts, ""); got != c.want || err != nil && name != "never closed" {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	content, err := docx.Text(secrecytest.DOCX{Title: "một", Keywords: "hai", Custom: map[string]string{"Độ mật": "ba"}}.Bytes())
	if err != nil || !slices.Equal(content.Titles, []string{"một", "hai"}) || !slices.Equal(content.Fields, []string{"Độ mật: ba"}) {
		t.Errorf("%q, %v", content, err)
	}
}

func TestHostileFiles(t *testing.T) {
	t.Parallel()
	many := map[string]string{}
	for i := range 40_000 {
		many[strings.Repeat("x", 40)+string(rune('a'+i%26))+strings.Repeat("y", i/26%50)+string(rune(0x4e00+i/1300))] = ""
	}
	good := secrecytest.DOCX{Body: "một"}.Bytes()
	for name, c := range map[string]struct {
		file []byte
		want error
	}{
		"a bomb":               {secrecytest.DOCX{Body: "một", Raw: strings.Repeat("<w:p/>", 2<<20)}.Bytes(), docx.ErrLimit},
		"a bomb of one word":   {secrecytest.DOCX{Raw: "<w:p><w:r><w:t>" + strings.Repeat("a", 12<<20)}.Bytes(), docx.ErrLimit},
		"too many files":       {secrecytest.Zip(many), docx.ErrLimit},
		"boxes in boxes":       {secrecytest.DOCX{Raw: strings.Repeat("<w:p>", 1<<18)}.Bytes(), nil},
		"cut off":              {good[:len(good)/2], docx.ErrDamaged},
		"no document":          {secrecytest.Zip(map[string]string{"a.txt": "b"}), docx.ErrNotDOCX},
		"an entity of its own": {secrecytest.Zip(map[string]string{"word/document.xml": `<!DOCTYPE a [<!ENTITY b "` + strings.Repeat("c", 99) + `">]><w:p><w:t>&b;&b;</w:t></w:p>`}), nil},
	} {
		if _, err := docx.Text(c.file); !errors.Is(err, c.want) || errors.Is(err, docx.ErrDamaged) != (c.want == docx.ErrDamaged) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add(secrecytest.DOCX{Body: "một", Header: "hai", Custom: map[string]string{"a": "b"}}.Bytes(), "<w:p><w:r><w:t>ba")
	f.Add([]byte("PK\x03\x04"), `<w:p><oddHeader>&amp;K12&amp;"</oddHeader>`)
	f.Fuzz(func(t *testing.T, file []byte, body string) {
		for _, b := range [][]byte{file, secrecytest.Zip(map[string]string{"word/document.xml": body, "content.xml": body, "docProps/custom.xml": body})} {
			content, err := docx.Text(b)
			if err != nil && strings.HasPrefix(err.Error(), "DOCX file: ") {
				t.Fatal(err) // a panic that was caught
			}
			if again, _ := docx.Text(b); !slices.Equal(again.Texts, content.Texts) {
				t.Error("the same file has another text")
			}
		}
	})
}
