// Package spooltest does to a spool what disks do, for tests of those who rely
// on it. Nothing else imports it.
package spooltest

import (
	"fmt"
	"os"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
)

// Damage turns one bit in the content of a part, on the disk below dir, which is
// spool.Config.Dir of a relay that runs or is stopped. A relay that writes the
// content again at that moment may go on with a good copy.
func Damage(dir string, id envelope.ID, part int) error {
	file, offset, length, err := spool.Locate(dir, id, part)
	if err != nil {
		return fmt.Errorf("damage: %w", err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("damage: %w", err)
	}
	defer f.Close()
	at := offset + length/2
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return fmt.Errorf("damage: %w", err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		return fmt.Errorf("damage: %w", err)
	}
	return f.Sync()
}
