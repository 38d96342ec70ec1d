package challenge

import (
	"errors"

	"flashgate/sale"
)

// ErrUnavailable says that nobody can set or judge challenges now: there are no keys yet, or what
// keeps answers from being used twice is away. The same answer may be sent again.
var ErrUnavailable = errors.New("challenges are unavailable")

// Reason says why an answer is rejected. The list is closed, so it can label a metric.
type Reason string

// The reasons.
const (
	Malformed         Reason = "malformed" // not an answer, or longer than one may be
	WrongProvider     Reason = "wrong_provider"
	Forged            Reason = "forged"
	Expired           Reason = "expired"
	OtherCustomer     Reason = "other_customer"
	OtherSale         Reason = "other_sale"
	TooEasy           Reason = "too_easy" // the hash has too few leading zero bits
	Used              Reason = "used"
	TooFast           Reason = "too_fast"
	RefusedByProvider Reason = "refused_by_provider"
	WrongHostname     Reason = "wrong_hostname"
	WrongAction       Reason = "wrong_action"
	LowScore          Reason = "low_score"
	FromFuture        Reason = "from_future"
	ProviderAway      Reason = "provider_away" // not judged: ask for a proof of work
)

// Reasons lists all reasons.
var Reasons = []Reason{
	Malformed, WrongProvider, Forged, Expired, OtherCustomer, OtherSale, TooEasy, Used, TooFast,
	RefusedByProvider, WrongHostname, WrongAction, LowScore, FromFuture, ProviderAway,
}

// RejectedError is an answer that proves nothing. It never holds the answer itself.
type RejectedError struct {
	Reason Reason
	// Provider is who was to judge; empty when the answer does not say.
	Provider sale.ChallengeProvider
}

func (e *RejectedError) Error() string { return "challenge answer rejected: " + string(e.Reason) }

// AskNext returns the providers for the next challenge: those of the sale, or none, which is the
// proof of work, when the one that was asked is away.
func (e *RejectedError) AskNext(providers []sale.ChallengeProvider) []sale.ChallengeProvider {
	if e.Reason == ProviderAway {
		return nil
	}
	return providers
}
