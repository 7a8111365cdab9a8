package consensus

import (
	"github.com/hashicorp/raft"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// step is what the leader does about a membership change.
type step int

const (
	stepNothing     step = iota // it is so already
	stepTransfer                // hand leadership over
	stepJoinFirst               // add as non-voter, let it catch up, give it a vote
	stepPromote                 // let it catch up, give it a vote
	stepAddVoter                // change a voter's address
	stepAddNonvoter             // add, or change its address
	stepDemote
	stepRemove
)

func (s step) String() string {
	return [...]string{"nothing", "transfer", "join first", "promote", "add voter", "add nonvoter", "demote", "remove"}[s]
}

// decide judges a membership change by the configuration in force on the
// leader self.
func decide(c raft.Configuration, self string, req *directoryv1.ChangeMembershipRequest) (step, error) {
	id, address := req.GetRelayId(), req.GetAddress()
	var member *raft.Server
	voters := 0
	for i, s := range c.Servers {
		if string(s.ID) == id {
			member = &c.Servers[i]
		}
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	voter := member != nil && member.Suffrage == raft.Voter

	switch req.GetOperation() {
	case opAddVoter, opAddNonvoter:
		if id == "" {
			return 0, refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "name the relay to add")
		}
		if err := checkAddress(address); err != nil {
			return 0, refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "address of %s: %v", id, err)
		}
		for _, s := range c.Servers {
			if string(s.Address) == address && string(s.ID) != id {
				return 0, refuse(exchangev1.ErrorReason_ERROR_REASON_CONFLICT,
					"%s is the address of %s; give %s its own, or remove %s first", address, s.ID, id, s.ID)
			}
		}
		same := member != nil && string(member.Address) == address
		if req.GetOperation() == opAddNonvoter {
			switch {
			case voter:
				return 0, refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE, "%s is a voter; demote it instead", id)
			case same:
				return stepNothing, nil
			}
			return stepAddNonvoter, nil
		}
		switch {
		case voter && same:
			return stepNothing, nil
		case voter && !req.GetChangeAddress():
			return 0, refuse(exchangev1.ErrorReason_ERROR_REASON_CONFLICT,
				"%s has its vote at %s; to have it at %s, start it there first and ask for the change of address", id, member.Address, address)
		case voter:
			return stepAddVoter, nil
		case same:
			return stepPromote, nil
		}
		return stepJoinFirst, nil

	case opDemote, opRemove:
		switch {
		case member == nil:
			return 0, refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, "%q is not a member; see raft members", id)
		case !voter && req.GetOperation() == opDemote:
			return stepNothing, nil
		case voter && voters == 1:
			return 0, refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE,
				"%s is the last voter; make another relay a voter first", id)
		case id == self:
			return stepTransfer, nil
		case req.GetOperation() == opDemote:
			return stepDemote, nil
		}
		return stepRemove, nil

	case opTransfer:
		switch {
		case id == self:
			return stepNothing, nil
		case id == "" && !otherVoter(c, self):
			return 0, refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE, "no other relay has a vote")
		case id == "":
			return stepTransfer, nil
		case member == nil:
			return 0, refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, "%q is not a member; see raft members", id)
		case !voter:
			return 0, refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE, "%s has no vote; make it a voter first", id)
		}
		return stepTransfer, nil
	}
	return 0, refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "no such membership operation: %s", req.GetOperation())
}

// otherVoter reports whether a member other than id has a vote.
func otherVoter(c raft.Configuration, id string) bool {
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter && string(s.ID) != id {
			return true
		}
	}
	return false
}
