package ledgertest

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/sale"
)

func testEmptyShard(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	require.NoError(t, l.Ping(ctx))
	head, err := l.Head(ctx, shard)
	require.NoError(t, err)
	require.Equal(t, ledger.Head{}, head)
	tx, err := l.Begin(ctx, shard)
	require.NoError(t, err)
	require.Equal(t, ledger.Head{}, tx.Head())
	require.NoError(t, tx.Append(ctx, nil))
	require.NoError(t, tx.Commit(ctx))
	tx.Rollback()
	head, err = l.Head(ctx, shard)
	require.NoError(t, err)
	require.Equal(t, ledger.Head{}, head)
	shards, err := l.Shards(ctx)
	require.NoError(t, err)
	require.Empty(t, shards)
	entries, err := l.Events(ctx, shard, 0, 10)
	require.NoError(t, err)
	require.Empty(t, entries)
	stock, err := l.Stock(ctx, theSale)
	require.NoError(t, err)
	require.Empty(t, stock)
	_, err = l.Reservation(ctx, theSale, "nobody-knows")
	require.ErrorIs(t, err, ledger.ErrNotFound)
}

func testAppend(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	events := NewGenerator(1, theSale).Events(30)
	tx, err := l.Begin(ctx, shard)
	require.NoError(t, err)
	require.NoError(t, tx.Append(ctx, events[:20]))
	require.Equal(t, events[19].Mark, tx.Head().Mark)
	require.NoError(t, tx.Append(ctx, events[20:]), "twice in one transaction")
	require.NoError(t, tx.Commit(ctx))

	head, err := l.Head(ctx, shard)
	require.NoError(t, err)
	require.Equal(t, tx.Head(), head)
	require.Equal(t, events[29].AtMs, head.AliveAtMs)
	entries, err := l.Events(ctx, shard, 5, 10)
	require.NoError(t, err)
	require.Len(t, entries, 10)
	for i, e := range entries {
		require.Equal(t, events[5+i], e.Event)
	}
	marks, err := l.Marks(ctx, shard, []int64{1, 30, 31, -1})
	require.NoError(t, err)
	require.Equal(t, map[int64]string{1: events[0].Mark, 30: events[29].Mark}, marks)
	marks, err = l.Marks(ctx, shard, nil)
	require.NoError(t, err)
	require.Empty(t, marks)
	shards, err := l.Shards(ctx)
	require.NoError(t, err)
	require.Equal(t, []ledger.Shard{shard}, shards)
}

func testDiverged(t *testing.T, target Target) {
	l := target.Open(t)
	g := NewGenerator(2, theSale)
	Append(t, l, g.Events(50))
	next := g.Events(10)
	before := snap(t, l)
	for name, change := range map[string]func([]sale.Event) []sale.Event{
		"a gap before the batch":  func(e []sale.Event) []sale.Event { return e[1:] },
		"a gap in the batch":      func(e []sale.Event) []sale.Event { return append(e[:4], e[5:]...) },
		"an event twice":          func(e []sale.Event) []sale.Event { return append(e[:4], e[3:]...) },
		"another prev at first":   func(e []sale.Event) []sale.Event { e[0].Prev = "other"; return e },
		"another prev inside":     func(e []sale.Event) []sale.Event { e[5].Prev = "other"; return e },
		"another mark inside":     func(e []sale.Event) []sale.Event { e[5].Mark = "other"; return e },
		"no mark":                 func(e []sale.Event) []sale.Event { e[9].Mark = ""; return e },
		"an epoch that falls":     func(e []sale.Event) []sale.Event { e[9].Epoch = 0; return e },
		"a seq that jumps":        func(e []sale.Event) []sale.Event { e[9].Seq++; return e },
		"an event of other sale":  func(e []sale.Event) []sale.Event { e[9].Sale = "other"; return e },
		"an event of other shard": func(e []sale.Event) []sale.Event { e[9].Shard = 1; return e },
	} {
		batch := change(append([]sale.Event(nil), next...))
		require.ErrorIs(t, TryAppend(l, batch), ledger.ErrDiverged, name)
		require.Equal(t, before, snap(t, l), name)
	}
	Append(t, l, next)
	RequireEqual(t, l, g.Books)
}

