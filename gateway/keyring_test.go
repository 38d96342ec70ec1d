package gateway

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"flashgate/ledger"
)

// fakeKeys is a ledger of keys that counts the reads.
type fakeKeys struct {
	mu    sync.Mutex
	keys  []ledger.Key
	err   error
	reads int
	delay time.Duration // of each read of keys

	touches []map[string]time.Time
	signers []ledger.SigningKey
}

func (f *fakeKeys) Keys(context.Context) ([]ledger.Key, error) {
	f.mu.Lock()
	f.reads++
	keys, err := append([]ledger.Key(nil), f.keys...), f.err
	f.mu.Unlock()
	time.Sleep(f.delay) // after looking: the answer is as old as it can be
	return keys, err
}

func (f *fakeKeys) TouchKeys(_ context.Context, used map[string]time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.touches = append(f.touches, used)
	}
	return f.err
}

func (f *fakeKeys) SigningKeys(_ context.Context, candidate ledger.SigningKey) ([]ledger.SigningKey, error) {
	time.Sleep(f.delay)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && len(f.signers) == 0 {
		f.signers = append(f.signers, candidate)
	}
	return append([]ledger.SigningKey(nil), f.signers...), f.err
}

func (f *fakeKeys) set(change func(*fakeKeys)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeKeys) make(t testing.TB, name, role string) (token string) {
	t.Helper()
	k, token, err := NewKey(name, role, time.Now())
	require.NoError(t, err)
	f.set(func(f *fakeKeys) { f.keys = append(f.keys, k) })
	return token
}

func TestNewKey(t *testing.T) {
	k, token, err := NewKey("shop", "storefront", time.Unix(1, 0))
	require.NoError(t, err)
	require.Regexp(t, `^fg_[a-z2-7]{16}_[A-Za-z0-9_-]{43}$`, token)
	require.Equal(t, "fg_"+k.ID, token[:19])
	require.Len(t, k.Hash, 32)
	require.Equal(t, time.Unix(1, 0), k.CreatedAt)
	_, other, err := NewKey("shop", "storefront", time.Now())
	require.NoError(t, err)
	require.NotEqual(t, token, other)
	for _, bad := range [][2]string{
		{"", "ops"}, {"a\nb", "ops"}, {strings.Repeat("x", 129), "ops"}, {"shop", "all"}, {"shop", ""},
	} {
		_, _, err := NewKey(bad[0], bad[1], time.Now())
		require.Error(t, err, bad)
	}
}

// A gateway that starts under load is asked by more callers than may wait, before it has read any key:
// none of them may be told that a good key is bad.
func TestKeyringUnderLoadAtItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeKeys{delay: time.Second}
		shop := f.make(t, "shop", "storefront")
		o := Options{}.withDefaults()
		k := newKeyringOf(f, o)
		defer start(k.run)()
		errs := make(chan error, 2*o.KeyWaitMax)
		for range cap(errs) {
			go func() {
				_, err := k.find(t.Context(), shop)
				errs <- err
			}()
		}
		found := 0
		for range cap(errs) {
			err := <-errs
			require.NotErrorIs(t, err, errUnauthenticated)
			if err == nil {
				found++
				continue
			}
			require.ErrorIs(t, err, errUnavailable)
		}
		require.GreaterOrEqual(t, found, o.KeyWaitMax)
	})
}

// Whoever asks while the first read is under way is answered when it ends: they waited a second more for
// a read of their own, all of them, at every start.
func TestKeyringAnswersAfterItsFirstRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeKeys{delay: 10 * time.Millisecond}
		shop := f.make(t, "shop", "storefront")
		k := newKeyringOf(f, Options{})
		defer start(k.run)()
		synctest.Wait()
		begun := time.Now()
		_, err := k.find(t.Context(), shop)
		require.NoError(t, err)
		require.Equal(t, 10*time.Millisecond, time.Since(begun))
		require.Equal(t, 1, f.reads)
	})
}

