package challenge

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"flashgate/sale"
)

// verdict is what the providers say about an answer; their forms are nearly the same.
type verdict struct {
	Success     *bool    `json:"success"`
	ChallengeAt string   `json:"challenge_ts"` // RFC 3339, or with an offset without colon
	Hostname    string   `json:"hostname"`
	Action      string   `json:"action"`
	Score       *float64 `json:"score"`
	ErrorCodes  []string `json:"error-codes"`

	challengeAt time.Time
}

// ourFaults are the codes that no client can bring about: the provider's own fault, or our secret.
// A code that a client can cause must not be here, else it could switch the provider off for all.
var ourFaults = []string{"missing-input-secret", "invalid-input-secret", "internal-error"}

// check says why there is no verdict to judge by, and reads the time.
func (v *verdict) check() error {
	if v.Success == nil {
		return errors.New("answer without success")
	}
	if !*v.Success {
		for _, code := range ourFaults {
			if slices.Contains(v.ErrorCodes, code) {
				return fmt.Errorf("answer %s", code)
			}
		}
		return nil
	}
	var err error
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700"} {
		if v.challengeAt, err = time.Parse(form, v.ChallengeAt); err == nil {
			return nil
		}
	}
	return errors.New("answer without the time of the challenge")
}

// judge returns why a verdict is not good enough, or "".
func (s *Site) judge(v *verdict) Reason {
	age := s.o.Now().Sub(v.challengeAt)
	switch {
	case !*v.Success:
		return refusal(v.ErrorCodes)
	case !slices.Contains(s.o.Hostnames, strings.ToLower(v.Hostname)):
		return WrongHostname
	case s.o.Provider != sale.HCaptcha && v.Action != s.o.Action:
		return WrongAction
	// A key of reCAPTCHA version 2 gives no score.
	case s.o.Provider == sale.ReCaptcha && (v.Score == nil || *v.Score < s.o.MinScore):
		return LowScore
	case age > s.o.AgeMax:
		return Expired
	case age < -s.o.ClockSkew:
		return FromFuture
	}
	return ""
}

// refusal tells the refusals apart that have a reason of their own.
func refusal(codes []string) Reason {
	switch {
	case slices.Contains(codes, "timeout-or-duplicate"), slices.Contains(codes, "already-seen-response"):
		return Used
	case slices.Contains(codes, "expired-input-response"):
		return Expired
	}
	return RefusedByProvider
}
