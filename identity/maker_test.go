package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	noon   = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	secret = []byte("0123456789abcdef0123456789abcdef")
)

// The keys of a storefront, made once: RSA takes its time.
var (
	rsaKey, otherRSA = sync.OnceValue(newRSA), sync.OnceValue(newRSA)
	ecKey, otherEC   = sync.OnceValue(newEC), sync.OnceValue(newEC)
	edKey, otherEd   = sync.OnceValue(newEd), sync.OnceValue(newEd)
)

func newRSA() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
}

func newEC() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func newEd() ed25519.PrivateKey {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

// claimsOf are good claims at noon, with changes; nil takes one away.
func claimsOf(changes map[string]any) map[string]any {
	c := map[string]any{
		"iss": "shop", "aud": "flashgate", "sub": "c-1001", "tier": "gold",
		"iat": noon.Unix() - 60, "nbf": noon.Unix() - 60, "exp": noon.Unix() + 600,
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// sign makes a token; kid "" leaves it out.
func sign(t testing.TB, m jwt.SigningMethod, key any, kid string, claims map[string]any) string {
	t.Helper()
	header := map[string]any{"alg": m.Alg(), "typ": "JWT"}
	if kid != "" {
		header["kid"] = kid
	}
	return signRaw(t, m, key, asJSON(t, header), asJSON(t, claims))
}

// signRaw makes a token of any header and payload.
func signRaw(t testing.TB, m jwt.SigningMethod, key any, header, payload string) string {
	t.Helper()
	text := b64(header) + "." + b64(payload)
	sig, err := m.Sign(text, key)
	require.NoError(t, err)
	return text + "." + b64(string(sig))
}

func hs(t testing.TB, changes map[string]any) string {
	t.Helper()
	return sign(t, jwt.SigningMethodHS256, secret, "", claimsOf(changes))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}

// jwk is the public half of a key; changes as for claims.
func jwk(t testing.TB, kid string, key crypto.Signer, changes map[string]any) map[string]any {
	t.Helper()
	k, err := jwkset.NewJWKFromKey(key.Public(), jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{KID: kid, USE: jwkset.UseSig},
	})
	require.NoError(t, err)
	var out map[string]any
	require.NoError(t, json.Unmarshal([]byte(asJSON(t, k.Marshal())), &out))
	maps.Copy(out, changes)
	maps.DeleteFunc(out, func(_ string, v any) bool { return v == nil })
	return out
}

func jwksOf(t testing.TB, keys ...map[string]any) string {
	t.Helper()
	if keys == nil {
		keys = []map[string]any{}
	}
	return asJSON(t, map[string]any{"keys": keys})
}

// allKeys is a set of one key of each kind.
func allKeys(t testing.TB) string {
	t.Helper()
	return jwksOf(t, jwk(t, "rsa", rsaKey(), nil), jwk(t, "ec", ecKey(), nil), jwk(t, "ed", edKey(), nil))
}

// memory is a source that counts its reads.
type memory struct {
	mu    sync.Mutex
	jwks  string
	err   error
	hold  chan struct{} // a read waits until it is closed
	reads int
}

func (m *memory) String() string { return "memory" }

func (m *memory) read(ctx context.Context) ([]byte, error) {
	m.mu.Lock()
	m.reads++
	jwks, err, hold := m.jwks, m.err, m.hold
	m.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return []byte(jwks), err
}

func (m *memory) set(jwks string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.jwks, m.err = jwks, nil
}

func (m *memory) fail() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = errors.New("away")
}

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

func options() Options {
	return Options{Issuer: "shop", Audience: "flashgate", Now: func() time.Time { return noon }}
}

// hsVerifier believes the secret only.
func hsVerifier(t testing.TB, change func(*Options)) *Verifier {
	t.Helper()
	o := options()
	o.Secret = secret
	if change != nil {
		change(&o)
	}
	v, err := New(o)
	require.NoError(t, err)
	return v
}

// memoryVerifier believes the keys of m, which it has not read yet.
func memoryVerifier(t testing.TB, m *memory, change func(*Options)) *Verifier {
	t.Helper()
	o := options()
	o.JWKS = "in memory"
	if change != nil {
		change(&o)
	}
	v, err := New(o)
	require.NoError(t, err)
	v.rotation.source = m
	return v
}

// loaded believes the keys of a set, and never reads another.
func loaded(t testing.TB, jwks string, change func(*Options)) *Verifier {
	t.Helper()
	v := memoryVerifier(t, &memory{jwks: jwks}, change)
	require.NoError(t, v.rotation.read(t.Context()))
	return v
}

// running runs a verifier until the test ends, or stop is called.
func running(t testing.TB, v *Verifier) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func accepted(t testing.TB, v *Verifier, token string) Customer {
	t.Helper()
	c, err := v.Verify(token)
	require.NoError(t, err)
	return c
}

// refused wants this reason, and no part of the token in the error.
func refused(t testing.TB, v *Verifier, token, reason string) {
	t.Helper()
	c, err := v.Verify(token)
	require.Zero(t, c)
	var invalid *InvalidError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, reason, invalid.Reason)
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 8 {
			require.NotContains(t, err.Error(), part)
		}
	}
}
