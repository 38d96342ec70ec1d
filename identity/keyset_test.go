package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"maps"
	"strconv"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

func TestAlgorithmNone(t *testing.T) {
	v := loaded(t, allKeys(t), func(o *Options) { o.Secret = secret })
	payload := b64(asJSON(t, claimsOf(nil)))
	for _, alg := range []string{`"none"`, `"None"`, `"NONE"`, `"nOnE"`, `""`, `null`, `7`, `["HS256"]`, `{"a":1}`, `"none "`, `"HS256\u0000"`, `"hs256"`} {
		for _, kid := range []string{``, `,"kid":"ed"`} {
			header := b64(`{"typ":"JWT","alg":` + alg + kid + `}`)
			_, err := v.Verify(header + "." + payload + ".")
			require.Error(t, err)
			refused(t, v, header+"."+payload+".AAAA", ReasonAlgorithm)
		}
	}
	refused(t, v, b64(`{}`)+"."+payload+".AAAA", ReasonAlgorithm)
	refused(t, v, b64(`null`)+"."+payload+".AAAA", ReasonAlgorithm)
	refused(t, v, b64(`[]`)+"."+payload+".AAAA", ReasonMalformed)
}

// Other algorithms of the same keys are not those that were agreed on.
func TestOnlyTheFourAlgorithms(t *testing.T) {
	v := loaded(t, allKeys(t), func(o *Options) { o.Secret = secret })
	for _, m := range []jwt.SigningMethod{jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
		refused(t, v, sign(t, m, secret, "", claimsOf(nil)), ReasonAlgorithm)
	}
	for _, m := range []jwt.SigningMethod{jwt.SigningMethodRS384, jwt.SigningMethodRS512, jwt.SigningMethodPS256, jwt.SigningMethodPS512} {
		refused(t, v, sign(t, m, rsaKey(), "rsa", claimsOf(nil)), ReasonAlgorithm)
	}
	// What is not configured is not accepted.
	noJWKS := hsVerifier(t, nil)
	refused(t, noJWKS, sign(t, jwt.SigningMethodEdDSA, edKey(), "ed", claimsOf(nil)), ReasonAlgorithm)
	noSecret := loaded(t, allKeys(t), nil)
	refused(t, noSecret, hs(t, nil), ReasonAlgorithm)
	refused(t, noSecret, sign(t, jwt.SigningMethodHS256, []byte{}, "", claimsOf(nil)), ReasonAlgorithm)
}

// A public key as a shared secret is the classic confusion: everybody has it.
func TestPublicKeyIsNoSecret(t *testing.T) {
	set := allKeys(t)
	der, err := x509.MarshalPKIXPublicKey(rsaKey().Public())
	require.NoError(t, err)
	pkcs1 := x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)
	one := jwk(t, "rsa", rsaKey(), nil)
	known := [][]byte{
		der, pkcs1, []byte(set), []byte(asJSON(t, one)), []byte(one["n"].(string)), rsaKey().N.Bytes(),
		pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}),
		edKey().Public().(ed25519.PublicKey),
	}
	for _, v := range []*Verifier{loaded(t, set, nil), loaded(t, set, func(o *Options) { o.Secret = secret })} {
		for _, key := range known {
			for _, kid := range []string{"", "rsa", "ed"} {
				_, err := v.Verify(sign(t, jwt.SigningMethodHS256, key, kid, claimsOf(nil)))
				var invalid *InvalidError
				require.ErrorAs(t, err, &invalid)
			}
		}
	}
	// Nor does a secret in the JWKS verify anything.
	oct := map[string]any{"kty": "oct", "k": base64.RawURLEncoding.EncodeToString(secret), "kid": "oct", "alg": "HS256"}
	v := loaded(t, jwksOf(t, oct, jwk(t, "ed", edKey(), nil)), nil)
	refused(t, v, sign(t, jwt.SigningMethodHS256, secret, "oct", claimsOf(nil)), ReasonAlgorithm)
	v = loaded(t, jwksOf(t, oct), func(o *Options) { o.Secret = []byte(strings.Repeat("another", 5)) })
	refused(t, v, sign(t, jwt.SigningMethodHS256, secret, "oct", claimsOf(nil)), ReasonSignature)
}

