// Package ledgertest is the one conformance suite of ledger.Ledger: Run proves an implementation
// against it (versions.go, keys.go, audit.go, append.go, chain.go, locks.go), and Generator makes random valid
// events for any test that needs a history.
package ledgertest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/sale"
)

// Target is an implementation under test.
type Target struct {
	// Open makes an empty ledger and closes it when the test ends.
	Open func(t testing.TB) ledger.Ledger
	// Reopen opens the ledger that Open made once more, as another program would, while the first is
	// open too.
	Reopen func(t testing.TB, l ledger.Ledger) ledger.Ledger
	// OneWriter says that a transaction on one shard keeps those on all others waiting.
	OneWriter bool
}

// Run runs the whole suite.
func Run(t *testing.T, target Target) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Target)
	}{
		{"versions count from one and expect the last", testVersions},
		{"one of many concurrent versions wins", testVersionRace},
		{"a version is pending, then applied or rejected", testVersionStatus},
		{"sales and shards are listed", testListings},
		{"a config is read back as it was put", testConfigRoundTrip},
		{"keys are made, listed and revoked", testKeys},
		{"a key is rotated, and ends no later than it would have", testRotation},
		{"one of many concurrent rotations wins", testRotationRace},
		{"the last use of keys only rises", testTouch},
		{"the newest signing key comes first", testSigningKeys},
		{"concurrent callers agree on the first signing key", testSigningKeyRace},
		{"the audit log is part of the transaction", testAudit},
		{"units that leave on_hand by a cancellation are audited", testWriteOff},
		{"the audit log is filtered by subject and action", testAuditFilter},
		{"an empty shard has the zero head", testEmptyShard},
		{"append moves head, events and marks", testAppend},
		{"what does not continue the chain is refused whole", testDiverged},
		{"what the books refuse is refused whole", testInvalid},
		{"a rollback leaves nothing", testRollback},
		{"a transaction cannot go on after an error", testAfterError},
		{"a batch repeated after its commit changes nothing", testRepeat},
		{"alive never falls", testAlive},
		{"rebuilt moves live deadlines only", testRebuilt},
		{"an id is used again after it finished", testIDReuse},
		{"a large batch does what a small one does", testLargeBatches},
		{"hostile text is read back unchanged", testHostile},
		{"a dead letter keeps its place and taints its shard", testDeadLetters},
		{"a page of the projections is of one moment", testProjections},
		{"one shard is locked by one transaction", testLock},
		{"different shards do not wait for each other", testTwoShards},
		{"waiting for the lock ends with the context", testLockContext},
		{"an ended context of Begin does not end the transaction", testBeginContext},
		{"ten thousand random events equal their fold", testRandom},
		{"a crash at any point leaves a batch whole or not at all", testCrashes},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, target) })
	}
}

const theSale = "drop-1"

var shard = ledger.Shard{Sale: theSale}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// Append appends events in one transaction.
func Append(t testing.TB, l ledger.Ledger, events []sale.Event) {
	t.Helper()
	require.NoError(t, TryAppend(l, events))
}

// TryAppend is Append for a test that expects an error.
func TryAppend(l ledger.Ledger, events []sale.Event) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tx, err := l.Begin(ctx, ledger.Shard{Sale: events[0].Sale, Number: events[0].Shard})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := tx.Append(ctx, events); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// RequireEqual compares a ledger with the fold of its events: head, stock, every reservation, and
// the chain recomputed from the events.
func RequireEqual(t testing.TB, l ledger.Ledger, books *sale.Books) {
	t.Helper()
	ctx := within(t, 30*time.Second)
	s := ledger.Shard{Sale: books.Sale, Number: books.Shard}
	head, err := l.Head(ctx, s)
	require.NoError(t, err)
	require.Equal(t, []any{books.Epoch, books.Seq, books.Mark}, []any{head.Epoch, head.Seq, head.Mark})

	var chain ledger.Head
	for chain.Seq < head.Seq {
		entries, err := l.Events(ctx, s, chain.Seq, 1000)
		require.NoError(t, err)
		require.NotEmpty(t, entries)
		chain, err = chain.Verify(s, entries)
		require.NoError(t, err)
	}
	require.Equal(t, head.Hash, chain.Hash)

	stock, err := l.Stock(ctx, books.Sale)
	require.NoError(t, err)
	require.Equal(t, books.Stock, stock)
	for id, want := range books.Reservations {
		got, err := l.Reservation(ctx, books.Sale, id)
		require.NoError(t, err)
		require.Equal(t, *want, got)
	}
}

// snapshot is everything of a shard that an Append may change.
type snapshot struct {
	head    ledger.Head
	entries []ledger.Entry
	stock   map[sale.Place]sale.Level
	audit   []ledger.AuditEntry
}

func snap(t testing.TB, l ledger.Ledger) snapshot {
	t.Helper()
	ctx := within(t, 10*time.Second)
	var s snapshot
	var err error
	s.head, err = l.Head(ctx, shard)
	require.NoError(t, err)
	s.entries, err = l.Events(ctx, shard, 0, 100_000)
	require.NoError(t, err)
	s.stock, err = l.Stock(ctx, theSale)
	require.NoError(t, err)
	s.audit, err = l.AuditLog(ctx, 0, 100_000)
	require.NoError(t, err)
	return s
}