func testInvalid(t *testing.T, target Target) {
	l := target.Open(t)
	g := NewGenerator(3, theSale)
	Append(t, l, g.Events(60))
	for len(g.live) == 0 {
		Append(t, l, g.Events(1))
	}
	r := *g.Books.Reservations[g.live[0]]
	before := snap(t, l)
	b := g.Books
	line := []sale.Line{{SKU: "sku-0", Location: "berlin", Qty: 1}}
	held := data(sale.HeldData{Fingerprint: "f", DeadlineMs: g.nowMs + 1000})
	for name, e := range map[string]sale.Event{
		"unknown type":              {Type: "sold"},
		"held again while held":     {Type: sale.EventHeld, Reservation: r.ID, Customer: r.Customer, Lines: line, Data: held},
		"held at an unknown place":  {Type: sale.EventHeld, Reservation: "r-x", Lines: []sale.Line{{SKU: "x", Qty: 1}}, Data: held},
		"more than there is":        {Type: sale.EventHeld, Reservation: "r-x", Lines: []sale.Line{{SKU: "sku-0", Location: "berlin", Qty: 1e9}}, Data: held},
		"confirmed but unknown":     {Type: sale.EventConfirmed, Reservation: "r-x", Lines: line},
		"confirmed of another":      {Type: sale.EventConfirmed, Reservation: r.ID, Customer: "x", Lines: r.Lines},
		"cancelled while held":      {Type: sale.EventCancelled, Reservation: r.ID, Customer: r.Customer, Lines: r.Lines, Data: data(sale.CancelledData{})},
		"expired before its time":   {Type: sale.EventExpired, Reservation: r.ID, Customer: r.Customer, Lines: r.Lines, AtMs: r.DeadlineMs - 1},
		"data that cannot be read":  {Type: sale.EventHeld, Reservation: "r-x", Lines: line, Data: "{"},
		"created a second time":     {Type: sale.EventSaleCreated, Data: data(sale.SaleData{Version: 9, Config: *b.Config})},
		"text with NUL":             {Type: sale.EventRebuilt, Epoch: b.Epoch + 1, Actor: "a\x00b", Data: data(sale.RebuiltData{})},
		"text that is not UTF-8":    {Type: sale.EventRebuilt, Epoch: b.Epoch + 1, Actor: "a\xff", Data: data(sale.RebuiltData{})},
		"rebuilt into its epoch":    {Type: sale.EventRebuilt, Data: data(sale.RebuiltData{})},
		"rebuilt to an earlier one": {Type: sale.EventRebuilt, Epoch: b.Epoch + 1, Data: data(sale.RebuiltData{ShiftMs: -1})},
	} {
		e.Sale, e.Seq, e.Prev, e.Mark = theSale, b.Seq+1, b.Mark, "m-"+name
		if e.Epoch == 0 {
			e.Epoch = b.Epoch
		}
		if e.AtMs == 0 {
			e.AtMs = g.nowMs
		}
		err := TryAppend(l, []sale.Event{e})
		require.ErrorIs(t, err, ledger.ErrInvalid, name)
		var invalid *ledger.InvalidError
		require.ErrorAs(t, err, &invalid, name)
		require.Equal(t, e.Seq, invalid.Seq, name)
		require.Equal(t, before, snap(t, l), name)
	}
	// One of many in a batch is named.
	batch := []sale.Event{
		{Type: sale.EventHeld, Reservation: "r-fresh", Lines: line, Data: held},
		{Type: sale.EventHeld, Reservation: r.ID, Customer: r.Customer, Lines: line, Data: held},
	}
	for i := range batch {
		batch[i].Sale, batch[i].Epoch, batch[i].Seq, batch[i].AtMs = theSale, b.Epoch, b.Seq+1+int64(i), g.nowMs
	}
	batch[0].Prev, batch[0].Mark, batch[1].Prev, batch[1].Mark = b.Mark, "m0", "m0", "m1"
	var invalid *ledger.InvalidError
	require.ErrorAs(t, TryAppend(l, batch), &invalid)
	require.Equal(t, batch[1].Seq, invalid.Seq)
	require.ErrorIs(t, invalid, ledger.ErrHeldTwice)
	require.Equal(t, before, snap(t, l))
	Append(t, l, g.Events(10))
	RequireEqual(t, l, g.Books)
}

