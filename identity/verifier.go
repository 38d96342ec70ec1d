package identity

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"flashgate/sale"
)

// Customer is who a token speaks for.
type Customer struct {
	ID       string    // by the rules of sale.CheckOpaqueID
	Tier     string    // by the rules of sale.CheckName; "" without one, or with one that breaks them
	IssuedAt time.Time // zero when the token does not say
	// ExpiresAt is the exp of the token; it is believed up to Leeway longer.
	ExpiresAt time.Time
}

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	opts     Options
	parser   *jwt.Parser
	rotation *rotation
}

// New checks the options and contacts nobody. Until Run has read the JWKS, tokens signed with one
// of its keys are ErrUnavailable.
func New(o Options) (*Verifier, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	o.Secret = append([]byte(nil), o.Secret...)
	src, err := newSource(&o)
	if err != nil {
		return nil, err
	}
	v := &Verifier{opts: o, rotation: newRotation(src, &o)}
	v.parser = jwt.NewParser(
		jwt.WithStrictDecoding(), // one spelling of a token only
		jwt.WithIssuer(o.Issuer), jwt.WithAudience(o.Audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(o.Leeway), jwt.WithTimeFunc(o.Now),
	)
	return v, nil
}

// Run reads the JWKS at once and then every Refresh, until ctx ends. Without a JWKS it only waits.
// It is called once.
func (v *Verifier) Run(ctx context.Context) { v.rotation.run(ctx) }

// Ready tells whether every configured kind of token can be judged: the JWKS, if there is one, has
// been read.
func (v *Verifier) Ready() bool { return v.rotation.current.Load().keys != nil }

// Verify returns the customer of a token, *InvalidError, or ErrUnavailable. A token of an unknown
// key may wait UnknownWait for a fresh JWKS. Nothing of the token is kept.
func (v *Verifier) Verify(token string) (Customer, error) {
	if len(token) > v.opts.TokenMaxBytes {
		return Customer{}, errTooLong
	}
	if !LooksLikeToken(token) {
		return Customer{}, errMalformed
	}
	sum, have := fingerprintOf(token), v.rotation.current.Load()
	if c, ok := have.seen.get(&sum, v.opts.Now()); ok {
		return c, nil
	}
	c, err := v.check(have, token)
	if errors.Is(err, errUnknownKey) || errors.Is(err, ErrUnavailable) {
		if fresh := v.rotation.lookAgain(have); fresh != have {
			have = fresh
			c, err = v.check(have, token)
		}
	}
	if err == nil {
		have.seen.put(&sum, c, v.opts.Now())
	}
	return c, err
}

// check verifies a token with the keys there are.
func (v *Verifier) check(have *known, token string) (Customer, error) {
	c := claims{tierClaim: v.opts.TierClaim}
	_, err := v.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		return v.keysFor(have, t)
	})
	if err != nil {
		return Customer{}, refusal(err, &c)
	}
	if sale.CheckOpaqueID(c.subject) != "" {
		return Customer{}, errBadCustomer
	}
	out := Customer{ID: c.subject, ExpiresAt: c.expires.Time}
	if sale.CheckName(c.tier) == "" {
		out.Tier = c.tier
	}
	if c.issued != nil {
		out.IssuedAt = c.issued.Time
	}
	return out, nil
}

// keysFor returns the keys that may have signed a token. The algorithm alone, which the token names,
// decides where they are looked for: the secret is for HS256 and no key of the JWKS is, or a public
// key would be a secret that everybody knows.
func (v *Verifier) keysFor(have *known, t *jwt.Token) (any, error) {
	if _, has := t.Header["crit"]; has {
		return nil, errCritical
	}
	switch alg := t.Method.Alg(); {
	case alg == algHS256 && len(v.opts.Secret) > 0:
		return v.opts.Secret, nil
	case (alg == algEdDSA || alg == algES256 || alg == algRS256) && v.opts.JWKS != "":
		if have.keys == nil {
			return nil, ErrUnavailable
		}
		id := ""
		if named, has := t.Header["kid"]; has {
			text, isText := named.(string)
			if !isText {
				return nil, errMalformed
			}
			id = text
		}
		keys, err := have.keys.fitting(alg, id, v.opts.TriesMax)
		return jwt.VerificationKeySet{Keys: keys}, err
	}
	return nil, errAlgorithm
}

// refusal is the reason in an error of the parser, the first when there are several. The parser
// looks at the claims only after the signature, so what it says about them is said to their maker.
func refusal(err error, c *claims) error {
	var ours *InvalidError
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.Is(err, ErrUnavailable):
		return ErrUnavailable
	case errors.Is(err, jwt.ErrTokenMalformed):
		return errMalformed
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return errAlgorithm
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return errSignature
	case c.expires == nil:
		return errNoExpiry
	case errors.Is(err, jwt.ErrTokenExpired):
		return errExpired
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return errNotYet
	case errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return errFuture
	case errors.Is(err, jwt.ErrTokenInvalidIssuer) || c.issuer == "":
		return errIssuer
	case errors.Is(err, jwt.ErrTokenInvalidAudience) || errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return errAudience
	}
	return errMalformed
}

// LooksLikeToken tells whether s has the form of a signed JWT, three parts of base64url with points
// between them, which no API key has. It says nothing about the content.
func LooksLikeToken(s string) bool {
	header, rest, _ := strings.Cut(s, ".")
	payload, signature, found := strings.Cut(rest, ".")
	return found && isBase64URL(header) && isBase64URL(payload) && isBase64URL(signature)
}

func isBase64URL(s string) bool {
	for i := range len(s) {
		if !base64URLBytes[s[i]] {
			return false
		}
	}
	return s != ""
}

var base64URLBytes = func() (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		set[c] = true
	}
	return set
}()
