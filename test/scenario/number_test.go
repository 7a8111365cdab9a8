package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/truclienthong/truc/test/mesh"
)

// Who gives a number twice in a year is told so by the connector, and the document
// goes; who updates a document, or sends it again, is not.
func TestANumberGivenTwice(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	dir := t.TempDir()
	file := filepath.Join(dir, "baocao.txt")
	if err := os.WriteFile(file, []byte("báo cáo"), 0o600); err != nil {
		t.Fatal(err)
	}
	profile := []string{"--profile", m.Layout.Profile("H17.97.08")}
	send := func(subject, document, number string, more ...string) (map[string]any, []string) {
		t.Helper()
		args := append([]string{"send", "--to", "G22", "--subject", subject, "--document-id", document,
			"--number", number, "--notation", "BC-UBND", "--date", "2026-11-20", file}, more...)
		receipt := asked(t, "connector", append(args, profile...)...)[0]
		var fields []string
		for _, w := range receipt["warnings"].([]any) {
			fields = append(fields, fmt.Sprint(w.(map[string]any)["field"], " ", w.(map[string]any)["description"]))
		}
		return receipt, fields
	}
	first, warnings := send("Báo cáo tháng", "BC-1", "05")
	if len(warnings) > 0 {
		t.Errorf("the first: %q", warnings)
	}
	id := first["envelope_id"].(string)
	if _, warnings = send("Báo cáo tháng", "BC-1", "05"); len(warnings) > 0 {
		t.Errorf("the first again: %q", warnings)
	}
	if _, warnings = send("Báo cáo tháng (sửa)", "BC-2", "05", "--update", id, "--reason", "Sai số liệu"); len(warnings) > 0 {
		t.Errorf("an update: %q", warnings)
	}
	second, warnings := send("Báo cáo quý", "BC-3", "5")
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "header.document.code.number ") || !strings.Contains(warnings[0], id) {
		t.Errorf("another document: %q, want a warning that names %s", warnings, id)
	}
	if second["relay"] != first["relay"] {
		t.Errorf("accepted by %v and %v, want one relay", first["relay"], second["relay"])
	}
	_, stderr, code := tool(t, "connector", append([]string{"send", "--to", "G22", "--subject", "Báo cáo năm",
		"--number", "5", "--notation", "bc-ubnd", "--date", "2026-12-01", file}, profile...)...)
	if code != 0 || !strings.Contains(stderr, "note: header.document.code.number was given by H17.97.08") || !strings.Contains(stderr, id) {
		t.Errorf("on the screen (%d): %s", code, stderr)
	}
}
