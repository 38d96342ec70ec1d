package identity

import (
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

func TestNewChecksOptions(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"issuer":              func(o *Options) { o.Issuer = "" },
		"audience":            func(o *Options) { o.Audience = "" },
		"secret or a JWKS":    func(o *Options) { o.Secret = nil },
		"guessed":             func(o *Options) { o.Secret = secret[:31] },
		"PEM":                 func(o *Options) { o.Secret = []byte("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQ\n") },
		"claim sub":           func(o *Options) { o.TierClaim = "sub" },
		"must be positive":    func(o *Options) { o.Refresh = -1 },
		"limits must be":      func(o *Options) { o.CacheMax = -1 },
		"limits must be posi": func(o *Options) { o.JWKSMaxBytes = -1 },
		"path, or a URL":      func(o *Options) { o.JWKS = "file:///etc/passwd" },
		"URL of https":        func(o *Options) { o.JWKS = "ftp://user:hunter2@host/x" },
		"URL of https or":     func(o *Options) { o.JWKS = "https://" },
	} {
		o := options()
		o.Secret = secret
		change(&o)
		_, err := New(o)
		require.ErrorContains(t, err, name)
		require.NotContains(t, err.Error(), "hunter2")
		require.NotContains(t, err.Error(), string(secret[:8]))
	}
}

func TestVerify(t *testing.T) {
	v := loaded(t, allKeys(t), func(o *Options) { o.Secret = secret })
	want := Customer{ID: "c-1001", Tier: "gold", IssuedAt: noon.Add(-time.Minute), ExpiresAt: noon.Add(10 * time.Minute)}
	good := claimsOf(nil)
	for name, token := range map[string]string{
		"HS256":              hs(t, nil),
		"HS256 with a kid":   sign(t, jwt.SigningMethodHS256, secret, "rsa", good),
		"EdDSA":              sign(t, jwt.SigningMethodEdDSA, edKey(), "ed", good),
		"ES256":              sign(t, jwt.SigningMethodES256, ecKey(), "ec", good),
		"RS256":              sign(t, jwt.SigningMethodRS256, rsaKey(), "rsa", good),
		"EdDSA without kid":  sign(t, jwt.SigningMethodEdDSA, edKey(), "", good),
		"ES256 without kid":  sign(t, jwt.SigningMethodES256, ecKey(), "", good),
		"RS256 without kid":  sign(t, jwt.SigningMethodRS256, rsaKey(), "", good),
		"audience in a list": hs(t, map[string]any{"aud": []string{"other", "flashgate"}}),
		"other claims":       hs(t, map[string]any{"email": "a@b", "roles": []any{1, map[string]any{"x": nil}}}),
	} {
		for range 2 { // judged, then remembered
			require.Equal(t, want, accepted(t, v, token), name)
		}
	}
	minimal := hs(t, map[string]any{"iat": nil, "nbf": nil, "tier": nil})
	require.Equal(t, Customer{ID: "c-1001", ExpiresAt: want.ExpiresAt}, accepted(t, v, minimal))
	fraction := accepted(t, v, hs(t, map[string]any{"exp": float64(noon.Unix()) + 1.5}))
	require.Equal(t, noon.Add(1500*time.Millisecond), fraction.ExpiresAt)
	require.Equal(t, "Zoë 🛒", accepted(t, v, hs(t, map[string]any{"sub": "Zoë 🛒"})).ID)
	longest := strings.Repeat("ü", 128)
	require.Equal(t, longest, accepted(t, v, hs(t, map[string]any{"sub": longest})).ID)
}

func TestTierThatIsNoneIsIgnored(t *testing.T) {
	v := hsVerifier(t, nil)
	for _, tier := range []any{7, "", "has space", strings.Repeat("x", 65), []string{"gold"}, map[string]any{}, true, "a\nb"} {
		c := accepted(t, v, hs(t, map[string]any{"tier": tier}))
		require.Equal(t, "c-1001", c.ID)
		require.Empty(t, c.Tier, "%v", tier)
	}
	header, rest := `{"alg":"HS256"}`, `"iss":"shop","aud":"flashgate","sub":"c","exp":1795781400`
	require.Empty(t, accepted(t, v, signRaw(t, jwt.SigningMethodHS256, secret, header, `{"tier":null,`+rest+`}`)).Tier)
	v = hsVerifier(t, func(o *Options) { o.TierClaim = "https://shop.example/tier" })
	require.Equal(t, "vip", accepted(t, v, hs(t, map[string]any{"https://shop.example/tier": "vip"})).Tier)
}

