package reconciler

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/ledger"
	"flashgate/sale"
)

// rehash makes the chain of a ledger good again after somebody changed it, as one who knows how would.
func (s *memoryShard) rehash(t *testing.T, id ledger.Shard) {
	var head ledger.Head
	for i := range s.entries {
		e := &s.entries[i].Event
		e.Seq, e.Prev = head.Seq+1, head.Mark
		hashes, next, err := head.Extend(id, []sale.Event{*e})
		require.NoError(t, err)
		s.entries[i].Hash, head = hashes[0], next
	}
	s.head = head
}

// TestReceipt guards that a receipt tells a ledger with the same past, longer or not, from one that was cut,
// altered, or written anew from some event on.
func TestReceipt(t *testing.T) {
	r := newRig(t, connect(t, redistest.Mini(t).Addr()))
	r.created()
	r.traffic(200)
	sold := r.hold()
	require.Equal(t, sale.Confirmed, r.confirm(sold).Outcome)
	head := r.drainAll()
	rec := r.make("ops")
	p, err := rec.Receipt(r.ctx, "drop")
	require.NoError(t, err)
	require.Equal(t, head.Seq, p.Head.Seq)
	events := int64(0)
	for _, n := range p.Events {
		events += n
	}
	require.Equal(t, head.Seq, events)
	b := r.fold()
	require.Positive(t, b.Waiting)
	require.Equal(t, b.Waiting, p.Reservations[sale.StateWaiting], "who still is in line")
	require.Len(t, p.Places, len(b.Stock))
	for _, place := range p.Places {
		l := b.Stock[sale.Place{SKU: place.SKU, Location: place.Location}]
		require.Equal(t, []int64{l.OnHand, l.Held, l.Sold}, []int64{place.OnHand, place.Held, place.Sold})
		require.Equal(t, l.Held, place.Reserved-place.Confirmed-place.Released-place.Expired)
		require.Equal(t, l.Sold, place.Confirmed-place.Cancelled)
	}

	// As a file, and after more has happened.
	text, err := json.MarshalIndent(p, "", "  ")
	require.NoError(t, err)
	var read Receipt
	require.NoError(t, json.Unmarshal(text, &read))
	check := func(want string) {
		t.Helper()
		_, err := rec.CheckReceipt(r.ctx, &read)
		if want == "" {
			require.NoError(t, err)
			return
		}
		require.ErrorIs(t, err, ErrReceipt)
		require.ErrorContains(t, err, want)
	}
	check("")
	r.traffic(50)
	r.drainAll()
	after, err := rec.CheckReceipt(r.ctx, &read)
	require.NoError(t, err)
	require.Positive(t, after)

	s := r.memory.shards[r.id]
	whole, end := slices.Clone(s.entries), s.head
	for name, c := range map[string]struct {
		spoil func()
		want  string
	}{
		"cut":                  {func() { s.entries = s.entries[:p.Head.Seq-1] }, "was cut"},
		"a row altered":        {func() { s.entries[20].Actor = "mallory" }, "was altered"},
		"altered and rehashed": {func() { s.entries[20].Actor = "mallory"; s.rehash(t, r.id) }, "another past"},
		"altered after it":     {func() { s.entries[p.Head.Seq+5].Actor = "mallory" }, "was altered"},
		"another last event": {func() {
			s.entries = s.entries[:p.Head.Seq]
			s.entries[p.Head.Seq-1].Mark = "another"
			s.rehash(t, r.id)
		}, "another past"},
		"the receipt altered": {func() { read.Places[0].Sold++ }, "was changed"},
	} {
		t.Run(name, func(t *testing.T) {
			c.spoil()
			check(c.want)
		})
		s.entries, s.head, read = slices.Clone(whole), end, Receipt{}
		require.NoError(t, json.Unmarshal(text, &read))
	}
	check("")
	_, err = rec.Receipt(r.ctx, "no-such-sale")
	require.ErrorIs(t, err, ledger.ErrNotFound)
}
