package identity

import "errors"

// ErrUnavailable says that no token can be judged: the JWKS has not been read since the start.
var ErrUnavailable = errors.New("customer tokens: their keys could not be read yet")

// InvalidError says why a token is refused. It never holds a part of the token.
type InvalidError struct {
	Reason string // one of the Reason constants
}

func (e *InvalidError) Error() string { return "customer token: " + e.Reason }

// The reasons, in words for whoever makes the tokens: they continue "the token ...". The list is
// closed.
const (
	ReasonTooLong     = "is longer than is accepted"
	ReasonMalformed   = "is malformed"
	ReasonAlgorithm   = "is signed with an algorithm that is not accepted"
	ReasonCritical    = "has a critical header that is not understood"
	ReasonUnknownKey  = "is signed by an unknown key"
	ReasonUnfitKey    = "names a key that does not fit its algorithm"
	ReasonSignature   = "has a signature that is wrong"
	ReasonNoExpiry    = "has no exp"
	ReasonExpired     = "has expired"
	ReasonNotYet      = "is not valid yet"
	ReasonFuture      = "was issued in the future"
	ReasonAudience    = "is made for another audience"
	ReasonIssuer      = "is made by another issuer"
	ReasonBadCustomer = "has a sub that is not a customer: 1 to 128 characters without control characters"
)

// They are made once: refusing costs no more than it must.
var (
	errTooLong     = &InvalidError{ReasonTooLong}
	errMalformed   = &InvalidError{ReasonMalformed}
	errAlgorithm   = &InvalidError{ReasonAlgorithm}
	errCritical    = &InvalidError{ReasonCritical}
	errUnknownKey  = &InvalidError{ReasonUnknownKey}
	errUnfitKey    = &InvalidError{ReasonUnfitKey}
	errSignature   = &InvalidError{ReasonSignature}
	errNoExpiry    = &InvalidError{ReasonNoExpiry}
	errExpired     = &InvalidError{ReasonExpired}
	errNotYet      = &InvalidError{ReasonNotYet}
	errFuture      = &InvalidError{ReasonFuture}
	errAudience    = &InvalidError{ReasonAudience}
	errIssuer      = &InvalidError{ReasonIssuer}
	errBadCustomer = &InvalidError{ReasonBadCustomer}
)
