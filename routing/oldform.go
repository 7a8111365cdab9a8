package routing

import "strings"

// OldForm returns the 13-character code of QCVN 102:2016 (NNN.NN.NN.XNN,
// lowest level first) for a code of Decision 20/2020 (level 1 first):
// 000.00.00.G22 for G22, 000.05.12.H26 for H26.12.05. It is defined where each
// level fits its group: a letter and two digits, then up to two levels of two
// digits and a fourth of three, none of them all zeros. On these codes
// FromOldForm is its inverse.
func OldForm(code AgencyCode) (AgencyCode, bool) {
	levels := strings.Split(string(code), ".")
	if len(levels) > 4 || !isLevelOne(levels[0]) {
		return "", false
	}
	groups := [4]string{"000", "00", "00", levels[0]} // level 4, 3, 2, 1
	for i, level := range levels[1:] {
		at := 2 - i
		if len(level) != len(groups[at]) || !isDigits(level) || isZeros(level) {
			return "", false
		}
		groups[at] = level
	}
	return AgencyCode(strings.Join(groups[:], ".")), true
}

// FromOldForm returns the code of Decision 20/2020 for a 13-character code of
// QCVN 102:2016; false for anything else, and for a code that names a level
// without the one above it. The code need not exist: ask the directory.
func FromOldForm(old AgencyCode) (AgencyCode, bool) {
	groups := strings.Split(string(old), ".")
	if len(groups) != 4 || !isLevelOne(groups[3]) {
		return "", false
	}
	code := groups[3]
	ended := false
	for _, at := range []int{2, 1, 0} {
		width := 2
		if at == 0 {
			width = 3
		}
		group := groups[at]
		switch {
		case len(group) != width || !isDigits(group):
			return "", false
		case isZeros(group):
			ended = true
		case ended:
			return "", false
		default:
			code += "." + group
		}
	}
	return AgencyCode(code), true
}

func isLevelOne(s string) bool {
	return len(s) == 3 && s[0] >= 'A' && s[0] <= 'Z' && isDigits(s[1:])
}

func isDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }

func isZeros(s string) bool { return strings.Trim(s, "0") == "" }