func testRollback(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	g := NewGenerator(4, theSale)
	Append(t, l, g.Events(200))
	before := snap(t, l)
	next := g.Events(100)
	tx, err := l.Begin(ctx, shard)
	require.NoError(t, err)
	require.NoError(t, tx.Append(ctx, next))
	require.NoError(t, tx.Alive(ctx, next[99].AtMs+1000))
	require.NoError(t, tx.SetAside(ctx, next, "a fork"))
	tx.Rollback()
	tx.Rollback()
	require.Error(t, tx.Commit(ctx))
	require.Equal(t, before, snap(t, l))
	Append(t, l, next)
	RequireEqual(t, l, g.Books)
}

func testAfterError(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	g := NewGenerator(5, theSale)
	events := g.Events(20)
	tx, err := l.Begin(ctx, shard)
	require.NoError(t, err)
	require.NoError(t, tx.Append(ctx, events[:10]))
	require.ErrorIs(t, tx.Append(ctx, events[11:]), ledger.ErrDiverged)
	require.Error(t, tx.Append(ctx, events[10:]))
	require.Error(t, tx.Commit(ctx))
	tx.Rollback()
	require.Empty(t, snap(t, l).entries)
	Append(t, l, events)
}

func testRepeat(t *testing.T, target Target) {
	l := target.Open(t)
	g := NewGenerator(6, theSale)
	events := g.Events(300)
	Append(t, l, events)
	before := snap(t, l)
	require.ErrorIs(t, TryAppend(l, events), ledger.ErrDiverged)
	require.ErrorIs(t, TryAppend(l, events[200:]), ledger.ErrDiverged)
	require.ErrorIs(t, TryAppend(l, append(events[299:], g.Events(1)...)), ledger.ErrDiverged)
	require.Equal(t, before, snap(t, l))
}

func testAlive(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	for _, step := range []struct{ note, want int64 }{{500, 500}, {400, 500}, {600, 600}} {
		tx, err := l.Begin(ctx, shard)
		require.NoError(t, err)
		require.NoError(t, tx.Alive(ctx, step.note))
		require.Equal(t, step.want, tx.Head().AliveAtMs)
		require.NoError(t, tx.Commit(ctx))
		head, err := l.Head(ctx, shard)
		require.NoError(t, err)
		require.Equal(t, step.want, head.AliveAtMs)
	}
}

func testRebuilt(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	g := NewGenerator(7, theSale)
	Append(t, l, g.Events(500))
	for range 3 {
		// Holds of earlier batches, of this one before the shift, and of this one after it.
		batch := append(g.Events(20), g.rebuilt())
		batch = append(batch, g.Events(20)...)
		Append(t, l, batch)
		RequireEqual(t, l, g.Books)
	}
	// Another sale is not moved by it.
	other := NewGenerator(8, "other")
	Append(t, l, other.Events(50))
	Append(t, l, []sale.Event{g.rebuilt()})
	RequireEqual(t, l, other.Books)
	RequireEqual(t, l, g.Books)
	head, err := l.Head(ctx, shard)
	require.NoError(t, err)
	require.Equal(t, g.Books.Epoch, head.Epoch)
}

