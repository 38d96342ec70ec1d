package gateway

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
)

// fakeBooks does what the test says, and remembers who ordered what.
type fakeBooks struct {
	mu     sync.Mutex
	orders []string
	err    error
	// block holds every order up until its context ends.
	block bool
	begun chan struct{}
}

func (f *fakeBooks) order(ctx context.Context, text string) error {
	f.mu.Lock()
	f.orders = append(f.orders, text)
	err, block := f.err, f.block
	f.mu.Unlock()
	if block {
		f.begun <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (f *fakeBooks) set(err error, block bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.block, f.orders = err, block, nil
}

func (f *fakeBooks) Status(ctx context.Context) ([]ShardStatus, error) {
	return []ShardStatus{{
		Sale: "books", State: "draining", Watermark: Position{1, 7}, Redis: Position{1, 9}, LagEvents: 2, LagSeconds: 0.5,
		Verified: &LastCheck{At: timeText(1), State: "open", Seq: 5, GoodAt: timeText(1)},
	}, {Sale: "other", State: "frozen", Reason: "gap", Detail: "x"}}, f.order(ctx, "status")
}

func (f *fakeBooks) Verify(ctx context.Context, id string) (Verification, error) {
	return Verification{
		Sale: id, State: "open", At: timeText(1), Epoch: 1, Seq: 9,
		Differences: []Difference{{Kind: "stock", Subject: "AIR-42", Redis: "1", Ledger: "2", Cause: "c", Advice: "a"}},
	}, f.order(ctx, "verify "+id)
}

func (f *fakeBooks) Rebuild(ctx context.Context, id, actor string) (Rebuilt, error) {
	return Rebuilt{Sale: id, FromEpoch: 1, Epoch: 2, Seq: 10, ShiftMs: 30_000}, f.order(ctx, "rebuild "+id+" by "+actor)
}

func (f *fakeBooks) Replay(ctx context.Context, _ int64, actor string) error {
	return f.order(ctx, "replay by "+actor)
}

func (f *fakeBooks) Resolve(ctx context.Context, _ int64, actor, reason string) error {
	return f.order(ctx, "resolve by "+actor+" for "+reason)
}

func TestBooksRoutes(t *testing.T) {
	f := &fakeBooks{begun: make(chan struct{}, 10)}
	r := newRig(t, mini(t), func(d *Deps) {
		d.Books = f
		d.Options.BooksTimeout = 300 * time.Millisecond
	})
	r.putSale("books", nil)
	shards := r.get("/v1/admin/reconciler").want(t, http.StatusOK)["shards"].([]any)
	require.Len(t, shards, 2)
	one := shards[0].(map[string]any)
	require.Equal(t, map[string]any{"epoch": 1.0, "seq": 7.0}, one["watermark"])
	require.InDelta(t, 0.5, one["lag_seconds"], 0)

	f.set(nil, false)
	require.Len(t, r.post("/v1/admin/sales/books/verify", "").want(t, http.StatusOK)["differences"], 1)
	require.EqualValues(t, 2, r.post("/v1/admin/sales/books/rebuild", "").want(t, http.StatusOK)["epoch"])
	r.post("/v1/admin/dead-letters/7/replay", "").want(t, http.StatusOK)
	require.Equal(t, "resolved", r.post("/v1/admin/dead-letters/7/resolve", `{"reason":"sold by phone"}`).
		want(t, http.StatusOK)["state"])
	require.Equal(t, []string{
		"verify books", "rebuild books by key:dev", "replay by key:dev", "resolve by key:dev for sold by phone",
	}, f.orders)

	for _, verb := range []string{"verify", "rebuild"} {
		r.post("/v1/admin/sales/nosuch/"+verb, "").problem(t, codeUnknownSale)
	}
	for _, id := range []string{"0", "-1", "x", "07", "+7", "99999999999999999999", "7%2e0"} {
		r.post("/v1/admin/dead-letters/"+id+"/replay", "").problem(t, codeNotFound)
	}
	f.set(ledger.ErrNotFound, false)
	r.post("/v1/admin/dead-letters/7/replay", "").problem(t, codeNotFound)
	r.post("/v1/admin/sales/books/verify", "").problem(t, codeUnknownSale)
	f.set(errors.Join(ErrNotNow, errors.New("it is of a lost branch")), false)
	r.post("/v1/admin/dead-letters/7/replay", "").problem(t, codeInvalidRequest)
	r.post("/v1/admin/sales/books/rebuild", "").problem(t, codeInvalidRequest)
	f.set(errors.New("postgres is away: secret"), false)
	for _, path := range []string{"/v1/admin/sales/books/verify", "/v1/admin/dead-letters/7/replay"} {
		require.NotContains(t, r.post(path, "").problem(t, codeUnavailable)["detail"], "secret")
	}
	r.get("/v1/admin/reconciler").problem(t, codeUnavailable)

	// What takes too long is cancelled, and no more than two are at it.
	f.set(nil, true)
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { r.post("/v1/admin/sales/books/verify", "").problem(t, codeUnavailable) })
	}
	<-f.begun
	<-f.begun
	r.post("/v1/admin/sales/books/verify", "").problem(t, codeOverloaded)
	both.Wait()
	f.set(nil, false)
	r.post("/v1/admin/sales/books/verify", "").want(t, http.StatusOK)
}

