package identity

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// FuzzVerify: only the tokens that were signed are accepted, and nothing else ends otherwise than in
// a refusal.
func FuzzVerify(f *testing.F) {
	v := loaded(f, allKeys(f), func(o *Options) { o.Secret = secret })
	signed := map[string]bool{}
	for _, token := range []string{
		hs(f, nil), sign(f, jwt.SigningMethodEdDSA, edKey(), "ed", claimsOf(nil)),
		sign(f, jwt.SigningMethodES256, ecKey(), "", claimsOf(nil)), sign(f, jwt.SigningMethodRS256, rsaKey(), "rsa", claimsOf(nil)),
	} {
		signed[token] = true
		f.Add(token)
	}
	f.Add(b64(`{"alg":"none"}`) + "." + b64(`{}`) + ".")
	f.Fuzz(func(t *testing.T, token string) {
		c, err := v.Verify(token)
		if err == nil {
			require.True(t, signed[token], "accepted")
			return
		}
		require.Zero(t, c)
		var invalid *InvalidError
		require.ErrorAs(t, err, &invalid)
	})
}

// FuzzPayload: any header and payload, well signed, ends in a customer that may be one or a refusal.
func FuzzPayload(f *testing.F) {
	v := hsVerifier(f, nil)
	f.Add(`{"alg":"HS256"}`, asJSON(f, claimsOf(nil)))
	f.Add(`{"alg":"HS256","kid":7,"crit":[]}`, `{"sub":"c","exp":1e99,"aud":[[]]}`)
	f.Fuzz(func(t *testing.T, header, payload string) {
		token := signRaw(t, jwt.SigningMethodHS256, secret, header, payload)
		require.True(t, LooksLikeToken(token) || header == "" || payload == "")
		c, err := v.Verify(token)
		if err == nil {
			require.NotEmpty(t, c.ID)
			require.False(t, strings.ContainsAny(c.ID+c.Tier, "\x00\r\n"))
			require.True(t, c.ExpiresAt.After(noon.Add(-v.opts.Leeway)))
			_, err = base64.RawURLEncoding.DecodeString(token)
			require.Error(t, err)
			return
		}
		var invalid *InvalidError
		require.ErrorAs(t, err, &invalid)
	})
}
