package ledgertest

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/sale"
)

// testProjections guards what a verification compares with the fold: every page is that of the head
// that it names, while batches are appended.
func testProjections(t *testing.T, target Target) {
	l := target.Open(t)
	ctx := within(t, 30*time.Second)
	none, err := l.Projections(ctx, shard, "", 10)
	require.NoError(t, err)
	require.Zero(t, none.Head.Seq)
	require.Empty(t, none.Reservations)

	events := NewGenerator(9, theSale).Events(1000)
	at := map[int64]*sale.Books{} // the fold up to each head that a page has named
	done := make(chan error, 1)
	go func() {
		for b := range slices.Chunk(events, 50) {
			if err := TryAppend(l, b); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	fold := func(seq int64) *sale.Books {
		if at[seq] == nil {
			b := sale.NewBooks(theSale, 0)
			for i := range events[:seq] {
				require.NoError(t, b.Apply(&events[i]))
			}
			at[seq] = b
		}
		return at[seq]
	}
	finished := false
	for !finished {
		select {
		case err := <-done:
			require.NoError(t, err)
			finished = true
		default:
		}
		after := ""
		for {
			p, err := l.Projections(ctx, shard, after, 7)
			require.NoError(t, err)
			b := fold(p.Head.Seq)
			require.Equal(t, b.Mark, p.Head.Mark)
			require.Equal(t, b.Stock, p.Stock)
			want := []string{}
			for _, id := range slices.Sorted(maps.Keys(b.Reservations)) {
				if id > after {
					want = append(want, id)
				}
			}
			require.Equal(t, want[:min(7, len(want))], ids(p))
			for i := range p.Reservations {
				require.Equal(t, *b.Reservations[p.Reservations[i].ID], p.Reservations[i])
			}
			if len(p.Reservations) < 7 {
				break
			}
			after = p.Reservations[6].ID
		}
	}
}

func ids(p ledger.Projections) []string {
	all := make([]string, len(p.Reservations))
	for i := range p.Reservations {
		all[i] = p.Reservations[i].ID
	}
	return all
}
