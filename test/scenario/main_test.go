// Package scenario holds the stories that a mesh has to live through: documents
// of all sizes, circulars, relays that die, join, leave and move.
package scenario

import (
	"flag"
	"os"
	"testing"

	"github.com/truclienthong/truc/test/mesh"
)

// Scenarios mostly wait, for disks to sync, links to be given up, relays to be
// missed; they do so beside one another.
const besideOneAnother = "4"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", besideOneAnother); err != nil {
		panic(err)
	}
	code := m.Run()
	mesh.RemoveBinaries()
	os.Exit(code)
}
