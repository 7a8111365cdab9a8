package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// memberMark is a file beside Config.Dir that says that this relay has been a
// member. Whoever takes the folder away takes its votes with it; started with
// an empty one under its old membership, the relay could vote against what it
// agreed to. So without its log it only starts again when the mark is gone too.
//
// Its methods are called one after the other: at the start, then as
// configurations are committed.
type memberMark struct {
	path string
	set  bool
}

// markOf is the mark of a folder.
func markOf(dir string) string { return filepath.Clean(dir) + ".member" }

const memberText = `This relay has been a member of Raft; %s holds what it voted for.
If that is lost, remove the relay from Raft (relayctl raft remove) before you
delete this file, start it without voters in relay.yaml, and add it again
(relayctl raft add-voter).
`

func openMember(dir string) (*memberMark, error) {
	m := &memberMark{path: markOf(dir)}
	_, err := os.Stat(m.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	m.set = err == nil
	return m, nil
}

// keep makes the mark, durably, where there is none.
func (m *memberMark) keep(dir string) error {
	if m.set {
		return nil
	}
	if err := writeSynced(m.path, fmt.Appendf(nil, memberText, dir)); err != nil {
		return err
	}
	m.set = true
	return syncDir(filepath.Dir(m.path))
}

// checkMember refuses a folder without a log where one has been. It is asked
// before anything is opened.
func checkMember(dir string, mark *memberMark) error {
	if _, err := os.Stat(filepath.Join(dir, logFile)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	evidence := ""
	if mark.set {
		evidence = mark.path
	}
	for _, name := range []string{appliedFile, filepath.Join("snapshots", "*", "meta.json")} {
		found, err := filepath.Glob(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if len(found) > 0 {
			evidence = found[0]
		}
	}
	if evidence == "" {
		return nil
	}
	return votesLost(dir, "is missing", evidence)
}

func votesLost(dir, how, evidence string) error {
	return fmt.Errorf("%s %s, but this relay has been a member of Raft (%s says so), and what it voted for is lost: %s",
		filepath.Join(dir, logFile), how, evidence, wayBack(dir))
}
