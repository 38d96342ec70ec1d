package ledgertest

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/sale"
)

func testKeys(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	keys, err := l.Keys(ctx)
	require.NoError(t, err)
	require.Empty(t, keys)
	hash := sha256.Sum256([]byte("secret"))
	at := time.Date(2026, 11, 20, 10, 0, 0, 123_456_000, time.UTC)
	first := ledger.Key{ID: "k1", Name: `O'Brien "shop" \`, Role: "admin", Hash: hash[:], CreatedAt: at}
	second := ledger.Key{ID: "k0", Name: "storefront", Role: "storefront", Hash: hash[:], CreatedAt: at.Add(time.Second)}
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

	require.NoError(t, l.CreateKey(ctx, ledger.Key{ID: "k2", Name: "now", Role: "ops", Hash: hash[:]}, "cli"))
	keys, err = l.Keys(ctx)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), keys[2].CreatedAt, time.Minute)
}

func testAudit(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	v := put(t, l, version(theSale), 0)
	v.Lifecycle, v.Reason = sale.Paused, "too fast"
	v = put(t, l, v, 1)
	v.Lifecycle = sale.Live
	v = put(t, l, v, 2)
	v.Config.Title = "new"
	v = put(t, l, v, 3)
	v.Lifecycle = sale.Closed
	put(t, l, v, 4)
	_, err := l.PutVersion(ctx, v, 1)
	require.ErrorIs(t, err, ledger.ErrVersionMismatch)
	audit := snap(t, l).audit
	var actions []string
	for _, a := range audit {
		actions = append(actions, a.Action)
		require.Equal(t, theSale, a.Subject)
		require.Equal(t, "key-1", a.Actor)
		require.WithinDuration(t, time.Now(), a.At, time.Minute)
	}
	require.Equal(t, []string{
		ledger.ActionSalePut, ledger.ActionSalePause, ledger.ActionSaleResume, ledger.ActionSalePut, ledger.ActionSaleClose,
	}, actions)
	require.Empty(t, audit[0].Before)
	require.Contains(t, audit[1].Before, `"lifecycle":"live"`)
	require.Contains(t, audit[1].After, `"lifecycle":"paused"`)
	require.Equal(t, "too fast", audit[1].Reason)

	g := NewGenerator(40, "adjusted")
	Append(t, l, g.Events(1))
	batch := []sale.Event{g.adjusted(), g.adjusted()}
	tx, err := l.Begin(ctx, ledger.Shard{Sale: "adjusted"})
	require.NoError(t, err)
	require.NoError(t, tx.Append(ctx, batch))
	tx.Rollback()
	require.Equal(t, audit, snap(t, l).audit)
	Append(t, l, batch)
	entries, err := l.AuditLog(ctx, audit[4].ID, 1)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	got, line := entries[0], batch[0].Lines[0]
	require.Equal(t, ledger.ActionStockAdjust, got.Action)
	require.Equal(t, "adjusted/"+line.SKU+"/"+line.Location, got.Subject)
	require.Equal(t, batch[0].Actor, got.Actor)
	require.Equal(t, time.UnixMilli(batch[0].AtMs).UTC(), got.At)
	require.Contains(t, got.Before, `"on_hand":`)
	require.Contains(t, got.After, `"reference":"PO-1"`)
	require.NotEqual(t, got.Before, got.After)
	rest, err := l.AuditLog(ctx, got.ID, 100)
	require.NoError(t, err)
	require.Len(t, rest, 1)
}
