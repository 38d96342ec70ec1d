package identity

import (
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

func BenchmarkVerifyRemembered(b *testing.B) {
	v := hsVerifier(b, nil)
	token := hs(b, nil)
	accepted(b, v, token)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := v.Verify(token); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkVerifyNew is of tokens that are seen for the first time.
func BenchmarkVerifyNew(b *testing.B) {
	v := loaded(b, allKeys(b), func(o *Options) { o.Secret = secret })
	for _, c := range []struct {
		method jwt.SigningMethod
		key    any
		kid    string
	}{
		{jwt.SigningMethodHS256, secret, ""},
		{jwt.SigningMethodEdDSA, edKey(), "ed"},
		{jwt.SigningMethodES256, ecKey(), "ec"},
		{jwt.SigningMethodRS256, rsaKey(), "rsa"},
	} {
		token := sign(b, c.method, c.key, c.kid, claimsOf(nil))
		have := v.rotation.current.Load()
		b.Run(c.method.Alg(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.check(have, token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkLooksLikeToken(b *testing.B) {
	token := hs(b, nil)
	for b.Loop() {
		if !LooksLikeToken(token) {
			b.Fatal("does not")
		}
	}
}
