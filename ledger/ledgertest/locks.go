package ledgertest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/sale"
)

const shortWait = 150 * time.Millisecond

func cancelled() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx, func() {}
}

// testLock lets writers race over one chain: each appends what it finds next under the lock.
func testLock(t *testing.T, target Target) {
	l := target.Open(t)
	other := target.Reopen(t, l)
	g := NewGenerator(20, theSale)
	events := g.Events(40)
	var inside atomic.Int32
	var group sync.WaitGroup
	for i := range 4 {
		from := l
		if i%2 == 1 {
			from = other
		}
		group.Go(func() {
			for appendNext(t, from, events, &inside) {
				continue
			}
		})
	}
	group.Wait()
	RequireEqual(t, l, g.Books)
}

func appendNext(t *testing.T, l ledger.Ledger, events []sale.Event, inside *atomic.Int32) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tx, err := l.Begin(ctx, shard)
	if err != nil {
		t.Errorf("begin: %v", err)
		return false
	}
	defer tx.Rollback()
	if n := inside.Add(1); n != 1 {
		t.Errorf("%d transactions hold the lock", n)
	}
	leave := sync.OnceFunc(func() { inside.Add(-1) })
	defer leave() // before Rollback and, below, before the lock is given back
	at := tx.Head().Seq
	if at >= int64(len(events)) {
		return false
	}
	if err := tx.Append(ctx, events[at:at+1]); err != nil {
		t.Errorf("append: %v", err)
		return false
	}
	leave()
	err = tx.Commit(ctx)
	if err != nil {
		t.Errorf("commit: %v", err)
	}
	return err == nil
}

func testTwoShards(t *testing.T, target Target) {
	if target.OneWriter {
		t.Log("this ledger has one writer: the second shard waits, and gets its turn")
	}
	l, ctx := target.Open(t), t.Context()
	a, b := NewGenerator(21, theSale), NewGenerator(22, "drop-2")
	first, err := l.Begin(ctx, shard)
	require.NoError(t, err)
	defer first.Rollback()
	require.NoError(t, first.Append(ctx, a.Events(10)))
	second := make(chan error, 1)
	go func() { second <- TryAppend(l, b.Events(10)) }()
	if !target.OneWriter {
		require.NoError(t, <-second)
	}
	require.NoError(t, first.Commit(ctx))
	if target.OneWriter {
		require.NoError(t, <-second)
	}
	RequireEqual(t, l, a.Books)
	RequireEqual(t, l, b.Books)
}

func testLockContext(t *testing.T, target Target) {
	l := target.Open(t)
	other := target.Reopen(t, l)
	g := NewGenerator(23, theSale)
	tx, err := l.Begin(t.Context(), shard)
	require.NoError(t, err)
	defer tx.Rollback()
	require.NoError(t, tx.Append(t.Context(), g.Events(10)))
	for _, from := range []ledger.Ledger{l, other} {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), shortWait)
		_, err = from.Begin(ctx, shard)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(began), 10*shortWait)
	}
	head, err := other.Head(t.Context(), shard)
	require.NoError(t, err, "readers do not wait")
	require.Zero(t, head.Seq)
	require.NoError(t, tx.Commit(t.Context()))
	for _, from := range []ledger.Ledger{l, other} {
		Append(t, from, g.Events(10))
	}
	RequireEqual(t, l, g.Books)
}

func testBeginContext(t *testing.T, target Target) {
	l := target.Open(t)
	g := NewGenerator(24, theSale)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	tx, err := l.Begin(ctx, shard)
	cancel()
	require.NoError(t, err)
	defer tx.Rollback()
	time.Sleep(20 * time.Millisecond)
	require.NoError(t, tx.Append(t.Context(), g.Events(10)))
	require.NoError(t, tx.Commit(t.Context()))
	RequireEqual(t, l, g.Books)
}
