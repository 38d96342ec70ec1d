package ledgertest

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/sale"
)

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

// testWriteOff guards that no way of changing on_hand goes without an entry.
func testWriteOff(t *testing.T, target Target) {
	l := target.Open(t)
	g := NewGenerator(41, theSale)
	Append(t, l, g.Events(1))
	lines := []sale.Line{{SKU: "sku-0", Location: "berlin", Qty: 2}, {SKU: "sku-1", Location: "lyon", Qty: 1}}
	for _, restock := range []bool{true, false} {
		held := g.heldEvent("r-"+strconv.FormatBool(restock), "ada", lines, 0)
		of := sale.Event{Reservation: held.Reservation, Customer: "ada", Lines: lines, Actor: "support"}
		confirmed, cancelled := of, of
		confirmed.Type, confirmed.Ref = sale.EventConfirmed, "order-1"
		cancelled.Type = sale.EventCancelled
		cancelled.Data = data(sale.CancelledData{Restock: restock, Reason: "broken"})
		Append(t, l, []sale.Event{held, g.emit(confirmed), g.emit(cancelled)})
	}
	audit := snap(t, l).audit
	require.Len(t, audit, 2, "a line each, of the one without restock")
	for i, want := range []struct{ subject, before, after string }{
		{"sku-0/berlin", `"on_hand":500,"safety":0,"held":0,"sold":2`, `"on_hand":498,"safety":0,"held":0,"sold":0`},
		{"sku-1/lyon", `"on_hand":300,"safety":0,"held":0,"sold":1`, `"on_hand":299,"safety":0,"held":0,"sold":0`},
	} {
		got := audit[i]
		require.Equal(t, []string{ledger.ActionStockWriteOff, theSale + "/" + want.subject, "support", "broken"},
			[]string{got.Action, got.Subject, got.Actor, got.Reason})
		require.Equal(t, "{"+want.before+"}", got.Before)
		require.Equal(t, "{"+want.after+`,"reservation":"r-false"}`, got.After)
	}
}

func testAuditFilter(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	for _, id := range []string{"drop-1", "drop-2", "b%_", "drop-1x"} {
		require.NoError(t, l.CreateKey(ctx, ledger.Key{ID: id, Name: "n", Role: "ops", Hash: []byte("h")}, "cli"))
	}
	require.NoError(t, l.RevokeKey(ctx, "drop-1", "cli"))
	for _, test := range []struct {
		filter ledger.AuditFilter
		want   []string
	}{
		{ledger.AuditFilter{}, []string{"drop-1", "drop-2", "b%_", "drop-1x", "drop-1"}},
		{ledger.AuditFilter{SubjectPrefix: "drop-1"}, []string{"drop-1", "drop-1x", "drop-1"}},
		{ledger.AuditFilter{SubjectPrefix: "drop-1x"}, []string{"drop-1x"}},
		{ledger.AuditFilter{SubjectPrefix: "b%"}, []string{"b%_"}},
		{ledger.AuditFilter{SubjectPrefix: "%"}, nil},
		{ledger.AuditFilter{SubjectPrefix: "Drop"}, nil},
		{ledger.AuditFilter{Action: ledger.ActionKeyRevoke}, []string{"drop-1"}},
		{ledger.AuditFilter{SubjectPrefix: "drop-2", Action: ledger.ActionKeyRevoke}, nil},
	} {
		entries, err := l.FilteredAuditLog(ctx, test.filter, 0, 100)
		require.NoError(t, err)
		var got []string
		for _, e := range entries {
			got = append(got, e.Subject)
		}
		require.Equal(t, test.want, got, test.filter)
	}
	all, err := l.AuditLog(ctx, 0, 100)
	require.NoError(t, err)
	next, err := l.FilteredAuditLog(ctx, ledger.AuditFilter{SubjectPrefix: "drop"}, all[0].ID, 2)
	require.NoError(t, err)
	require.Equal(t, []ledger.AuditEntry{all[1], all[3]}, next)
}
