package ledgertest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
)

func testKeys(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	keys, err := l.Keys(ctx)
	require.NoError(t, err)
	require.Empty(t, keys)
	hash := sha256.Sum256([]byte("secret"))
	at := time.Date(2026, 11, 20, 10, 0, 0, 123_456_000, time.UTC)
	first := ledger.Key{ID: "k1", Name: `O'Brien "shop" \`, Role: "admin", Hash: hash[:], CreatedAt: at}
	second := ledger.Key{
		ID: "k0", Name: "storefront", Role: "storefront", Hash: hash[:], CreatedAt: at.Add(time.Second),
		Sales: []string{"drop-1", "drop-2"}, Locations: []string{"berlin"},
		ExpiresAt: at.Add(time.Hour), LastUsedAt: at.Add(time.Minute),
	}
	require.NoError(t, l.CreateKey(ctx, first, "cli"))
	require.NoError(t, l.CreateKey(ctx, second, "cli"))
	require.ErrorIs(t, l.CreateKey(ctx, first, "cli"), ledger.ErrExists)
	keys, err = l.Keys(ctx)
	require.NoError(t, err)
	require.Equal(t, []ledger.Key{first, second}, keys)

	require.ErrorIs(t, l.RevokeKey(ctx, "k9", "cli"), ledger.ErrNotFound)
	require.NoError(t, l.RevokeKey(ctx, "k1", "boss"))
	keys, err = target.Reopen(t, l).Keys(ctx)
	require.NoError(t, err)
	revoked := keys[0].RevokedAt
	require.WithinDuration(t, time.Now(), revoked, time.Minute)
	require.True(t, keys[1].RevokedAt.IsZero())
	require.NoError(t, l.RevokeKey(ctx, "k1", "boss"))
	keys, err = l.Keys(ctx)
	require.NoError(t, err)
	require.Equal(t, revoked, keys[0].RevokedAt)

	audit := snap(t, l).audit
	require.Len(t, audit, 3, "two made, one revoked; what changed nothing says nothing")
	require.Equal(t, ledger.ActionKeyRevoke, audit[2].Action)
	require.Equal(t, "boss", audit[2].Actor)
	require.Equal(t, "k1", audit[2].Subject)
	require.Empty(t, audit[0].Before)
	require.JSONEq(t, `{"id":"k0","name":"storefront","role":"storefront","sales":["drop-1","drop-2"],
		"locations":["berlin"],"expires_at":"2026-11-20T11:00:00.123456Z"}`, audit[1].After)
	require.Equal(t, audit[0].After, audit[2].Before)
	require.Equal(t, revoked, keyIn(t, audit[2].After).RevokedAt)

	require.NoError(t, l.CreateKey(ctx, ledger.Key{ID: "k2", Name: "now", Role: "ops", Hash: hash[:]}, "cli"))
	keys, err = l.Keys(ctx)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), keys[2].CreatedAt, time.Minute)
}

// auditedKey is a key as an audit entry shows it.
type auditedKey struct {
	ID, Name, Role string
	ExpiresAt      time.Time `json:"expires_at"`
	RevokedAt      time.Time `json:"revoked_at"`
	Next           *auditedKey
}

func keyIn(t testing.TB, text string) (k auditedKey) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &k))
	return k
}

// requireSecretless looks for the secret, in every spelling that JSON might give it, in all that was audited.
func requireSecretless(t testing.TB, l ledger.Ledger, secret []byte) {
	t.Helper()
	for _, e := range snap(t, l).audit {
		for _, spelling := range []string{
			string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret),
			base64.RawURLEncoding.EncodeToString(secret),
		} {
			require.NotContains(t, e.Before+e.After+e.Reason, spelling)
		}
	}
}

func keyOf(t testing.TB, l ledger.Ledger, id string) ledger.Key {
	t.Helper()
	keys, err := l.Keys(t.Context())
	require.NoError(t, err)
	i := slices.IndexFunc(keys, func(k ledger.Key) bool { return k.ID == id })
	require.GreaterOrEqual(t, i, 0, id)
	return keys[i]
}

func testRotation(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	hash := sha256.Sum256([]byte("secret"))
	key := func(id string) ledger.Key {
		return ledger.Key{ID: id, Name: "shop", Role: "storefront", Hash: hash[:], Sales: []string{"drop-1"}}
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	later, sooner := now.Add(2*time.Hour), now.Add(time.Hour)
	require.NoError(t, l.CreateKey(ctx, key("k1"), "cli"))

	require.ErrorIs(t, l.RotateKey(ctx, "k9", key("k2"), later, "cli"), ledger.ErrNotFound)
	require.ErrorIs(t, l.RotateKey(ctx, "k1", key("k1"), later, "cli"), ledger.ErrExists)
	require.Zero(t, keyOf(t, l, "k1").ExpiresAt, "refused whole")
	require.Len(t, snap(t, l).audit, 1)

	require.NoError(t, l.RotateKey(ctx, "k1", key("k2"), later, "boss"))
	require.Equal(t, later, keyOf(t, l, "k1").ExpiresAt)
	next := keyOf(t, l, "k2")
	require.Zero(t, next.ExpiresAt)
	require.Equal(t, []string{"drop-1"}, next.Sales)
	require.WithinDuration(t, now, next.CreatedAt, time.Minute)
	audit := snap(t, l).audit
	require.Len(t, audit, 2, "one entry of both keys")
	got := audit[1]
	require.Equal(t, []string{ledger.ActionKeyRotate, "k1", "boss"}, []string{got.Action, got.Subject, got.Actor})
	require.WithinDuration(t, now, got.At, time.Minute)
	require.Equal(t, auditedKey{ID: "k1", Name: "shop", Role: "storefront"}, keyIn(t, got.Before))
	require.Equal(t, auditedKey{
		ID: "k1", Name: "shop", Role: "storefront", ExpiresAt: later,
		Next: &auditedKey{ID: "k2", Name: "shop", Role: "storefront"},
	}, keyIn(t, got.After))

	require.NoError(t, l.RotateKey(ctx, "k1", key("k3"), sooner, "cli"))
	require.Equal(t, sooner, keyOf(t, l, "k1").ExpiresAt)
	require.NoError(t, l.RotateKey(ctx, "k1", key("k4"), later, "cli"))
	require.Equal(t, sooner, keyOf(t, l, "k1").ExpiresAt, "never later than it would have ended")
	require.NoError(t, l.RotateKey(ctx, "k1", key("k5"), time.Time{}, "cli"))
	require.WithinDuration(t, time.Now(), keyOf(t, l, "k1").ExpiresAt, time.Minute, "what is past is now")

	require.ErrorIs(t, l.RotateKey(ctx, "k1", key("k6"), later, "cli"), ledger.ErrKeyEnded, "expired")
	require.NoError(t, l.RevokeKey(ctx, "k2", "cli"))
	require.ErrorIs(t, l.RotateKey(ctx, "k2", key("k6"), later, "cli"), ledger.ErrKeyEnded, "revoked")
	keys, err := l.Keys(ctx)
	require.NoError(t, err)
	require.Len(t, keys, 5)
	requireSecretless(t, l, hash[:])
}

// Of many who rotate one key at once, with no overlap, one does; the others find that it has ended.
func testRotationRace(t *testing.T, target Target) {
	l := target.Open(t)
	require.NoError(t, l.CreateKey(t.Context(), ledger.Key{ID: "k", Name: "n", Role: "ops", Hash: []byte("h")}, "cli"))
	done := make(chan error, 8)
	for i := range cap(done) {
		go func() {
			next := ledger.Key{ID: fmt.Sprint("next-", i), Name: "n", Role: "ops", Hash: []byte("h")}
			done <- l.RotateKey(t.Context(), "k", next, time.Time{}, "cli")
		}()
	}
	rotated := 0
	for range cap(done) {
		if err := <-done; err == nil {
			rotated++
		} else {
			require.ErrorIs(t, err, ledger.ErrKeyEnded)
		}
	}
	require.Equal(t, 1, rotated)
	require.Len(t, snap(t, l).audit, 2)
}

func testTouch(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	at := time.Date(2026, 11, 20, 10, 0, 0, 123_456_000, time.UTC)
	for _, id := range []string{"k1", "k2", "k3"} {
		require.NoError(t, l.CreateKey(ctx, ledger.Key{ID: id, Name: "n", Role: "ops", Hash: []byte("h")}, "cli"))
	}
	used := func() []time.Time {
		return []time.Time{keyOf(t, l, "k1").LastUsedAt, keyOf(t, l, "k2").LastUsedAt, keyOf(t, l, "k3").LastUsedAt}
	}
	require.NoError(t, l.TouchKeys(ctx, nil))
	require.NoError(t, l.TouchKeys(ctx, map[string]time.Time{"k1": at, "k2": at.Add(time.Hour), "unknown": at}))
	require.Equal(t, []time.Time{at, at.Add(time.Hour), {}}, used())
	require.NoError(t, l.TouchKeys(ctx, map[string]time.Time{"k1": at.Add(time.Second), "k2": at, "k3": at}))
	require.Equal(t, []time.Time{at.Add(time.Second), at.Add(time.Hour), at}, used(), "only rises")
	require.Len(t, snap(t, l).audit, 3, "use is no change")

	// Gateways that touch the same keys at once do not stop each other, and the latest use stays.
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 10 {
				seen := map[string]time.Time{}
				for _, id := range []string{"k3", "k1", "k2"} {
					seen[id] = at.Add(2*time.Hour + time.Duration(i*8+g)*time.Second)
				}
				if err := l.TouchKeys(ctx, seen); err != nil {
					t.Errorf("touch: %v", err)
				}
			}
		})
	}
	group.Wait()
	last := at.Add(2*time.Hour + 79*time.Second)
	require.Equal(t, []time.Time{last, last, last}, used())
}

func testSigningKeys(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	at := time.Date(2026, 11, 20, 10, 0, 0, 123_456_000, time.UTC)
	first := ledger.SigningKey{ID: "first", Secret: []byte("secret \x00 one"), CreatedAt: at}
	keys, err := l.SigningKeys(ctx, first)
	require.NoError(t, err)
	require.Equal(t, []ledger.SigningKey{first}, keys)
	keys, err = target.Reopen(t, l).SigningKeys(ctx, ledger.SigningKey{ID: "other", Secret: []byte("x")})
	require.NoError(t, err)
	require.Equal(t, []ledger.SigningKey{first}, keys, "a candidate beside others is not stored")

	second := ledger.SigningKey{ID: "a second", Secret: []byte("secret two"), CreatedAt: at.Add(time.Hour)}
	require.NoError(t, l.AddSigningKey(ctx, second, "boss"))
	require.ErrorIs(t, l.AddSigningKey(ctx, second, "boss"), ledger.ErrExists)
	// From a machine whose clock is behind: the newest all the same.
	require.NoError(t, l.AddSigningKey(ctx, ledger.SigningKey{ID: "behind", Secret: []byte("s"), CreatedAt: at}, "boss"))
	require.NoError(t, l.AddSigningKey(ctx, ledger.SigningKey{ID: "now", Secret: []byte("s")}, "boss"))
	keys, err = l.SigningKeys(ctx, first)
	require.NoError(t, err)
	require.Equal(t, []string{"now", "behind", "a second", "first"}, []string{keys[0].ID, keys[1].ID, keys[2].ID, keys[3].ID})
	require.Equal(t, second, keys[2])
	for i := range keys[1:] {
		require.True(t, keys[i].CreatedAt.After(keys[i+1].CreatedAt), "no two have one time")
	}

	audit := snap(t, l).audit
	require.Len(t, audit, 4)
	for _, e := range audit {
		require.Equal(t, ledger.ActionSigningKeyCreate, e.Action)
		require.Contains(t, e.After, `"created_at":`)
	}
	require.Equal(t, []string{"first", ledger.ActorItself}, []string{audit[0].Subject, audit[0].Actor})
	require.Equal(t, []string{"a second", "boss"}, []string{audit[1].Subject, audit[1].Actor})
	requireSecretless(t, l, second.Secret)
}

// Gateways that start together agree on one key.
func testSigningKeyRace(t *testing.T, target Target) {
	l := target.Open(t)
	found := make(chan []ledger.SigningKey, 8)
	for i := range cap(found) {
		go func() {
			keys, err := l.SigningKeys(t.Context(), ledger.SigningKey{ID: fmt.Sprint("k", i), Secret: []byte{byte(i)}})
			if err != nil {
				t.Errorf("signing keys: %v", err)
			}
			found <- keys
		}()
	}
	first := <-found
	require.Len(t, first, 1)
	for range cap(found) - 1 {
		require.Equal(t, first, <-found)
	}
	require.Len(t, snap(t, l).audit, 1)
}
