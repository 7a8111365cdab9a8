package routing

import (
	"cmp"
	"fmt"
	"slices"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

const maxCSVFaults = 20

// superiorsFirst orders agencies so that each comes after its superior, where
// that is among them, and otherwise as they are.
func superiorsFirst(agencies []*directoryv1.Agency, places map[string]place, faults *lineFaults) []*directoryv1.Agency {
	byCode := make(map[string]*directoryv1.Agency, len(agencies))
	for _, a := range agencies {
		byCode[a.GetCode()] = a
	}
	ordered := make([]*directoryv1.Agency, 0, len(agencies))
	done := make(map[string]bool, len(agencies))
	for _, a := range agencies {
		var way []*directoryv1.Agency // from a upwards, not yet in ordered
		onWay := map[string]bool{}
		for here := a; here != nil && !done[here.GetCode()]; here = byCode[here.GetParentCode()] {
			if onWay[here.GetCode()] {
				faults.add(places[here.GetCode()], fmt.Sprintf("agency %s is its own superior", here.GetCode()))
				break
			}
			onWay[here.GetCode()] = true
			way = append(way, here)
		}
		for _, here := range slices.Backward(way) {
			done[here.GetCode()] = true
			ordered = append(ordered, here)
		}
	}
	return ordered
}

// FileError is what is wrong with lists of agencies.
type FileError struct {
	// Faults are the first 20, by file and line; More counts the others.
	Faults []FileFault
	More   int
}

// FileFault is one of them.
type FileFault struct {
	// Place is "line 7", of several files "units.csv line 7"; empty where it is
	// in Message.
	Place   string
	Message string
}

func (e *FileError) Error() string {
	message := "read agencies:"
	for _, f := range e.Faults {
		message += "\n"
		if f.Place != "" {
			message += f.Place + ": "
		}
		message += f.Message
	}
	if e.More > 0 {
		message += fmt.Sprintf("\nand %d more", e.More)
	}
	return message
}

// lineFaults gathers what is wrong with files.
type lineFaults struct {
	list  *AgencyList
	found []lineFault
	more  int
}

type lineFault struct {
	place
	message string
}

func (f *lineFaults) add(at place, message string) {
	if len(f.found) == maxCSVFaults {
		f.more++
		return
	}
	f.found = append(f.found, lineFault{at, message})
}

func (f *lineFaults) err() error {
	if len(f.found) == 0 {
		return nil
	}
	slices.SortStableFunc(f.found, func(a, b lineFault) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line))
	})
	err := &FileError{More: f.more}
	for _, fault := range f.found {
		err.Faults = append(err.Faults, FileFault{f.list.at(fault.place), fault.message})
	}
	return err
}