func TestKeyring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeKeys{}
		shop := f.make(t, "shop", "storefront")
		k := newKeyringOf(f, Options{})
		defer start(k.run)()
		synctest.Wait()
		who, err := k.find(t.Context(), shop)
		require.NoError(t, err)
		require.Equal(t, "storefront", who.Role)
		require.Equal(t, "key:shop", who.actor())
		require.Equal(t, 1, f.reads)

		late := f.make(t, "late", "ops")
		who, err = k.find(t.Context(), late)
		require.NoError(t, err, "a key made a moment ago is looked for")
		require.Equal(t, "late", who.Name)

		f.set(func(f *fakeKeys) { f.keys[0].RevokedAt = time.Now() })
		time.Sleep(2*time.Second + time.Millisecond)
		_, err = k.find(t.Context(), shop)
		require.ErrorIs(t, err, errUnauthenticated)

		f.set(func(f *fakeKeys) { f.err = errors.New("away") })
		time.Sleep(time.Minute)
		_, err = k.find(t.Context(), late)
		require.NoError(t, err, "the last known keys stay valid")
		_, unknown, _ := NewKey("x", "ops", time.Now())
		_, err = k.find(t.Context(), unknown)
		require.ErrorIs(t, err, errUnauthenticated)
	})
}

func TestKeyringRefuses(t *testing.T) {
	f := &fakeKeys{}
	token := f.make(t, "shop", "ops")
	k := newKeyringOf(f, Options{})
	require.NoError(t, k.refresh(t.Context()))
	flip := func(i int) string {
		b := []byte(token)
		if b[i] == 'a' {
			b[i] = 'b'
		} else {
			b[i] = 'a'
		}
		return string(b)
	}
	for name, bad := range map[string]string{
		"empty": "", "prefix only": "fg_", "short": token[:62], "long": token + "a",
		"another secret": flip(40), "last character": flip(62), "prefix": flip(0), "separator": flip(19),
		"upper case id":   token[:3] + strings.ToUpper(token[3:19]) + token[19:],
		"hostile secret":  token[:62] + "\x00",
		"hostile id":      token[:18] + "\n" + token[19:],
		"not ASCII":       strings.Repeat("ü", 31) + "a",
		"space in secret": token[:30] + " " + token[31:],
	} {
		_, err := k.find(t.Context(), bad)
		require.ErrorIs(t, err, errUnauthenticated, name)
	}
	require.Equal(t, 1, f.reads, "none of them asks the ledger")
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = k.find(t.Context(), token) }))
}

func TestDevKeyHasEveryRole(t *testing.T) {
	k := newKeyringOf(&fakeKeys{}, Options{DevKey: "dev"})
	who, err := k.find(t.Context(), "dev")
	require.NoError(t, err)
	require.Equal(t, []string{"dev", "dev", roleAll}, []string{who.KeyID, who.Name, who.Role})
	for _, bad := range []string{"", "de", "devv"} {
		_, err = k.find(t.Context(), bad)
		require.ErrorIs(t, err, errUnauthenticated)
	}
	_, err = newKeyringOf(&fakeKeys{}, Options{}).find(t.Context(), "")
	require.ErrorIs(t, err, errUnauthenticated, "without a dev key the empty token is none")
}

func TestKeyringWithoutLedgerSinceTheStart(t *testing.T) {
	f := &fakeKeys{err: errors.New("away")}
	_, token, _ := NewKey("x", "ops", time.Now())
	_, err := newKeyringOf(f, Options{}).find(t.Context(), token)
	require.ErrorIs(t, err, errUnavailable)
}

func TestKeyringBoundsAFloodOfTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeKeys{}
		good := f.make(t, "shop", "ops")
		k := newKeyringOf(f, Options{KeyRefresh: time.Hour, MissMax: 100})
		require.NoError(t, k.refresh(t.Context()))
		begun := time.Now()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				for range 20 {
					_, token, _ := NewKey("x", "ops", time.Now())
					_, err := k.find(t.Context(), token)
					assert.ErrorIs(t, err, errUnauthenticated)
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		_, err := k.find(t.Context(), good)
		require.NoError(t, err)
		wg.Wait()
		require.LessOrEqual(t, f.reads, int(time.Since(begun)/time.Second)+2)
		require.LessOrEqual(t, len(k.misses), 100)

		_, token, _ := NewKey("x", "ops", time.Now())
		_, err = k.find(t.Context(), token)
		require.ErrorIs(t, err, errUnauthenticated)
		again := time.Now()
		_, err = k.find(t.Context(), token)
		require.ErrorIs(t, err, errUnauthenticated)
		require.Zero(t, time.Since(again), "a known miss is answered at once")
	})
}

