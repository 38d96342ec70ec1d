package identity

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// rotating runs test in a bubble with a running verifier of the keys of m, whose pace is the default:
// every 5 min, 5 s between reads that unknown keys cause, 1 s of waiting.
func rotating(t *testing.T, m *memory, change func(*Options), test func(t *testing.T, v *Verifier)) {
	t.Helper()
	// The keys are made outside: their making is not of the bubble.
	_, _, _, _, _, _ = rsaKey(), otherRSA(), ecKey(), otherEC(), edKey(), otherEd()
	synctest.Test(t, func(t *testing.T) {
		v := memoryVerifier(t, m, change)
		stop := running(t, v)
		defer stop()
		synctest.Wait()
		test(t, v)
	})
}

func edToken(t testing.TB, kid string) string {
	t.Helper()
	if kid == "new" {
		return sign(t, jwt.SigningMethodEdDSA, otherEd(), kid, claimsOf(nil))
	}
	return sign(t, jwt.SigningMethodEdDSA, edKey(), kid, claimsOf(nil))
}

func TestUnavailableUntilRead(t *testing.T) {
	m := &memory{}
	m.fail()
	both := func(o *Options) { o.Secret = secret }
	rotating(t, m, both, func(t *testing.T, v *Verifier) {
		require.False(t, v.Ready())
		_, err := v.Verify(edToken(t, "old"))
		require.ErrorIs(t, err, ErrUnavailable)
		accepted(t, v, hs(t, nil)) // needs no JWKS
		refused(t, v, sign(t, jwt.SigningMethodHS384, secret, "", claimsOf(nil)), ReasonAlgorithm)
		m.set(jwksOf(t, jwk(t, "old", edKey(), nil)))
		time.Sleep(5 * time.Second) // not Refresh: a read that failed is repeated soon
		synctest.Wait()
		require.True(t, v.Ready())
		accepted(t, v, edToken(t, "old"))
		require.Equal(t, 2, m.count())
	})
}

func TestNotRunningNeverWaits(t *testing.T) {
	v := memoryVerifier(t, &memory{}, nil)
	_, err := v.Verify(edToken(t, "old"))
	require.ErrorIs(t, err, ErrUnavailable)
	v = loaded(t, jwksOf(t, jwk(t, "old", edKey(), nil)), nil)
	stop := running(t, v)
	stop()
	refused(t, v, edToken(t, "new"), ReasonUnknownKey)
	accepted(t, v, edToken(t, "old"))
	require.True(t, hsVerifier(t, nil).Ready())
}

func TestFirstReadIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{jwks: jwksOf(t, jwk(t, "old", edKey(), nil)), hold: make(chan struct{})}
		v := memoryVerifier(t, m, nil)
		stop := running(t, v)
		defer stop()
		synctest.Wait()
		var first error
		go func() { _, first = v.Verify(edToken(t, "old")) }()
		synctest.Wait()
		close(m.hold)
		synctest.Wait()
		require.NoError(t, first)
	})
}

func TestRotationWithOverlap(t *testing.T) {
	old, fresh := jwk(t, "old", edKey(), nil), jwk(t, "new", otherEd(), nil)
	m := &memory{jwks: jwksOf(t, old)}
	rotating(t, m, nil, func(t *testing.T, v *Verifier) {
		accepted(t, v, edToken(t, "old"))
		require.Equal(t, 1, cacheSize(v))
		time.Sleep(10 * time.Second)
		m.set(jwksOf(t, old, fresh))
		accepted(t, v, edToken(t, "new")) // the first token of a new key is not refused
		accepted(t, v, edToken(t, "old"))
		require.Equal(t, 2, m.count())
		require.Equal(t, 2, cacheSize(v))
		m.set(jwksOf(t, fresh))
		accepted(t, v, edToken(t, "old"))
		time.Sleep(5*time.Minute + time.Second)
		synctest.Wait()
		require.Zero(t, cacheSize(v), "tokens of a key that left are not remembered")
		refused(t, v, edToken(t, "old"), ReasonUnknownKey)
		accepted(t, v, edToken(t, "new"))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		require.Equal(t, 1, cacheSize(v), "the same set keeps what was verified")
		m.set(jwksOf(t))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		refused(t, v, edToken(t, "new"), ReasonUnknownKey)
		require.True(t, v.Ready(), "an empty set is one: its owner took every key away")
	})
}

func TestKeyReplacedUnderItsKid(t *testing.T) {
	m := &memory{jwks: jwksOf(t, jwk(t, "k", otherEd(), nil))}
	rotating(t, m, nil, func(t *testing.T, v *Verifier) {
		refused(t, v, edToken(t, "k"), ReasonSignature)
		m.set(jwksOf(t, jwk(t, "k", edKey(), nil)))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		accepted(t, v, edToken(t, "k"))
	})
}