func TestClaimsRefused(t *testing.T) {
	v := hsVerifier(t, nil)
	now := noon.Unix()
	for _, c := range []struct {
		reason  string
		changes map[string]any
	}{
		{ReasonExpired, map[string]any{"exp": now - 5}}, // the leeway has just ended
		{ReasonExpired, map[string]any{"exp": now - 86400}},
		{ReasonExpired, map[string]any{"exp": 0}},
		{ReasonNoExpiry, map[string]any{"exp": nil}},
		{ReasonNotYet, map[string]any{"nbf": now + 6}},
		{ReasonFuture, map[string]any{"iat": now + 6}},
		{ReasonAudience, map[string]any{"aud": nil}},
		{ReasonAudience, map[string]any{"aud": ""}},
		{ReasonAudience, map[string]any{"aud": "other"}},
		{ReasonAudience, map[string]any{"aud": "Flashgate"}},
		{ReasonAudience, map[string]any{"aud": "flashgate2"}},
		{ReasonAudience, map[string]any{"aud": []string{}}},
		{ReasonAudience, map[string]any{"aud": []string{"other", "", "flashgate "}}},
		{ReasonIssuer, map[string]any{"iss": nil}},
		{ReasonIssuer, map[string]any{"iss": ""}},
		{ReasonIssuer, map[string]any{"iss": "shop2"}},
		{ReasonBadCustomer, map[string]any{"sub": nil}},
		{ReasonBadCustomer, map[string]any{"sub": ""}},
		{ReasonBadCustomer, map[string]any{"sub": strings.Repeat("x", 129)}},
		{ReasonBadCustomer, map[string]any{"sub": "a\nb"}},
		{ReasonBadCustomer, map[string]any{"sub": "a\x00"}},
		{ReasonBadCustomer, map[string]any{"sub": "\u0085"}},
		{ReasonTooLong, map[string]any{"sub": strings.Repeat("x", 10_000)}},
		// Of another type than they have.
		{ReasonMalformed, map[string]any{"sub": 7}},
		{ReasonMalformed, map[string]any{"sub": []string{"c"}}},
		{ReasonMalformed, map[string]any{"iss": []string{"shop"}}},
		{ReasonMalformed, map[string]any{"aud": 7}},
		{ReasonMalformed, map[string]any{"aud": []any{"flashgate", 7}}},
		{ReasonMalformed, map[string]any{"aud": map[string]any{"flashgate": true}}},
		{ReasonMalformed, map[string]any{"exp": "1795781400"}},
		{ReasonMalformed, map[string]any{"exp": true}},
		{ReasonMalformed, map[string]any{"exp": -1}},
		{ReasonMalformed, map[string]any{"exp": 1e300}}, // would overflow into any year
		{ReasonMalformed, map[string]any{"exp": 9223372036854775807}},
		{ReasonMalformed, map[string]any{"exp": 253402300800}},
		{ReasonMalformed, map[string]any{"nbf": "now"}},
		{ReasonMalformed, map[string]any{"nbf": 1e300}},
		{ReasonMalformed, map[string]any{"iat": []int{1}}},
	} {
		refused(t, v, hs(t, c.changes), c.reason)
	}
	for _, good := range []map[string]any{ // within the leeway
		{"exp": now - 4}, {"nbf": now + 5}, {"iat": now + 5},
	} {
		accepted(t, v, hs(t, good))
	}
	strict := hsVerifier(t, func(o *Options) { o.Leeway = -1 })
	accepted(t, strict, hs(t, map[string]any{"exp": now + 1, "nbf": now, "iat": now}))
	refused(t, strict, hs(t, map[string]any{"exp": now}), ReasonExpired)
	refused(t, strict, hs(t, map[string]any{"nbf": now + 1}), ReasonNotYet)
}

// What is written twice, or not as JSON should be, could mean one thing to the storefront and
// another to us.
func TestPayloadIsReadStrictly(t *testing.T) {
	v := hsVerifier(t, nil)
	const rest = `"iss":"shop","aud":"flashgate","exp":1795781400`
	makeToken := func(payload string) string {
		return signRaw(t, jwt.SigningMethodHS256, secret, `{"alg":"HS256"}`, payload)
	}
	require.Equal(t, "c", accepted(t, v, makeToken(`{"sub":"c",`+rest+`}`)).ID)
	for _, payload := range []string{
		`{"sub":"a","sub":"b",` + rest + `}`,
		`{"sub":"a","s\u0075b":"b",` + rest + `}`,
		`{"sub":"c",` + rest + `,"exp":1895781400}`,
		`{"sub":"c",` + rest + `,"tier":"a","tier":"b"}`,
		`{"sub":"c",` + rest + `,"other":{"a":1,"a":2}}`,
		`{"sub":"c",` + rest + `}{}`,
		`{"sub":"c",` + rest + `,}`,
		`{"sub":null,` + rest + `}`,
		`{"sub":"c",` + rest + `,"aud":null}`,
		"{\"sub\":\"\xff\"," + rest + `}`,
		`{"sub":"\ud800",` + rest + `}`,
		`null x`, `[]`, `7`, `"x"`, `{`, ` `,
		strings.Repeat(`[`, 5000), strings.Repeat(`{"a":`, 1000), strings.Repeat(`[`, 2900) + strings.Repeat(`]`, 2900),
	} {
		refused(t, v, makeToken(payload), ReasonMalformed)
	}
	refused(t, v, makeToken(`null`), ReasonNoExpiry)
	refused(t, v, makeToken(`{}`), ReasonNoExpiry)
	// Names are told apart by case, as RFC 7519 has it.
	require.Equal(t, "c", accepted(t, v, makeToken(`{"sub":"c","SUB":"other","Sub":"x",`+rest+`}`)).ID)
	refused(t, v, makeToken(`{"SUB":"other",`+rest+`}`), ReasonBadCustomer)
	// Deep and wide within the limit costs a refusal, or nothing, never the process.
	deep := strings.Repeat(`[`, 2800) + strings.Repeat(`]`, 2800)
	require.Equal(t, "c", accepted(t, v, makeToken(`{"sub":"c",`+rest+`,"x":`+deep+`}`)).ID)
}