func TestKeyMustFit(t *testing.T) {
	v := loaded(t, allKeys(t), nil)
	good := claimsOf(nil)
	refused(t, v, sign(t, jwt.SigningMethodRS256, rsaKey(), "ec", good), ReasonUnfitKey)
	refused(t, v, sign(t, jwt.SigningMethodRS256, rsaKey(), "ed", good), ReasonUnfitKey)
	refused(t, v, sign(t, jwt.SigningMethodES256, ecKey(), "rsa", good), ReasonUnfitKey)
	refused(t, v, sign(t, jwt.SigningMethodEdDSA, edKey(), "ec", good), ReasonUnfitKey)
	// Another key of the same kind, with the kid of ours and without.
	for _, kid := range []string{"", "rsa"} {
		refused(t, v, sign(t, jwt.SigningMethodRS256, otherRSA(), kid, good), ReasonSignature)
	}
	for _, kid := range []string{"", "ec"} {
		refused(t, v, sign(t, jwt.SigningMethodES256, otherEC(), kid, good), ReasonSignature)
	}
	for _, kid := range []string{"", "ed"} {
		refused(t, v, sign(t, jwt.SigningMethodEdDSA, otherEd(), kid, good), ReasonSignature)
	}
	two := loaded(t, jwksOf(t, jwk(t, "a", edKey(), nil), jwk(t, "b", otherEd(), nil)), nil)
	refused(t, two, sign(t, jwt.SigningMethodEdDSA, edKey(), "b", good), ReasonSignature)
	accepted(t, two, sign(t, jwt.SigningMethodEdDSA, edKey(), "a", good))
	accepted(t, two, sign(t, jwt.SigningMethodEdDSA, otherEd(), "", good))
	none := loaded(t, jwksOf(t, jwk(t, "ed", edKey(), nil)), nil)
	refused(t, none, sign(t, jwt.SigningMethodES256, ecKey(), "", good), ReasonUnknownKey)
	shared := loaded(t, jwksOf(t, jwk(t, "k", edKey(), nil), jwk(t, "k", ecKey(), nil)), nil)
	accepted(t, shared, sign(t, jwt.SigningMethodES256, ecKey(), "k", good))
	accepted(t, shared, sign(t, jwt.SigningMethodEdDSA, edKey(), "k", good))
}

func TestKidIsOnlyAName(t *testing.T) {
	v := loaded(t, allKeys(t), nil)
	for _, kid := range []string{
		"unknown", "../../../../dev/null", "/etc/passwd", "ed' OR 1=1", "https://evil.example/jwks", strings.Repeat("k", 4000), "ED", " ed", "ed\x00", "\n",
	} {
		refused(t, v, sign(t, jwt.SigningMethodEdDSA, edKey(), kid, claimsOf(nil)), ReasonUnknownKey)
	}
	for _, kid := range []string{`7`, `null`, `["ed"]`, `{"a":"ed"}`, `true`} {
		token := signRaw(t, jwt.SigningMethodEdDSA, edKey(), `{"alg":"EdDSA","kid":`+kid+`}`, asJSON(t, claimsOf(nil)))
		refused(t, v, token, ReasonMalformed)
	}
	// Keys that a token brings along mean nothing, and what it calls critical is not ignored.
	own := asJSON(t, jwk(t, "ed", otherEd(), nil))
	for _, header := range []string{
		`{"alg":"EdDSA","kid":"ed","jwk":` + own + `}`, `{"alg":"EdDSA","jwk":` + own + `}`,
		`{"alg":"EdDSA","jku":"https://evil.example/jwks"}`, `{"alg":"EdDSA","x5u":"https://evil.example/cert"}`,
	} {
		refused(t, v, signRaw(t, jwt.SigningMethodEdDSA, otherEd(), header, asJSON(t, claimsOf(nil))), ReasonSignature)
	}
	for _, crit := range []string{`["b64"]`, `[]`, `null`, `"exp"`} {
		token := signRaw(t, jwt.SigningMethodEdDSA, edKey(), `{"alg":"EdDSA","kid":"ed","b64":true,"crit":`+crit+`}`, asJSON(t, claimsOf(nil)))
		refused(t, v, token, ReasonCritical)
	}
}

func TestTriesAreBounded(t *testing.T) {
	keys := []map[string]any{jwk(t, "rsa", rsaKey(), nil)}
	for i := range 3 {
		keys = append(keys, jwk(t, strconv.Itoa(i), newEd(), nil))
	}
	keys = append(keys, jwk(t, "last", edKey(), nil))
	v := loaded(t, jwksOf(t, keys...), func(o *Options) { o.TriesMax = 4 })
	accepted(t, v, sign(t, jwt.SigningMethodEdDSA, edKey(), "", claimsOf(nil)))
	v = loaded(t, jwksOf(t, keys...), func(o *Options) { o.TriesMax = 3 })
	refused(t, v, sign(t, jwt.SigningMethodEdDSA, edKey(), "", claimsOf(nil)), ReasonSignature)
	accepted(t, v, sign(t, jwt.SigningMethodEdDSA, edKey(), "last", claimsOf(nil)))
}