func testIDReuse(t *testing.T, target Target) {
	l := target.Open(t)
	g := NewGenerator(9, theSale)
	line := []sale.Line{{SKU: "sku-0", Location: "berlin", Qty: 2}}
	Append(t, l, g.Events(1))
	released := func() sale.Event {
		return g.emit(sale.Event{Type: sale.EventReleased, Reservation: "again-and-again", Customer: "c", Lines: line})
	}
	Append(t, l, []sale.Event{g.heldEvent("again-and-again", "c", line, 0)})
	Append(t, l, []sale.Event{released(), g.heldEvent("again-and-again", "c", line, 0)})
	Append(t, l, []sale.Event{released()})
	RequireEqual(t, l, g.Books)
	Append(t, l, []sale.Event{g.heldEvent("again-and-again", "c", line, 0), released(), g.heldEvent("again-and-again", "c", line, 0)})
	RequireEqual(t, l, g.Books)
	Append(t, l, []sale.Event{released()})
	// However it finished, a hold or a place in line may come after it, in a later batch.
	is := func(kind sale.EventType, d any) sale.Event {
		return sale.Event{Type: kind, Reservation: "again-and-again", Customer: "c", Lines: line, Data: data(d)}
	}
	until := g.nowMs + 1000
	held := is(sale.EventHeld, sale.HeldData{Fingerprint: "f", DeadlineMs: until})
	waits, left := is(sale.EventWaitlisted, sale.WaitlistedData{}), is(sale.EventLeft, sale.LeftData{})
	left.Lines = nil
	for _, e := range []sale.Event{
		waits, left,
		waits, left,
		held, is(sale.EventReleased, nil),
		waits, is(sale.EventOffered, sale.OfferedData{DeadlineMs: until}), is(sale.EventConfirmed, nil),
		is(sale.EventCancelled, sale.CancelledData{Restock: true}),
		waits, left,
		held, is(sale.EventExpired, nil),
		waits, left,
		held,
	} {
		if e.Type == sale.EventExpired {
			g.nowMs = until
		}
		Append(t, l, []sale.Event{g.emit(e)})
		RequireEqual(t, l, g.Books)
	}
}

func testHostile(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	g := NewGenerator(10, theSale)
	Append(t, l, g.Events(1))
	line := []sale.Line{{SKU: "sku-0", Location: "berlin", Qty: 1}}
	var batch []sale.Event
	for _, text := range append(hostiles, "tab\there", strings.Repeat("ä", 10_000), "\U0010ffff", "{}", "{,}", `{"a`, "$$", "a\\'b") {
		batch = append(batch, g.heldEvent("id "+text, text, line, 0))
	}
	Append(t, l, batch)
	entries, err := l.Events(ctx, shard, 1, 100)
	require.NoError(t, err)
	for i, e := range batch {
		require.Equal(t, e, entries[i].Event)
	}
	RequireEqual(t, l, g.Books)
}

func testRandom(t *testing.T, target Target) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	l := target.Open(t)
	g := NewGenerator(seed, theSale)
	events := g.Events(10_000)
	for rest := events; len(rest) > 0; {
		n := min(len(rest), 1+g.rnd.IntN(900))
		Append(t, l, rest[:n])
		rest = rest[n:]
	}
	again := target.Reopen(t, l)
	RequireEqual(t, again, g.Books)
	require.Equal(t, snap(t, l), snap(t, again))
	audited := 0
	for i := range events {
		var data sale.CancelledData
		switch e := &events[i]; e.Type {
		case sale.EventAdjusted:
			audited++
		case sale.EventCancelled:
			require.NoError(t, json.Unmarshal([]byte(e.Data), &data))
			if !data.Restock {
				audited += len(e.Lines)
			}
		}
	}
	require.Equal(t, audited, len(snap(t, l).audit)) //nolint:testifylint // Len would print thousands of entries
}

// testCrashes abandons a transaction after every step and goes on in another program.
func testCrashes(t *testing.T, target Target) {
	l, ctx := target.Open(t), t.Context()
	g := NewGenerator(11, theSale)
	for round := range 5 {
		batch := g.Events(100)
		before := snap(t, l)
		for _, step := range []string{"begin", "append", "alive", "cancelled append"} {
			tx, err := l.Begin(ctx, shard)
			require.NoError(t, err, step)
			if step == "cancelled append" {
				ended, cancel := cancelled()
				require.Error(t, tx.Append(ended, batch), step)
				cancel()
			} else if step != "begin" {
				require.NoError(t, tx.Append(ctx, batch), step)
			}
			if step == "alive" {
				require.NoError(t, tx.Alive(ctx, before.head.AliveAtMs+1e6), step)
			}
			tx.Rollback()
			require.Equal(t, before, snap(t, l), step)
		}
		Append(t, l, batch)
		again := target.Reopen(t, l)
		require.ErrorIs(t, TryAppend(again, batch), ledger.ErrDiverged, "round %d", round)
		require.Equal(t, snap(t, l), snap(t, again))
	}
	RequireEqual(t, l, g.Books)
}
