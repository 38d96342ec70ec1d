package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"flashgate/ledger"
)

// DeadLetters reads dead letters in the order of their IDs.
func (l *Ledger) DeadLetters(ctx context.Context, q ledger.LetterQuery) ([]ledger.DeadLetter, error) {
	limit := q.Limit
	if limit <= 0 {
		limit = math.MaxInt32
	}
	rows, err := l.pool.Query(ctx, `SELECT id, at, sale, shard, epoch, seq, mark, kind, event, reason, state,
		settled_at, actor, resolution FROM dead_letters WHERE id > $1 AND ($2::bigint = 0 OR id = $2)
		AND ($3::text = '' OR sale = $3) AND (NOT $4::boolean OR state = 'open') ORDER BY id LIMIT $5`,
		q.After, q.ID, q.Sale, q.OpenOnly, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.DeadLetter, error) {
		var d ledger.DeadLetter
		var settled *time.Time
		err := row.Scan(&d.ID, &d.At, &d.Shard.Sale, &d.Shard.Number, &d.Epoch, &d.Seq, &d.Mark, &d.Kind, &d.Event,
			&d.Reason, &d.State, &settled, &d.Actor, &d.Resolution)
		if d.At = d.At.UTC(); settled != nil {
			d.SettledAt = settled.UTC()
		}
		return d, err
	})
}

// Taints counts the open poison letters of each shard that has some.
func (l *Ledger) Taints(ctx context.Context) (map[ledger.Shard]int, error) {
	rows, err := l.pool.Query(ctx, `SELECT sale, shard, count(*)::integer FROM dead_letters
		WHERE kind = 'poison' AND state = 'open' GROUP BY sale, shard`)
	if err != nil {
		return nil, err
	}
	taints := map[ledger.Shard]int{}
	var shard ledger.Shard
	var n int
	_, err = pgx.ForEachRow(rows, []any{&shard.Sale, &shard.Number, &n}, func() error {
		taints[shard] = n
		return nil
	})
	return taints, err
}

// Bury keeps a poison letter, open.
func (t *tx) Bury(ctx context.Context, d ledger.DeadLetter) error {
	return t.once(func() error {
		_, err := t.tx.Exec(ctx, `INSERT INTO dead_letters (sale, shard, epoch, seq, mark, kind, event, reason)
			VALUES ($1, $2, $3, $4, $5, 'poison', $6, $7)`,
			t.shard.Sale, t.shard.Number, d.Epoch, d.Seq, d.Mark, d.Event, d.Reason)
		return err
	})
}

// Taints counts the shard's open poison letters.
func (t *tx) Taints(ctx context.Context) (n int, err error) {
	err = t.once(func() error {
		return t.tx.QueryRow(ctx, `SELECT count(*)::integer FROM dead_letters
			WHERE sale = $1 AND shard = $2 AND kind = 'poison' AND state = 'open'`,
			t.shard.Sale, t.shard.Number).Scan(&n)
	})
	return n, err
}

// Settle ends an open letter, with its audit entry.
func (t *tx) Settle(ctx context.Context, id int64, state ledger.LetterState, actor, reason string) error {
	return t.once(func() error {
		d := ledger.DeadLetter{
			ID: id, Shard: t.shard, State: state, SettledAt: time.Now(), Actor: actor, Resolution: reason,
		}
		var was ledger.LetterState
		err := t.tx.QueryRow(ctx, `SELECT state FROM dead_letters WHERE id = $1 AND sale = $2 AND shard = $3
			FOR UPDATE`, id, t.shard.Sale, t.shard.Number).Scan(&was)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("dead letter %d: %w", id, ledger.ErrNotFound)
		case err != nil:
			return err
		case was != ledger.LetterOpen:
			return fmt.Errorf("dead letter %d: %w", id, ledger.ErrSettled)
		}
		if _, err := t.tx.Exec(ctx, `UPDATE dead_letters SET state = $2, settled_at = $3, actor = $4, resolution = $5
			WHERE id = $1`, id, string(state), d.SettledAt, actor, reason); err != nil {
			return err
		}
		_, err = t.tx.Exec(ctx, insertAudit, auditArgs(ledger.LetterAudit(&d))...)
		return err
	})
}
