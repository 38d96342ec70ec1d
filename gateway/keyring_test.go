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
}

func (f *fakeKeys) Keys(context.Context) ([]ledger.Key, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	return append([]ledger.Key(nil), f.keys...), f.err
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
	require.Equal(t, identity{KeyID: "dev", Name: "dev", Role: roleAll}, who)
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
