package envelope

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// ErrorDomain is the domain of google.rpc.ErrorInfo in every refusal.
const ErrorDomain = "truc"

const reasonPrefix = "ERROR_REASON_"

// Problem is one thing wrong with one field.
type Problem struct {
	// Field is the path in the request, for example "header.parts[2].name".
	Field string
	// Reason says which rule it breaks.
	Reason exchangev1.ErrorReason
	// Description says what was found and what to do, for people.
	Description string
}

// Refusal is a typed "no": it crosses the wire as a gRPC status with
// google.rpc details and is the same value again on the other side.
// Whether another try may succeed is Temporary's business alone.
type Refusal struct {
	// Reason is the first reason; Problems may carry others.
	Reason exchangev1.ErrorReason
	// Message is one sentence for people: what is wrong and what to do next.
	Message string
	// Problems lists every field at fault, all of them at once.
	Problems []Problem
	// RetryAfter is how long to wait before another try; 0: the caller's choice.
	RetryAfter time.Duration
	// Quota names what was exhausted, with RATE_LIMITED and QUOTA_EXCEEDED.
	Quota string
	// code overrides the table for reasons that came with another one.
	code codes.Code
}

// Refuse returns a refusal with one reason.
func Refuse(reason exchangev1.ErrorReason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// RefuseProblems returns one refusal for all problems, or nil for none.
func RefuseProblems(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	var b strings.Builder
	for i, p := range problems {
		if i == 10 {
			fmt.Fprintf(&b, "; and %d more", len(problems)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %s", p.Field, p.Description)
	}
	return &Refusal{Reason: problems[0].Reason, Message: b.String(), Problems: problems}
}

func (r *Refusal) Error() string { return r.Message }

// Has reports whether the refusal, or one of its problems, has the reason.
func (r *Refusal) Has(reason exchangev1.ErrorReason) bool {
	if r.Reason == reason {
		return true
	}
	for _, p := range r.Problems {
		if p.Reason == reason {
			return true
		}
	}
	return false
}

// codeOf is the one table from reasons to gRPC codes.
var codeOf = map[exchangev1.ErrorReason]codes.Code{
	exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD:          codes.InvalidArgument,
	exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT:      codes.InvalidArgument,
	exchangev1.ErrorReason_ERROR_REASON_SUSPENDED_RECIPIENT:    codes.InvalidArgument,
	exchangev1.ErrorReason_ERROR_REASON_NO_RECIPIENT:           codes.InvalidArgument,
	exchangev1.ErrorReason_ERROR_REASON_TOO_MANY_RECIPIENTS:    codes.InvalidArgument,
	exchangev1.ErrorReason_ERROR_REASON_SENDER_NOT_CALLER:      codes.PermissionDenied,
	exchangev1.ErrorReason_ERROR_REASON_GATEWAY_NOT_AUTHORIZED: codes.PermissionDenied,
	exchangev1.ErrorReason_ERROR_REASON_FORBIDDEN_BY_RULE:      codes.PermissionDenied,
	exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET:           codes.PermissionDenied,
	exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH:          codes.InvalidArgument,
	exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH:          codes.InvalidArgument,
	exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT:             codes.Aborted,
	exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE:              codes.InvalidArgument,
	exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED:     codes.AlreadyExists,
	exchangev1.ErrorReason_ERROR_REASON_NO_IDENTITY:            codes.Unauthenticated,
	exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY:         codes.PermissionDenied,
	exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED:       codes.PermissionDenied,
	exchangev1.ErrorReason_ERROR_REASON_CERTIFICATE_REVOKED:    codes.Unauthenticated,
	exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND:              codes.NotFound,
	exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED:           codes.ResourceExhausted,
	exchangev1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED:         codes.ResourceExhausted,
	exchangev1.ErrorReason_ERROR_REASON_DISK_FULL:              codes.Unavailable,
	exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING:            codes.Unavailable,
	exchangev1.ErrorReason_ERROR_REASON_NO_LEADER:              codes.Unavailable,
	exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE:               codes.Unavailable,
	exchangev1.ErrorReason_ERROR_REASON_LOOP:                   codes.FailedPrecondition,
	exchangev1.ErrorReason_ERROR_REASON_NOT_HOME:               codes.FailedPrecondition,
	exchangev1.ErrorReason_ERROR_REASON_EXPIRED:                codes.FailedPrecondition,
	exchangev1.ErrorReason_ERROR_REASON_REFUSED_BY_RECIPIENT:   codes.FailedPrecondition,
	exchangev1.ErrorReason_ERROR_REASON_RECALLED:               codes.FailedPrecondition,
	exchangev1.ErrorReason_ERROR_REASON_DAMAGED:                codes.DataLoss,
	exchangev1.ErrorReason_ERROR_REASON_CONFLICT:               codes.FailedPrecondition,
	exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE:            codes.FailedPrecondition,
	exchangev1.ErrorReason_ERROR_REASON_STORAGE_FAILED:         codes.Unavailable,
}

// GRPCStatus makes a Refusal a gRPC status wherever grpc meets it.
func (r *Refusal) GRPCStatus() *status.Status {
	code := r.code
	if code == codes.OK {
		code = codeOf[r.Reason]
	}
	if code == codes.OK {
		code = codes.Unknown
	}
	st := status.New(code, r.Message)
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: nameOf(r.Reason), Domain: ErrorDomain}}
	if len(r.Problems) > 0 {
		bad := new(errdetails.BadRequest)
		for _, p := range r.Problems[:min(len(r.Problems), maxProblems)] {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: p.Field, Description: p.Description, Reason: nameOf(p.Reason),
			})
		}
		details = append(details, bad)
	}
	if r.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.RetryAfter)})
	}
	if r.Quota != "" {
		details = append(details, &errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{
			{Subject: r.Quota, Description: r.Message},
		}})
	}
	with, err := st.WithDetails(details...)
	if err != nil {
		return st
	}
	return with
}

func nameOf(reason exchangev1.ErrorReason) string {
	return strings.TrimPrefix(reason.String(), reasonPrefix)
}

// AsRefusal finds the refusal in err, or rebuilds it from the gRPC status in
// err; false where err carries neither.
func AsRefusal(err error) (*Refusal, bool) {
	var r *Refusal
	if errors.As(err, &r) {
		return r, true
	}
	st, ok := status.FromError(err)
	if !ok || st.Code() == codes.OK {
		return nil, false
	}
	r = &Refusal{Message: st.Message(), code: st.Code()}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == ErrorDomain {
				r.Reason = reasonByName(d.GetReason())
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				r.Problems = append(r.Problems, Problem{
					Field: v.GetField(), Reason: reasonByName(v.GetReason()), Description: v.GetDescription(),
				})
			}
		case *errdetails.RetryInfo:
			r.RetryAfter = d.GetRetryDelay().AsDuration()
		case *errdetails.QuotaFailure:
			if v := d.GetViolations(); len(v) > 0 {
				r.Quota = v[0].GetSubject()
			}
		}
	}
	if codeOf[r.Reason] == r.code {
		r.code = codes.OK
	}
	return r, true
}

func reasonByName(name string) exchangev1.ErrorReason {
	return exchangev1.ErrorReason(exchangev1.ErrorReason_value[reasonPrefix+name])
}

// Temporary is the one function that tells temporary failures from permanent
// ones; unknown means temporary.
func Temporary(err error) bool {
	if err == nil {
		return false
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	r, ok := AsRefusal(err)
	if !ok {
		return true
	}
	code := r.GRPCStatus().Code()
	switch code {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.NotFound,
		codes.AlreadyExists, codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented:
		return false
	}
	return true
}
