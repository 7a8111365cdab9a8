package routing

import (
	"fmt"
	"regexp"
	"strings"
)

// AgencyCode is the identification code of an agency in the form of Decision
// 20/2020/QĐ-TTg, level 1 first ("G22", "H26.12.05"). The older 13-character
// form of QCVN 102:2016 ("000.00.00.G22") is an alias that the directory
// resolves; a value of this type taken from the directory is never an alias.
//
// Not every id in the field is a code by the book ("vxp.saas.02",
// "777.77.04.D77"), so the form is checked only as far as needed to keep keys
// and file names sane; whether an agency exists is asked of the directory.
type AgencyCode string

// RelayID names a relay of the mesh: 1 to 63 characters of a-z, 0-9 and "-",
// beginning with a letter.
type RelayID string

// Tier is the level of an agency in the administration.
type Tier uint8

// The four tiers of DESIGN §2; 0 stands for "any" in selectors and queries.
const (
	TierCentral  Tier = 1
	TierProvince Tier = 2
	TierDistrict Tier = 3
	TierCommune  Tier = 4
)

// MaxCodeLength is the longest agency code in bytes.
const MaxCodeLength = 64

var relayForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// ParseAgencyCode checks the form of an agency code, either form, and returns
// it trimmed. It does not ask whether the agency exists.
func ParseAgencyCode(s string) (AgencyCode, error) {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return "", fmt.Errorf("agency code is empty")
	case len(s) > MaxCodeLength:
		return "", fmt.Errorf("agency code has %d bytes, at most %d are allowed", len(s), MaxCodeLength)
	case !hasCodeForm(s):
		return "", fmt.Errorf("agency code %q: letters, digits and single dots, dashes or underscores between them", s)
	}
	return AgencyCode(s), nil
}

// ParseRelayID checks the form of a relay id.
func ParseRelayID(s string) (RelayID, error) {
	if !relayForm.MatchString(s) {
		return "", fmt.Errorf("relay id %q: 1 to 63 of a-z, 0-9 and -, beginning with a letter", s)
	}
	return RelayID(s), nil
}

// hasCodeForm is called for each of thousands of recipients, so it is a loop.
func hasCodeForm(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z':
		case c != '.' && c != '-' && c != '_', i == 0, i == len(s)-1, c == '.' && s[i-1] == '.':
			return false
		}
	}
	return s != ""
}