func TestKeysLeftOut(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	pad := func(n int) string { return base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("\x81", n))) }
	ec, ed, rs := jwk(t, "k", ecKey(), nil), jwk(t, "k", edKey(), nil), jwk(t, "k", rsaKey(), nil)
	with := func(base, changes map[string]any) map[string]any {
		out := maps.Clone(base)
		maps.Copy(out, changes)
		return out
	}
	bad := map[string]map[string]any{
		"use enc":           with(ed, map[string]any{"use": "enc"}),
		"use unknown":       with(ed, map[string]any{"use": "signature"}),
		"only signs":        with(ed, map[string]any{"key_ops": []string{"sign"}}),
		"another alg":       with(rs, map[string]any{"alg": "RS512"}),
		"alg for agreement": with(rs, map[string]any{"alg": "RSA-OAEP"}),
		"alg of another":    with(ec, map[string]any{"alg": "EdDSA"}),
		"P-384":             jwk(t, "k", p384, nil),
		"oct":               {"kty": "oct", "k": pad(32)},
		"X25519":            {"kty": "OKP", "crv": "X25519", "x": pad(32)},
		"Ed448":             {"kty": "OKP", "crv": "Ed448", "x": pad(57)},
		"no kty":            {"kid": "k"},
		"kty unknown":       {"kty": "PQ"},
		"kty a number":      {"kty": 7},
		"short x":           with(ed, map[string]any{"x": pad(31)}),
		"bad base64":        with(ed, map[string]any{"x": "***"}),
		"not on the curve":  with(ec, map[string]any{"x": pad(32)}),
		"longer than curve": with(ec, map[string]any{"x": pad(80), "y": pad(80)}), // jwkset's validation panics
		"at infinity":       with(ec, map[string]any{"x": "AA", "y": "AA"}),
		"1024 bits":         with(rs, map[string]any{"n": pad(128)}),
		"16384 bits":        with(rs, map[string]any{"n": pad(2048)}),
		"exponent 1":        with(rs, map[string]any{"e": "AQ"}),
		"exponent even":     with(rs, map[string]any{"e": "Ag"}),
		"exponent huge":     with(rs, map[string]any{"e": pad(9)}),
		"even modulus":      with(rs, map[string]any{"n": base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("\x80", 256)))}),
	}
	good := jwk(t, "good", otherEd(), nil)
	for name, k := range bad {
		set, leftOut, err := parseKeySet([]byte(jwksOf(t, k, good)), 64)
		require.NoError(t, err, name)
		require.Len(t, leftOut, 1, name)
		require.Len(t, set.keys, 1, "%s: one bad key must not cost the others", name)
		require.Equal(t, "good", set.keys[0].id)
	}
	// These are good, whatever else they have.
	private := with(ed, map[string]any{"d": base64.RawURLEncoding.EncodeToString(edKey().Seed())})
	for _, k := range []map[string]any{
		private, with(ed, map[string]any{"alg": "Ed25519"}), with(ed, map[string]any{"alg": "EdDSA", "key_ops": []string{"verify", "sign"}}),
		with(ed, map[string]any{"x5c": []string{"garbage"}, "x5u": "https://evil.example", "other": 7}), jwk(t, "k", edKey(), map[string]any{"use": nil, "alg": nil}),
	} {
		v := loaded(t, jwksOf(t, k), nil)
		accepted(t, v, sign(t, jwt.SigningMethodEdDSA, edKey(), "k", claimsOf(nil)))
	}
}

func TestSetsThatAreNone(t *testing.T) {
	ed := asJSON(t, jwk(t, "ed", edKey(), nil))
	for _, text := range []string{
		"", "null", "{}", "[]", "7", `"keys"`, `{"keys":null}`, `{"keys":{}}`, `{"keys":7}`, `{"Keys":[]}`,
		`{"keys":[` + ed + `],"keys":[]}`, `{"keys":[` + ed + `]`, `{"keys":[` + ed + `]}x`, "<html>not found</html>",
		`{"keys":[{"kty":"OKP","kty":"RSA"}]}`, strings.Repeat("[", 20000),
		`{"keys":[` + strings.Repeat(ed+",", 64) + ed + `]}`,
	} {
		_, _, err := parseKeySet([]byte(text), 64)
		require.Error(t, err, "%.60s", text)
		require.Less(t, len(err.Error()), 200)
	}
	set, leftOut, err := parseKeySet([]byte(`{"keys":[]}`), 64)
	require.NoError(t, err)
	require.Empty(t, leftOut)
	require.Empty(t, set.keys)
}

// A set is the same in any order and with any spaces: the cache stays.
func TestSumOfSet(t *testing.T) {
	a, b := jwk(t, "a", edKey(), nil), jwk(t, "b", ecKey(), nil)
	sum := func(keys ...map[string]any) [32]byte {
		set, _, err := parseKeySet([]byte(" "+jwksOf(t, keys...)+"\n"), 64)
		require.NoError(t, err)
		return set.sum
	}
	require.Equal(t, sum(a, b), sum(b, a))
	require.NotEqual(t, sum(a, b), sum(a))
	require.NotEqual(t, sum(a), sum(jwk(t, "a", otherEd(), nil)))
	require.NotEqual(t, sum(a), sum(jwk(t, "c", edKey(), nil)))
}

func FuzzParseKeySet(f *testing.F) {
	f.Add([]byte(allKeys(f)))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"gYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGB","y":"AA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		set, _, err := parseKeySet(b, 64)
		if err == nil {
			for _, alg := range []string{algEdDSA, algES256, algRS256} {
				_, _ = set.fitting(alg, "", 8)
			}
		}
	})
}