func TestLimitKey(t *testing.T) {
	k, _, err := NewKey("shop", "storefront", time.Now())
	require.NoError(t, err)
	require.NoError(t, LimitKey(&k, nil, nil))
	require.Nil(t, k.Sales)
	require.Nil(t, k.Locations)
	require.NoError(t, LimitKey(&k, []string{"b", "a", "b"}, []string{"Berlin"}))
	require.Equal(t, []string{"a", "b"}, k.Sales)
	require.Equal(t, []string{"Berlin"}, k.Locations)
	many := make([]string, KeyScopeMax+1)
	for i := range many {
		many[i] = "a"
	}
	require.ErrorContains(t, LimitKey(&k, many, nil), "at most 100")
	require.ErrorContains(t, LimitKey(&k, []string{"Upper"}, nil), `key sale "Upper": must be 1 to 63`)
	require.ErrorContains(t, LimitKey(&k, nil, []string{"a b"}), `key location "a b": must be 1 to 64`)
	ops, _, err := NewKey("night", "ops", time.Now())
	require.NoError(t, err)
	require.ErrorContains(t, LimitKey(&ops, []string{"a"}, nil), "only a storefront key")
	require.ErrorContains(t, LimitKey(&ops, nil, []string{"a"}), "only a storefront key")
	require.NoError(t, LimitKey(&ops, nil, nil))
}

func TestKeyringKnowsScopes(t *testing.T) {
	f := &fakeKeys{}
	shop, boss := f.make(t, "shop", "storefront"), f.make(t, "boss", "admin")
	f.keys[0].Sales, f.keys[0].Locations = []string{"drop-1"}, []string{"berlin"}
	k := newKeyringOf(f, Options{})
	who, err := k.find(t.Context(), shop)
	require.NoError(t, err)
	require.Equal(t, []string{"drop-1"}, who.Sales)
	require.Equal(t, []string{"berlin"}, who.Locations)
	who, err = k.find(t.Context(), boss)
	require.NoError(t, err)
	require.Nil(t, who.Sales)
	require.Nil(t, who.Locations)
}

// A rotated key ends at its instant, not at the next read, and also while the ledger is away.
func TestKeyEndsAtItsInstant(t *testing.T) {
	for _, away := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeKeys{}
			token := f.make(t, "shop", "storefront")
			other := f.make(t, "other", "storefront")
			f.keys[0].ExpiresAt = time.Now().Add(time.Minute + 500*time.Millisecond)
			k := newKeyringOf(f, Options{})
			defer start(k.run)()
			synctest.Wait()
			if away {
				f.set(func(f *fakeKeys) { f.err = errAway })
			}
			time.Sleep(time.Minute + 500*time.Millisecond - time.Nanosecond)
			_, err := k.find(t.Context(), token)
			require.NoError(t, err)
			time.Sleep(time.Nanosecond)
			_, err = k.find(t.Context(), token)
			require.ErrorIs(t, err, errUnauthenticated)
			_, err = k.find(t.Context(), other)
			require.NoError(t, err, "the others stay")
		})
	}
}

// Whatever the moment, and however slow the ledger that still answers, a revoked key is refused
// within five seconds; callers with unknown keys, who have the ledger read too, do not delay it.
func TestRevocationIsBounded(t *testing.T) {
	const bound, step = 5 * time.Second, 200 * time.Millisecond
	for i := range 50 {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeKeys{delay: 1900 * time.Millisecond}
			token := f.make(t, "shop", "storefront")
			k := newKeyringOf(f, Options{KeyRefresh: 3 * time.Second}) // the longest of the configuration
			defer start(k.run)()
			if i%2 == 1 {
				defer start(func(ctx context.Context) {
					for ctx.Err() == nil {
						_, unknown, _ := NewKey("x", "ops", time.Now())
						_, _ = k.find(ctx, unknown)
					}
				})()
			}
			time.Sleep(10*time.Second + time.Duration(i/2)*step)
			_, err := k.find(t.Context(), token)
			require.NoError(t, err)
			f.set(func(f *fakeKeys) { f.keys[0].RevokedAt = time.Now() })
			time.Sleep(bound)
			_, err = k.find(t.Context(), token)
			require.ErrorIs(t, err, errUnauthenticated)
		})
	}
}

func TestKeyringWritesDownLastUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeKeys{}
		shop, night, _ := f.make(t, "shop", "storefront"), f.make(t, "night", "ops"), f.make(t, "idle", "ops")
		k := newKeyringOf(f, Options{DevKey: "dev"})
		stop := start(k.run)
		touches := func() (got []map[string]time.Time) {
			f.set(func(f *fakeKeys) { got, f.touches = f.touches, nil })
			return got
		}
		begun := time.Now()
		time.Sleep(3 * time.Second)
		for range 100 {
			for _, token := range []string{shop, "dev", "fg_unknown"} {
				_, _ = k.find(t.Context(), token)
			}
		}
		require.Empty(t, touches(), "not in the call")
		time.Sleep(28 * time.Second)
		got := touches()
		require.Len(t, got, 1)
		require.Len(t, got[0], 1)
		at := got[0][tokenPart(shop)]
		require.WithinRange(t, at, begun, begun.Add(3*time.Second), "not later than it was, and not long before")
		require.Equal(t, begun.Add(2*time.Second).UTC(), at, "that of the last read")
		time.Sleep(time.Minute)
		require.Empty(t, touches(), "nothing was used since")

		f.set(func(f *fakeKeys) { f.err = errAway })
		_, err := k.find(t.Context(), night)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Empty(t, touches())
		f.set(func(f *fakeKeys) { f.err = nil })
		time.Sleep(30 * time.Second)
		got = touches()
		require.Len(t, got, 1, "what failed is written with the next")
		require.Contains(t, got[0], tokenPart(night))

		_, err = k.find(t.Context(), shop)
		require.NoError(t, err)
		stop()
		got = touches()
		require.Len(t, got, 1, "the last ones when the gateway stops")
		require.True(t, got[0][tokenPart(shop)].After(at))
	})
}

// tokenPart is the id in a token.
func tokenPart(token string) string {
	id, _, _ := tokenID(token)
	return id
}

func TestSigningKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeKeys{err: errAway}
		k := newKeyringOf(f, Options{})
		defer start(k.run)()
		synctest.Wait()
		require.Nil(t, k.signing(), "none until the ledger answers")
		f.set(func(f *fakeKeys) { f.err = nil })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		first := k.signing()
		require.Len(t, first, 1)
		require.Len(t, first[0].Secret, 32)
		require.NotEqual(t, make([]byte, 32), first[0].Secret)

		other := newKeyringOf(f, Options{})
		require.NoError(t, other.readSigning(t.Context()))
		require.Equal(t, first, other.signing(), "all gateways have the same")
		require.NotEqual(t, k.candidate.Secret, other.candidate.Secret)

		f.set(func(f *fakeKeys) { f.signers = []ledger.SigningKey{NewSigningKey(time.Now()), first[0]} })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, f.signers, k.signing(), "a rotation comes with the next read")
		f.set(func(f *fakeKeys) { f.err = errAway })
		time.Sleep(time.Minute)
		require.Len(t, k.signing(), 2, "the last known ones stay")
	})
}

// Finding, reading and writing down go on at once, on a real ledger.
func TestKeyringOnALedger(t *testing.T) {
	l := testLedger(t)
	key, token, err := NewKey("shop", "storefront", time.Now())
	require.NoError(t, err)
	require.NoError(t, LimitKey(&key, []string{"drop-1"}, nil))
	require.NoError(t, l.CreateKey(t.Context(), key, "test"))
	k := newKeyring(l, Options{KeyRefresh: time.Millisecond, KeyTouch: time.Millisecond})
	stop := start(k.run)
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for range 500 {
				who, err := k.find(t.Context(), token)
				assert.NoError(t, err)
				assert.Equal(t, []string{"drop-1"}, who.Sales)
			}
		})
	}
	callers.Wait()
	require.Eventually(t, func() bool { return k.signing() != nil }, 10*time.Second, time.Millisecond)
	stop()
	keys, err := l.Keys(t.Context())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), keys[0].LastUsedAt, time.Minute)
}

// BenchmarkFind is the cost of a key that is known, one and many callers; most of it is the hash.
func BenchmarkFind(b *testing.B) {
	f := &fakeKeys{}
	k, token, err := NewKey("shop", "storefront", time.Now())
	require.NoError(b, err)
	f.keys = append(f.keys, k)
	ring := newKeyringOf(f, Options{KeyRefresh: time.Hour})
	require.NoError(b, ring.refresh(b.Context()))
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = ring.find(b.Context(), token)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = ring.find(b.Context(), token)
			}
		})
	})
}
