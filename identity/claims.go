package identity

import (
	"bytes"
	"errors"
	"math"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
)

// claims are what a token says. They are read strictly: a name that occurs twice, or a registered
// claim of another type, could mean something else to the storefront than to us.
type claims struct {
	tierClaim string // the name to look for

	subject, issuer, tier      string
	audience                   jwt.ClaimStrings
	expires, notBefore, issued *jwt.NumericDate
}

var errClaims = errors.New("claims are not as they should be")

// UnmarshalJSON reads the payload of a token. Other claims are only checked to be JSON.
func (c *claims) UnmarshalJSON(b []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(b))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return errClaims
	}
	for {
		t, err := d.ReadToken()
		if err != nil {
			return errClaims
		}
		if t.Kind() == '}' {
			return nil
		}
		name := t.String()
		value, err := d.ReadValue()
		if err != nil || c.set(name, value) != nil {
			return errClaims
		}
	}
}

func (c *claims) set(name string, value jsontext.Value) error {
	switch name {
	case "sub":
		return setText(&c.subject, value)
	case "iss":
		return setText(&c.issuer, value)
	case "aud":
		if value.Kind() != '"' {
			return json.Unmarshal(value, (*[]string)(&c.audience))
		}
		c.audience = make(jwt.ClaimStrings, 1)
		return setText(&c.audience[0], value)
	case "exp":
		return setTime(&c.expires, value)
	case "nbf":
		return setTime(&c.notBefore, value)
	case "iat":
		return setTime(&c.issued, value)
	case c.tierClaim:
		if setText(&c.tier, value) != nil {
			c.tier = "" // a tier that cannot be read is none
		}
	}
	return nil
}

// setText refuses null, which json takes for the empty string.
func setText(to *string, value jsontext.Value) error {
	if value.Kind() != '"' {
		return errClaims
	}
	return json.Unmarshal(value, to)
}

// latest is the end of the year 9999 in Unix seconds: what can still be written as a date.
const latest = 253402300799

// setTime reads seconds since 1970, which may have a fraction.
func setTime(to **jwt.NumericDate, value jsontext.Value) error {
	var seconds float64
	if value.Kind() != '0' || json.Unmarshal(value, &seconds) != nil || seconds < 0 || seconds > latest {
		return errClaims
	}
	whole, part := math.Modf(seconds)
	*to = &jwt.NumericDate{Time: time.Unix(int64(whole), int64(part*1e9)).UTC()}
	return nil
}

// GetExpirationTime is exp, nil without one; it and those below are what the parser asks for.
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.expires, nil }

// GetIssuedAt is iat, nil without one.
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error) { return c.issued, nil }

// GetNotBefore is nbf, nil without one.
func (c *claims) GetNotBefore() (*jwt.NumericDate, error) { return c.notBefore, nil }

// GetIssuer is iss, "" without one.
func (c *claims) GetIssuer() (string, error) { return c.issuer, nil }

// GetSubject is sub, "" without one.
func (c *claims) GetSubject() (string, error) { return c.subject, nil }

// GetAudience is aud, one or many.
func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return c.audience, nil }