func TestEveryCutAndBitCounts(t *testing.T) {
	v := loaded(t, allKeys(t), func(o *Options) { o.Secret = secret })
	for _, token := range []string{
		hs(t, nil), sign(t, jwt.SigningMethodEdDSA, edKey(), "ed", claimsOf(nil)),
	} {
		accepted(t, v, token)
		for n := range len(token) {
			for _, cut := range []string{token[:n], token[n+1:], token[:n] + token[n+1:], token[:n] + "\n" + token[n:]} {
				_, err := v.Verify(cut)
				require.Error(t, err, "%q", cut)
			}
			for bit := range 8 {
				b := []byte(token)
				b[n] ^= 1 << bit
				_, err := v.Verify(string(b))
				require.Error(t, err, "byte %d bit %d", n, bit)
			}
		}
		for _, end := range []string{"A", "=", "\n", ".", ".A", " ", "\x00"} {
			_, err := v.Verify(token + end)
			require.Error(t, err)
			_, err = v.Verify(end + token)
			require.Error(t, err)
		}
	}
	require.LessOrEqual(t, cacheSize(v), 2, "only what was verified is remembered")
}

func TestTokenLength(t *testing.T) {
	token := hs(t, nil)
	v := hsVerifier(t, func(o *Options) { o.TokenMaxBytes = len(token) })
	accepted(t, v, token)
	v = hsVerifier(t, func(o *Options) { o.TokenMaxBytes = len(token) - 1 })
	refused(t, v, token, ReasonTooLong)
	refused(t, v, strings.Repeat("A", 1<<20), ReasonTooLong)
}

func TestLooksLikeToken(t *testing.T) {
	require.True(t, LooksLikeToken(hs(t, nil)))
	require.True(t, LooksLikeToken("a.b.c"))
	for _, s := range []string{
		"", ".", "..", "...", "a.b", "a.b.", ".b.c", "a..c", "a.b.c.d", "a.b.c.", "a.b.c ", " a.b.c", "a.b\n.c", "a.b=.c", "a.b+.c", "a.ü.c",
		"fg_abcdefghijklmnop_0123456789abcdefghijklmnopqrstuvwxyz-ABCDEF", "dev",
	} {
		require.False(t, LooksLikeToken(s), "%q", s)
	}
}

// Callers use the memory of a token again: what a customer is called must not change with it.
func TestNothingOfTheTokenIsKept(t *testing.T) {
	v := hsVerifier(t, nil)
	memory := []byte(hs(t, nil))
	first := accepted(t, v, unsafe.String(&memory[0], len(memory)))
	token := string(memory)
	clear(memory)
	require.Equal(t, "c-1001", first.ID)
	require.Equal(t, first, accepted(t, v, token))
	refused(t, v, string(memory), ReasonMalformed)
}

func TestConcurrentUse(t *testing.T) {
	m := &memory{jwks: jwksOf(t, jwk(t, "ed", edKey(), nil))}
	v := memoryVerifier(t, m, func(o *Options) {
		o.Secret, o.CacheMax, o.Refresh, o.RefreshLeast = secret, 20, time.Millisecond, time.Millisecond
	})
	running(t, v)
	require.Eventually(t, v.Ready, 10*time.Second, time.Millisecond)
	tokens := make([]string, 50)
	for i := range tokens {
		changes := map[string]any{"sub": strings.Repeat("c", i+1)}
		tokens[i] = hs(t, changes)
		if i%2 == 0 {
			tokens[i] = sign(t, jwt.SigningMethodEdDSA, edKey(), "ed", claimsOf(changes))
		}
	}
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for n := range 400 {
				i := (n*7 + g) % len(tokens)
				c, err := v.Verify(tokens[i])
				if err != nil || len(c.ID) != i+1 {
					t.Errorf("token %d: %q, %v", i, c.ID, err)
					return
				}
			}
		})
	}
	other := jwksOf(t, jwk(t, "ed", edKey(), nil), jwk(t, "ec", ecKey(), nil))
	for range 50 {
		m.set(other)
		m.set(jwksOf(t, jwk(t, "ed", edKey(), nil)))
	}
	all.Wait()
}
