package envelope_test

import (
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

func TestKinds(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for k := envelope.DocumentKind(1); k <= envelope.DocumentKinds; k++ {
		for _, name := range []string{k.Name(), strings.ToUpper(k.Name()), norm.NFD.String(k.Name()), "  " + strings.Replace(k.Name(), " ", "  ", 1)} {
			if got := envelope.KindNamed(name); got != k {
				t.Errorf("%q: kind %d, want %d", name, got, k)
			}
		}
		if a := k.Abbreviation(); a == "" {
			if k != envelope.CongVan && k.Name() != "Thư công" {
				t.Errorf("%s has no abbreviation", k.Name())
			}
		} else if seen[a] || envelope.KindNoted(a+"-UBND") != k || envelope.KindNoted("12/"+strings.ToUpper(a)+" - VP") != k {
			t.Errorf("%s: not found by %s, or not alone", k.Name(), a)
		} else {
			seen[a] = true
		}
	}
	for text, want := range map[string]envelope.DocumentKind{
		"quyet dinh": 2, "QUYẾT ĐỊNH": 2, "de an": 12, "du an": 13, "Dự án": 13, "cong van": 18, "Nghị định": 0, "": 0, "Công văn đi": 0,
	} {
		if got := envelope.KindNamed(text); got != want {
			t.Errorf("name %q: kind %d, want %d", text, got, want)
		}
	}
	for text, want := range map[string]envelope.DocumentKind{
		"VPCP-TTĐT": 0, "BC": 0, "QyĐ-BTC": 5, "QĐ-BTC": 2, "DA-X": 13, "ĐA-X": 12, "": 0, "12/2025/QĐ-UBND": 2, "TTr-BNV": 16, "UBND-BC": 0,
	} {
		if got := envelope.KindNoted(text); got != want {
			t.Errorf("notation %q: kind %d, want %d", text, got, want)
		}
	}
	if envelope.DocumentKind(99).Name()+envelope.DocumentKind(99).Abbreviation()+envelope.DocumentKind(0).Name() != "" {
		t.Error("a kind that does not exist has a name")
	}
}

func TestKindOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		document *exchangev1.Document
		want     envelope.DocumentKind
		warned   string
	}{
		"by name":              {&exchangev1.Document{TypeName: "Báo cáo", Code: &exchangev1.Code{Notation: "BC-UBND"}}, 14, ""},
		"by notation":          {&exchangev1.Document{Code: &exchangev1.Code{Notation: "KH-UBND"}}, 10, ""},
		"the name wins":        {&exchangev1.Document{TypeName: "Báo cáo", Code: &exchangev1.Code{Notation: "KH-UBND"}}, 14, "header.document.code.notation"},
		"unknown":              {&exchangev1.Document{TypeName: "Văn bản", Code: &exchangev1.Code{Notation: "KH-UBND"}}, 0, "header.document.type_name"},
		"a normative document": {&exchangev1.Document{TypeName: "Nghị định", Code: &exchangev1.Code{Notation: "2025/NĐ-CP"}}, 0, ""},
		"a letter":             {&exchangev1.Document{TypeName: "Công văn", Code: &exchangev1.Code{Notation: "VPCP-TTĐT"}}, 18, ""},
		"nothing said":         {&exchangev1.Document{}, 0, ""},
		"no document":          {nil, 0, ""},
	} {
		if got := envelope.KindOf(c.document); got != c.want {
			t.Errorf("%s: kind %d, want %d", name, got, c.want)
		}
		if c.document == nil {
			continue
		}
		h := good()
		c.document.Subject = "V/v"
		h.Document = c.document
		problems, warnings := envelope.Check(h, envelope.Limits{})
		if len(problems) > 0 || len(warnings) > 1 || (len(warnings) == 1) != (c.warned != "") || c.warned != "" && warnings[0].GetField() != c.warned {
			t.Errorf("%s: problems %v, warnings %v; want no problem, and a warning of %q", name, problems, warnings, c.warned)
		}
	}
}
