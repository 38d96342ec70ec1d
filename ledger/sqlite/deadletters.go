package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"flashgate/ledger"
)

// DeadLetters reads dead letters in the order of their IDs.
func (l *Ledger) DeadLetters(ctx context.Context, q ledger.LetterQuery) ([]ledger.DeadLetter, error) {
	limit := q.Limit
	if limit <= 0 {
		limit = math.MaxInt32
	}
	return collect(ctx, l.readers, func(rows *sql.Rows) (ledger.DeadLetter, error) {
		var d ledger.DeadLetter
		var at, settled int64
		err := rows.Scan(&d.ID, &at, &d.Shard.Sale, &d.Shard.Number, &d.Epoch, &d.Seq, &d.Mark, &d.Kind, &d.Event,
			&d.Reason, &d.State, &settled, &d.Actor, &d.Resolution)
		d.At = fromMicros(at)
		if settled != 0 {
			d.SettledAt = fromMicros(settled)
		}
		return d, err
	}, `SELECT id, at_us, sale, shard, epoch, seq, mark, kind, event, reason, state, settled_at_us, actor, resolution
		FROM dead_letters WHERE id > ?1 AND (?2 = 0 OR id = ?2) AND (?3 = '' OR sale = ?3)
		AND (NOT ?4 OR state = 'open') ORDER BY id LIMIT ?5`, q.After, q.ID, q.Sale, q.OpenOnly, limit)
}

// Taints counts the open poison letters of each shard that has some.
func (l *Ledger) Taints(ctx context.Context) (map[ledger.Shard]int, error) {
	type taint struct {
		shard ledger.Shard
		n     int
	}
	all, err := collect(ctx, l.readers, func(rows *sql.Rows) (t taint, err error) {
		err = rows.Scan(&t.shard.Sale, &t.shard.Number, &t.n)
		return t, err
	}, `SELECT sale, shard, count(*) FROM dead_letters WHERE kind = 'poison' AND state = 'open' GROUP BY sale, shard`)
	taints := make(map[ledger.Shard]int, len(all))
	for _, t := range all {
		taints[t.shard] = t.n
	}
	return taints, err
}

// Bury keeps a poison letter, open.
func (t *tx) Bury(ctx context.Context, d ledger.DeadLetter) error {
	return t.once(func() error {
		_, err := t.conn.ExecContext(ctx, `INSERT INTO dead_letters
			(at_us, sale, shard, epoch, seq, mark, kind, event, reason) VALUES (?, ?, ?, ?, ?, ?, 'poison', ?, ?)`,
			micros(time.Now()), t.shard.Sale, t.shard.Number, d.Epoch, d.Seq, d.Mark, d.Event, d.Reason)
		return err
	})
}

// Taints counts the shard's open poison letters.
func (t *tx) Taints(ctx context.Context) (n int, err error) {
	err = t.once(func() error {
		return t.conn.QueryRowContext(ctx, `SELECT count(*) FROM dead_letters
			WHERE sale = ? AND shard = ? AND kind = 'poison' AND state = 'open'`, t.shard.Sale, t.shard.Number).Scan(&n)
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
		err := t.conn.QueryRowContext(ctx, `SELECT state FROM dead_letters WHERE id = ? AND sale = ? AND shard = ?`,
			id, t.shard.Sale, t.shard.Number).Scan(&was)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("dead letter %d: %w", id, ledger.ErrNotFound)
		case err != nil:
			return err
		case was != ledger.LetterOpen:
			return fmt.Errorf("dead letter %d: %w", id, ledger.ErrSettled)
		}
		if _, err := t.conn.ExecContext(ctx, `UPDATE dead_letters SET state = ?, settled_at_us = ?, actor = ?,
			resolution = ? WHERE id = ?`, string(state), micros(d.SettledAt), actor, reason, id); err != nil {
			return err
		}
		return addAudit(ctx, t.conn, ledger.LetterAudit(&d))
	})
}