// A process without books says so.
func TestNoBooks(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("books", nil)
	r.get("/v1/admin/reconciler").problem(t, codeUnavailable)
	r.post("/v1/admin/sales/books/verify", "").problem(t, codeUnavailable)
	r.post("/v1/admin/dead-letters/7/replay", "").problem(t, codeUnavailable)
}

func TestDeadLetterRoutes(t *testing.T) {
	f := &fakeBooks{}
	r := newRig(t, mini(t), func(d *Deps) { d.Books = f })
	r.putSale("letters", nil)
	list := func(query string) []any {
		t.Helper()
		return r.get("/v1/admin/dead-letters"+query).want(t, http.StatusOK)["dead_letters"].([]any)
	}
	require.Empty(t, list(""))
	tx, err := r.ledger.Begin(t.Context(), shardOf("other"))
	require.NoError(t, err)
	defer tx.Rollback()
	for i := range 3 {
		require.NoError(t, tx.Bury(t.Context(), ledger.DeadLetter{
			Shard: shardOf("other"), Epoch: 1, Seq: int64(i + 1), Mark: "m", Kind: ledger.LetterPoison,
			Event: []byte("\x00\xff"), Reason: "cannot be read",
		}))
	}
	require.NoError(t, tx.Commit(t.Context()))
	all := list("")
	require.Len(t, all, 3)
	require.Equal(t, "AP8=", all[0].(map[string]any)["event"])
	require.Len(t, list("?limit=1&after=1"), 1)
	require.Empty(t, list("?sale=letters"))

	tx, err = r.ledger.Begin(t.Context(), shardOf("other"))
	require.NoError(t, err)
	defer tx.Rollback()
	require.NoError(t, tx.Settle(t.Context(), 1, ledger.LetterResolved, "ops", "gone"))
	require.NoError(t, tx.Commit(t.Context()))
	require.Len(t, list(""), 2)
	require.Len(t, list("?all=true"), 3)
	require.Equal(t, "gone", list("?all=true")[0].(map[string]any)["resolution"])

	f.set(ledger.ErrSettled, false)
	res := r.post("/v1/admin/dead-letters/1/resolve", `{"reason":"again"}`)
	require.Equal(t, "resolved", res.want(t, http.StatusOK)["state"])
	require.Equal(t, "true", res.Header.Get("Idempotent-Replayed"))
	r.post("/v1/admin/dead-letters/1/replay", "").problem(t, codeInvalidRequest)
}
