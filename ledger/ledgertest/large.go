package ledgertest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/sale"
)

// testLargeBatches: an implementation may write a large batch in another way than a small one, and nobody can
// tell which it was.
func testLargeBatches(t *testing.T, target Target) {
	const large = 1500
	l := target.Open(t)
	drop := NewGenerator(20, theSale)
	books := sale.NewBooks(theSale, 0) // the generator forgets what is finished
	for range 2 {
		batch := drop.Drop(large, large/2)
		Append(t, l, batch)
		for i := range batch {
			require.NoError(t, books.Apply(&batch[i]))
		}
		RequireEqual(t, l, books)
	}

	// Every type of event, and ids that are used again after they were finished in a batch before.
	other := NewGenerator(21, "other")
	for range 3 {
		Append(t, l, other.Events(2*large))
		RequireEqual(t, l, other.Books)
	}

	// One id in the middle is not finished: nothing is written, and the event is named.
	live := drop.Drop(1, 10*large)[0]
	Append(t, l, []sale.Event{live})
	before := snap(t, l)
	batch := drop.Drop(large, 10*large)
	batch[large/2].Reservation = live.Reservation
	var invalid *ledger.InvalidError
	require.ErrorAs(t, TryAppend(l, batch), &invalid)
	require.ErrorIs(t, invalid, ledger.ErrHeldTwice)
	require.Equal(t, batch[large/2].Seq, invalid.Seq)
	require.Equal(t, before, snap(t, l))
}
