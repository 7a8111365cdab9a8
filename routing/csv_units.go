package routing

import "fmt"

// root is the row that the statistics office's lists begin with: the country,
// which is no agency.
const root = "VN"

// unitTier is the tier of a unit by its code in the lists of the statistics
// office: provinces have two digits, districts three, communes five. Since July
// 2025 those lists have no districts and count communes as tier 3.
func unitTier(code string) (Tier, bool) {
	if !isDigits(code) {
		return 0, false
	}
	switch len(code) {
	case 2:
		return TierProvince, true
	case 3:
		return TierDistrict, true
	case 5:
		return TierCommune, true
	}
	return 0, false
}

// numbered gives the units of the statistics office among rows the codes of
// Decision 20/2020, level 1 first:
//
//	province  01               H26, by gso_code of the list of level 1
//	district  001 of 01        H26.001
//	commune   00001 of 001     H26.001.00001
//	commune   00004 of 01      H26.00004, where there are no districts
//
// So lists of before and after July 2025 may be read together, though they use
// the same five digits for different communes. The country is left out, and who
// was below it is at the top. What the list of level 1 names is taken from it;
// a home that only the other list states is kept. All other rows stay as they
// are, but for a superior that was given a code.
func numbered(levelOne, rows []csvRow, faults *lineFaults) []csvRow {
	ofGSO, named := map[string]string{}, map[string]csvRow{}
	for _, r := range levelOne {
		if other, twice := ofGSO[r.gso]; twice && r.gso != "" {
			faults.add(r.place, fmt.Sprintf("gso_code %s is that of %s already", r.gso, other))
		}
		if r.gso != "" {
			ofGSO[r.gso] = r.GetCode()
		}
		named[r.GetCode()] = r
	}
	codes := unitCodes(ofGSO, rows, faults)
	var kept []csvRow
	for _, r := range rows {
		if r.GetCode() == root && r.GetParentCode() == "" {
			continue
		}
		above := codes[unit{r.file, r.GetParentCode()}].code
		if tier, is := unitTier(r.GetCode()); is {
			given := codes[unit{r.file, r.GetCode()}]
			if given.code == "" || given.to != r.place {
				continue // its fault, or that of its superior, was named
			}
			r.Code, r.Tier, r.ParentCode = given.code, uint32(tier), above
		} else if above != "" {
			r.ParentCode = above
		}
		if r.GetParentCode() == root {
			r.ParentCode = ""
		}
		if one, is := named[r.GetCode()]; is {
			if one.GetHomeRelayId() == "" {
				one.HomeRelayId = r.GetHomeRelayId()
			}
			if one.GetStandbyRelayId() == "" {
				one.StandbyRelayId = r.GetStandbyRelayId()
			}
			continue
		}
		kept = append(kept, r)
	}
	return kept
}

// unit names a unit in one file: two files may mean two by the same digits.
type unit struct {
	file int
	code string
}

// given is the code of a unit, empty for one that has none, and its row.
type given struct {
	code string
	to   place
}

// unitCodes finds the code of each unit, from above; one at fault has none, nor has
// what is below it. A fault is blamed on one row only.
func unitCodes(ofGSO map[string]string, rows []csvRow, faults *lineFaults) map[unit]given {
	codes := map[unit]given{}
	for _, now := range []Tier{TierProvince, TierDistrict, TierCommune} {
		for _, r := range rows {
			tier, is := unitTier(r.GetCode())
			if !is || tier != now {
				continue
			}
			this := unit{r.file, r.GetCode()}
			if before, twice := codes[this]; twice {
				faults.add(r.place, fmt.Sprintf("code %s stands on %s already", r.GetCode(), faults.list.at(before.to)))
				continue
			}
			code, fault := "", ""
			above, known := codes[unit{r.file, r.GetParentCode()}]
			switch stated := Tier(r.GetTier()); {
			case stated != tier && !(tier == TierCommune && stated == TierDistrict && len(r.GetParentCode()) == 2):
				fault = fmt.Sprintf("tier %d: %s has %d digits, which is tier %d", stated, r.GetCode(), len(r.GetCode()), tier)
			case tier == TierProvince && r.GetParentCode() != "" && r.GetParentCode() != root:
				fault = fmt.Sprintf("parent_code: %s above %s, but a province is at the top", r.GetParentCode(), r.GetCode())
			case tier == TierProvince:
				if code = ofGSO[r.GetCode()]; code == "" {
					fault = fmt.Sprintf("code %s: no row of the list of level 1 has it as gso_code", r.GetCode())
				}
			case !known || len(r.GetParentCode()) >= len(r.GetCode()):
				fault = fmt.Sprintf("parent_code: %s is no unit above %s in this file", r.GetParentCode(), r.GetCode())
			case above.code != "":
				code = above.code + "." + r.GetCode()
			}
			if fault != "" {
				faults.add(r.place, fault)
			}
			codes[this] = given{code, r.place}
		}
	}
	return codes
}
