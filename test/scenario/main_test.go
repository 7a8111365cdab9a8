// Package scenario holds the stories that a mesh has to live through: documents
// of all sizes, circulars, relays that die, join, leave and move.
package scenario

import (
	"os"
	"testing"

	"github.com/truclienthong/truc/test/mesh"
)

func TestMain(m *testing.M) {
	code := m.Run()
	mesh.RemoveBinaries()
	os.Exit(code)
}
