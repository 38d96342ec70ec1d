package ledgertest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/sale"
)

// version is one that may be put.
func version(saleID string) sale.Version {
	c := Config(saleID)
	c.Items = []sale.Item{{SKU: "sku-0", Stock: []sale.Stock{{Location: "main", OnHand: 10}}}}
	return sale.Version{Sale: saleID, Lifecycle: sale.Live, Config: c, Actor: "key-1", Reason: "why " + hostiles[12]}
}

func put(t testing.TB, l ledger.Ledger, v sale.Version, expect int64) sale.Version {
	t.Helper()
	v, err := l.PutVersion(t.Context(), v, expect)
	require.NoError(t, err)
	return v
}

func testVersions(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	_, err := l.LatestVersion(ctx, theSale)
	require.ErrorIs(t, err, ledger.ErrNotFound)
	_, err = l.Versions(ctx, theSale)
	require.ErrorIs(t, err, ledger.ErrNotFound)
	_, err = l.PutVersion(ctx, version(theSale), 1)
	require.ErrorIs(t, err, ledger.ErrVersionMismatch)

	before := sale.Moment(time.Now().UnixMilli())
	v := version(theSale)
	v.Version, v.Status, v.Refusal, v.CreatedAt = 77, sale.VersionApplied, "x", 1 // set by the ledger
	first := put(t, l, v, 0)
	require.EqualValues(t, 1, first.Version)
	require.Equal(t, sale.VersionPending, first.Status)
	require.Empty(t, first.Refusal)
	require.GreaterOrEqual(t, first.CreatedAt, before)
	_, err = l.PutVersion(ctx, version(theSale), 0)
	require.ErrorIs(t, err, ledger.ErrVersionMismatch)
	second := put(t, l, version(theSale), 1)
	require.EqualValues(t, 2, second.Version)

	latest, err := l.LatestVersion(ctx, theSale)
	require.NoError(t, err)
	require.Equal(t, second, latest)
	all, err := l.Versions(ctx, theSale)
	require.NoError(t, err)
	require.Equal(t, []sale.Version{first, second}, all)
	again, err := target.Reopen(t, l).Versions(ctx, theSale)
	require.NoError(t, err)
	require.Equal(t, all, again)
}

func testVersionRace(t *testing.T, target Target) {
	l := target.Open(t)
	for expect := range int64(5) {
		var mu sync.Mutex
		won, lost := 0, 0
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				_, err := l.PutVersion(t.Context(), version(theSale), expect)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won++
				case errors.Is(err, ledger.ErrVersionMismatch):
					lost++
				default:
					t.Errorf("put: %v", err)
				}
			})
		}
		group.Wait()
		require.Equal(t, []int{1, 7}, []int{won, lost})
	}
	require.Len(t, snap(t, l).audit, 5)
}

// reject refuses a version as a reconciler does: with the lock of the shard.
func reject(ctx context.Context, l ledger.Ledger, saleID string, version int64, refusal string) error {
	tx, err := l.Begin(ctx, ledger.Shard{Sale: saleID})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := tx.RejectVersion(ctx, version, refusal); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

func testVersionStatus(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	g := NewGenerator(30, theSale)
	first := put(t, l, version(theSale), 0)
	second := put(t, l, version(theSale), 1)
	pending, err := l.PendingVersions(ctx)
	require.NoError(t, err)
	require.Equal(t, []sale.Version{first, second}, pending)

	Append(t, l, []sale.Event{g.saleEvent(first.Config)})
	require.NoError(t, reject(ctx, l, theSale, 1, "too late"), "not pending: left alone")
	require.NoError(t, reject(ctx, l, theSale, 2, "FIELD_LOCKED /opens_at"))
	require.NoError(t, reject(ctx, l, theSale, 2, "again"))
	require.NoError(t, reject(ctx, l, "unknown", 2, "nothing there"))
	all, err := l.Versions(ctx, theSale)
	require.NoError(t, err)
	require.Equal(t, sale.VersionApplied, all[0].Status)
	require.Equal(t, sale.VersionRejected, all[1].Status)
	require.Equal(t, "FIELD_LOCKED /opens_at", all[1].Refusal)
	latest, err := l.LatestVersion(ctx, theSale)
	require.NoError(t, err)
	require.Equal(t, all[0], latest, "a rejected one does not count")
	tx, err := l.Begin(ctx, shard)
	require.NoError(t, err)
	locked, err := tx.Versions(ctx)
	require.NoError(t, err)
	require.Equal(t, all, locked)
	tx.Rollback()

	third := put(t, l, version(theSale), 1)
	require.EqualValues(t, 3, third.Version, "a number is never used twice")
	pending, err = l.PendingVersions(ctx)
	require.NoError(t, err)
	require.Equal(t, []sale.Version{third}, pending)

	// All rejected: the sale is new again, its numbers go on.
	put(t, l, version("bad"), 0)
	require.NoError(t, reject(ctx, l, "bad", 1, "no"))
	_, err = l.LatestVersion(ctx, "bad")
	require.ErrorIs(t, err, ledger.ErrNotFound)
	require.EqualValues(t, 2, put(t, l, version("bad"), 0).Version)
}

func testListings(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	sales, err := l.Sales(ctx)
	require.NoError(t, err)
	require.Empty(t, sales)
	var want []sale.Version
	for _, id := range []string{"b", "a-2", "a"} {
		put(t, l, version(id), 0)
		want = append([]sale.Version{put(t, l, version(id), 1)}, want...)
		v := put(t, l, version(id), 2)
		require.NoError(t, reject(ctx, l, id, v.Version, "no"))
	}
	sales, err = l.Sales(ctx)
	require.NoError(t, err)
	require.Equal(t, want, sales)
	Append(t, l, NewGenerator(31, "with-events").Events(5))
	shards, err := l.Shards(ctx)
	require.NoError(t, err)
	require.Equal(t, []ledger.Shard{{Sale: "a"}, {Sale: "a-2"}, {Sale: "b"}, {Sale: "with-events"}}, shards)
}

func testConfigRoundTrip(t *testing.T, target Target) {
	l := target.Open(t)
	v := version(theSale)
	v.Config.Title = `Zoë's "drop" \ 漢字 🎟 <b>`
	v.Config.Caps = sale.Caps{PerCustomer: 2, PerOrder: 3}
	v.Config.PublicNumbers = true
	v.Config.Items[0].Stock[0].OnHand = sale.MaxOnHand
	v.Config.Limits = &sale.Limits{IP: &sale.Limit{Rate: 1, PerSeconds: 2, Burst: 3, Mode: sale.LimitShadow}}
	v.Config.Queue = &sale.Queue{WaitingRoom: &sale.WaitingRoom{AdmitPerSecond: 9}, Waitlist: &sale.Waitlist{Max: 4}}
	put(t, l, v, 0)
	got, err := l.LatestVersion(t.Context(), theSale)
	require.NoError(t, err)
	require.Equal(t, v.Config, got.Config)
	require.Equal(t, v.Reason, got.Reason)
}