func TestOldKeysStayWhileAway(t *testing.T) {
	var log bytes.Buffer
	m := &memory{jwks: jwksOf(t, jwk(t, "old", edKey(), nil))}
	logged := func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }
	rotating(t, m, logged, func(t *testing.T, v *Verifier) {
		m.fail()
		time.Sleep(time.Hour)
		synctest.Wait()
		accepted(t, v, edToken(t, "old"))
		require.Equal(t, 1, strings.Count(log.String(), "cannot be read"), "said once: %s", &log)
		m.set("<html>maintenance</html>")
		time.Sleep(time.Minute)
		synctest.Wait()
		accepted(t, v, edToken(t, "old"))
		require.Equal(t, 2, strings.Count(log.String(), "cannot be read"), "another failure: %s", &log)
		m.set(jwksOf(t, jwk(t, "new", otherEd(), nil)))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		accepted(t, v, edToken(t, "new"))
		refused(t, v, edToken(t, "old"), ReasonUnknownKey)
		require.Contains(t, log.String(), "can be read again")
	})
}

func TestUnknownKidStorm(t *testing.T) {
	m := &memory{jwks: jwksOf(t, jwk(t, "old", edKey(), nil))}
	rotating(t, m, nil, func(t *testing.T, v *Verifier) {
		time.Sleep(10 * time.Second)
		began := time.Now()
		var all sync.WaitGroup
		for i := range 200 {
			token := sign(t, jwt.SigningMethodEdDSA, edKey(), fmt.Sprint("made-up-", i), claimsOf(nil))
			all.Go(func() {
				for range 20 {
					if _, err := v.Verify(token); err == nil {
						t.Error("accepted")
					}
					time.Sleep(time.Second)
				}
			})
		}
		all.Wait()
		passed := time.Since(began)
		require.LessOrEqual(t, m.count()-1, 1+int(passed/(5*time.Second)), "in %s", passed)
		require.GreaterOrEqual(t, m.count(), 4)
		// An unfit key and a wrong signature cause none.
		reads := m.count()
		time.Sleep(10 * time.Second)
		refused(t, v, sign(t, jwt.SigningMethodES256, ecKey(), "old", claimsOf(nil)), ReasonUnfitKey)
		refused(t, v, sign(t, jwt.SigningMethodEdDSA, otherEd(), "old", claimsOf(nil)), ReasonSignature)
		require.Equal(t, reads, m.count())
	})
}

// A slow JWKS holds callers for a second at most, and no more of them than WaitersMax.
func TestWaitingIsBounded(t *testing.T) {
	m := &memory{jwks: jwksOf(t, jwk(t, "old", edKey(), nil))}
	rotating(t, m, func(o *Options) { o.WaitersMax = 3 }, func(t *testing.T, v *Verifier) {
		time.Sleep(10 * time.Second)
		hold := make(chan struct{})
		m.mu.Lock()
		m.hold = hold
		m.mu.Unlock()
		began := time.Now()
		var mu sync.Mutex
		took := map[time.Duration]int{}
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				_, err := v.Verify(edToken(t, "new"))
				mu.Lock()
				defer mu.Unlock()
				took[time.Since(began)]++
				if err == nil {
					t.Error("accepted")
				}
			})
		}
		all.Wait()
		require.Equal(t, map[time.Duration]int{0: 7, time.Second: 3}, took)
		accepted(t, v, edToken(t, "old"))
		close(hold)
		synctest.Wait()
		require.Zero(t, v.rotation.waiting)
	})
}

// Whoever waits when the gateway stops is let go.
func TestStopLetsWaitersGo(t *testing.T) {
	m := &memory{jwks: jwksOf(t, jwk(t, "old", edKey(), nil))}
	synctest.Test(t, func(t *testing.T) {
		v := memoryVerifier(t, m, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); v.Run(ctx) }()
		synctest.Wait()
		time.Sleep(10 * time.Second)
		m.mu.Lock()
		m.hold = make(chan struct{})
		m.mu.Unlock()
		began := time.Now()
		go func() { synctest.Wait(); cancel() }()
		refused(t, v, edToken(t, "new"), ReasonUnknownKey)
		require.Zero(t, time.Since(began))
		<-done
		time.Sleep(10 * time.Second) // nobody reads any more, so nobody waits
		began = time.Now()
		refused(t, v, edToken(t, "new"), ReasonUnknownKey)
		require.Zero(t, time.Since(began))
	})
}

func TestKeysThatAreNotUsedAreSaid(t *testing.T) {
	var log bytes.Buffer
	good := jwk(t, "old", edKey(), nil)
	m := &memory{jwks: jwksOf(t, good)}
	logged := func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }
	rotating(t, m, logged, func(t *testing.T, _ *Verifier) {
		require.NotContains(t, log.String(), "not used")
		m.set(jwksOf(t, good, jwk(t, "next", otherEd(), map[string]any{"use": "enc"})))
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		require.Equal(t, 1, strings.Count(log.String(), "not used"), log.String())
		require.Contains(t, log.String(), "next")
	})
}
