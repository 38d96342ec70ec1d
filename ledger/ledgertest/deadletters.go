package ledgertest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/sale"
)

// testDeadLetters guards that poison keeps its place in the chain and nothing else, that it taints its
// shard until it is settled, once, and that a fork's letters taint nothing.
func testDeadLetters(t *testing.T, target Target) {
	l := target.Open(t)
	ctx := within(t, 10*time.Second)
	g := NewGenerator(11, theSale)
	events := g.Events(20)
	Append(t, l, events[:19])
	raw := []byte("mark\x00\xff not text")
	begin := func() ledger.Tx {
		tx, err := l.Begin(ctx, shard)
		require.NoError(t, err)
		return tx
	}
	taints := func() map[ledger.Shard]int {
		all, err := l.Taints(ctx)
		require.NoError(t, err)
		tx := begin()
		defer tx.Rollback()
		n, err := tx.Taints(ctx)
		require.NoError(t, err)
		require.Equal(t, all[shard], n)
		return all
	}

	tx := begin()
	require.NoError(t, tx.SetAside(ctx, events[19:], "fork"))
	require.NoError(t, tx.Commit(ctx))
	tx = begin()
	require.NoError(t, tx.SetAside(ctx, events[19:], "the same rebuild, begun again"), "kept once")
	require.NoError(t, tx.Commit(ctx))
	require.Empty(t, taints())

	tx = begin()
	last := events[18]
	letter := ledger.DeadLetter{
		Shard: shard, Epoch: last.Epoch, Seq: 20, Mark: events[19].Mark, Event: raw, Reason: "cannot be read",
	}
	require.NoError(t, tx.Bury(ctx, letter))
	row, err := ledger.DeadRow(&letter, last.Mark, last.AtMs)
	require.NoError(t, err)
	require.NoError(t, tx.Append(ctx, []sale.Event{row}))
	require.NoError(t, tx.Commit(ctx))
	require.Equal(t, map[ledger.Shard]int{shard: 1}, taints())
	marks, err := l.Marks(ctx, shard, []int64{19, 20})
	require.NoError(t, err)
	require.Equal(t, map[int64]string{19: last.Mark}, marks, "a letter's event is not durable")
	books := sale.NewBooks(theSale, 0)
	for i := range events[:19] {
		require.NoError(t, books.Apply(&events[i]))
	}
	require.NoError(t, books.Apply(&row))
	RequireEqual(t, l, books)

	all, err := l.DeadLetters(ctx, ledger.LetterQuery{})
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, ledger.LetterFork, all[0].Kind)
	got := all[1]
	require.WithinDuration(t, time.Now(), got.At, time.Minute)
	letter.ID, letter.At, letter.Kind, letter.State = got.ID, got.At, ledger.LetterPoison, ledger.LetterOpen
	require.Equal(t, letter, got)
	for _, q := range []ledger.LetterQuery{{ID: got.ID}, {After: all[0].ID}, {Sale: theSale, After: all[0].ID, Limit: 5}} {
		some, err := l.DeadLetters(ctx, q)
		require.NoError(t, err)
		require.Equal(t, []ledger.DeadLetter{letter}, some)
	}

	settle := func(s ledger.Shard, id int64) error {
		tx, err := l.Begin(ctx, s)
		require.NoError(t, err)
		defer tx.Rollback()
		if err := tx.Settle(ctx, id, ledger.LetterResolved, "ann", "seen to"); err != nil {
			return err
		}
		return tx.Commit(ctx)
	}
	require.ErrorIs(t, settle(shard, 1<<40), ledger.ErrNotFound)
	require.ErrorIs(t, settle(ledger.Shard{Sale: "other"}, got.ID), ledger.ErrNotFound)
	require.NoError(t, settle(shard, got.ID))
	require.ErrorIs(t, settle(shard, got.ID), ledger.ErrSettled)
	require.Empty(t, taints())
	some, err := l.DeadLetters(ctx, ledger.LetterQuery{ID: got.ID})
	require.NoError(t, err)
	require.Equal(t, []any{ledger.LetterResolved, "ann", "seen to", raw},
		[]any{some[0].State, some[0].Actor, some[0].Resolution, some[0].Event})
	open, err := l.DeadLetters(ctx, ledger.LetterQuery{OpenOnly: true})
	require.NoError(t, err)
	require.Len(t, open, 1, "the fork's")
	audit, err := l.AuditLog(ctx, 0, 1000)
	require.NoError(t, err)
	entry := audit[len(audit)-1]
	require.Equal(t, []string{ledger.ActionLetterResolve, "ann", "seen to"}, []string{entry.Action, entry.Actor, entry.Reason})
}
