package identity

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Options say which tokens are believed, and every limit. A zero value takes the default named
// beside it.
type Options struct {
	// Issuer is the iss that every token must have. Required.
	Issuer string
	// Audience must be among the aud of every token: one made for another service is none here.
	// Required.
	Audience string

	// Secret verifies HS256, and nothing else does; at least 32 bytes. Secret or JWKS is required.
	Secret []byte
	// JWKS is the path or the http or https URL of a key set, for EdDSA, ES256 and RS256.
	JWKS string

	// Refresh is the time between two reads of the JWKS, and so the longest that a key works after
	// it has left; default 5 min.
	Refresh time.Duration
	// RefreshTimeout bounds one read; default 5 s.
	RefreshTimeout time.Duration
	// RefreshLeast is the least time between two reads that unknown keys cause, for all callers
	// together, and the pause after a read that failed; default 5 s.
	RefreshLeast time.Duration
	// UnknownWait is how long a token of an unknown key waits for such a read; default 1 s.
	UnknownWait time.Duration
	// WaitersMax is how many may wait at once, others are answered from the keys that there are;
	// default 1,000.
	WaitersMax int
	// JWKSMaxBytes is the size of the largest JWKS; default 1 MiB.
	JWKSMaxBytes int64
	// KeysMax is the most keys of a JWKS; default 64.
	KeysMax int
	// TriesMax is the most keys that a token without kid is tried against; default 8.
	TriesMax int

	// Leeway is by how much clocks may differ; default 5 s, negative for none.
	Leeway time.Duration
	// TierClaim names the claim with the customer's tier; default "tier".
	TierClaim string
	// CacheMax is how many verified tokens are remembered; default 100,000, about 30 MB.
	CacheMax int
	// TokenMaxBytes is the length of the longest token; default 8192.
	TokenMaxBytes int

	// Now is the clock that tokens are judged by; default time.Now.
	Now func() time.Time
	// Log takes what an operator should know; default none.
	Log *slog.Logger
}

const secretMinBytes = 32 // as many as the hash has: RFC 7518 section 3.2

// registered claims have a meaning of their own.
var registered = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}

// fill sets the defaults and checks all.
func (o *Options) fill() error {
	setDefault(&o.Refresh, 5*time.Minute)
	setDefault(&o.RefreshTimeout, 5*time.Second)
	setDefault(&o.RefreshLeast, 5*time.Second)
	setDefault(&o.UnknownWait, time.Second)
	setDefault(&o.WaitersMax, 1000)
	setDefault(&o.JWKSMaxBytes, 1<<20)
	setDefault(&o.KeysMax, 64)
	setDefault(&o.TriesMax, 8)
	setDefault(&o.Leeway, 5*time.Second)
	setDefault(&o.TierClaim, "tier")
	setDefault(&o.CacheMax, 100_000)
	setDefault(&o.TokenMaxBytes, 8192)
	o.Leeway = max(o.Leeway, 0)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Issuer == "":
		return errors.New("customer tokens: the issuer is required, the iss of your tokens")
	case o.Audience == "":
		return errors.New("customer tokens: the audience is required, the aud of those meant for this service")
	case len(o.Secret) == 0 && o.JWKS == "":
		return errors.New("customer tokens: a secret or a JWKS is required")
	case len(o.Secret) > 0 && len(o.Secret) < secretMinBytes:
		return fmt.Errorf("customer tokens: the secret has %d bytes, and can be guessed below %d",
			len(o.Secret), secretMinBytes)
	case bytes.Contains(o.Secret, []byte("-----BEGIN ")):
		return errors.New("customer tokens: the secret is a PEM file; public keys belong into a JWKS")
	case slices.Contains(registered, o.TierClaim):
		return fmt.Errorf("customer tokens: the tier cannot be claim %s, which means something else", o.TierClaim)
	case min(o.Refresh, o.RefreshTimeout, o.RefreshLeast, o.UnknownWait) <= 0:
		return errors.New("customer tokens: the times to refresh, and to wait for it, must be positive")
	case o.JWKSMaxBytes <= 0 || min(o.WaitersMax, o.KeysMax, o.TriesMax, o.CacheMax, o.TokenMaxBytes) <= 0:
		return errors.New("customer tokens: limits must be positive")
	}
	return nil
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}
