package gateway

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/ledger/sqlite"
	"flashgate/sale"
)

func testLedger(t *testing.T) ledger.Ledger {
	t.Helper()
	l, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), sqlite.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// awayLedger can be told to go away.
type awayLedger struct {
	ledger.Ledger
	away atomic.Bool
}

var errAway = errors.New("the ledger is away")

func (l *awayLedger) Ping(ctx context.Context) error {
	if l.away.Load() {
		return errAway
	}
	return l.Ledger.Ping(ctx)
}

func (l *awayLedger) Sales(ctx context.Context) ([]sale.Version, error) {
	if l.away.Load() {
		return nil, errAway
	}
	return l.Ledger.Sales(ctx)
}

func (l *awayLedger) Marks(ctx context.Context, s ledger.Shard, seqs []int64) (map[int64]string, error) {
	if l.away.Load() {
		return nil, errAway
	}
	return l.Ledger.Marks(ctx, s, seqs)
}
