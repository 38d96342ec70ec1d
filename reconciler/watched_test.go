package reconciler

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// watch is told of every call of a reconciler to Redis and to the ledger before it is made; an error
// takes the place of the call.
type watch struct {
	before func(call string) error
	mu     sync.Mutex
	tx     ledger.Tx // the open transaction
}

// watched puts a watch on a reconciler.
func watched(w *watch) func(*Reconciler) {
	return func(rec *Reconciler) {
		rec.ledger = watchedLedger{rec.ledger, w}
		open := rec.open
		rec.open = func(id ledger.Shard) shard { return watchedShard{open(id), w} }
	}
}

func (w *watch) holds(tx ledger.Tx) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tx = tx
}

func (w *watch) locks() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tx != nil
}

// abort ends the open transaction as the database does when its program is silent for too long.
func (w *watch) abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tx != nil {
		w.tx.Rollback()
		w.tx = nil
	}
}

type watchedShard struct {
	shard
	w *watch
}

func (s watchedShard) Look(ctx context.Context, epoch, after int64, limit int) (lua.Look, error) {
	if err := s.w.before("look"); err != nil {
		return lua.Look{}, err
	}
	return s.shard.Look(ctx, epoch, after, limit)
}

func (s watchedShard) Events(ctx context.Context, epoch, after int64, limit int) ([]lua.RawEvent, error) {
	if err := s.w.before("page"); err != nil {
		return nil, err
	}
	return s.shard.Events(ctx, epoch, after, limit)
}

func (s watchedShard) Trim(
	ctx context.Context, epoch, watermark int64, mark string, tail int64, returned ...string,
) (sale.Outcome, error) {
	if err := s.w.before("trim"); err != nil {
		return "", err
	}
	return s.shard.Trim(ctx, epoch, watermark, mark, tail, returned...)
}

func (s watchedShard) Close(ctx context.Context, token, reason string) (lua.ClosedShard, error) {
	if err := s.w.before("close"); err != nil {
		return lua.ClosedShard{}, err
	}
	return s.shard.Close(ctx, token, reason)
}

func (s watchedShard) CloseOver(ctx context.Context, token, reason, building string) (lua.ClosedShard, error) {
	if err := s.w.before("close"); err != nil {
		return lua.ClosedShard{}, err
	}
	return s.shard.CloseOver(ctx, token, reason, building)
}

func (s watchedShard) Build(ctx context.Context, epoch int64, token string, k int, part lua.Slice) (sale.Outcome, error) {
	if err := s.w.before("build"); err != nil {
		return "", err
	}
	return s.shard.Build(ctx, epoch, token, k, part)
}

func (s watchedShard) Flip(ctx context.Context, b *sale.Books, token string, slices int, notAfterMs int64) (sale.Outcome, error) {
	if err := s.w.before("flip"); err != nil {
		return "", err
	}
	return s.shard.Flip(ctx, b, token, slices, notAfterMs)
}

func (s watchedShard) DropPast(ctx context.Context) error {
	if err := s.w.before("drop past"); err != nil {
		return err
	}
	return s.shard.DropPast(ctx)
}

type watchedLedger struct {
	ledger.Ledger
	w *watch
}

func (l watchedLedger) Head(ctx context.Context, id ledger.Shard) (ledger.Head, error) {
	if err := l.w.before("head"); err != nil {
		return ledger.Head{}, err
	}
	return l.Ledger.Head(ctx, id)
}

func (l watchedLedger) Events(ctx context.Context, id ledger.Shard, after int64, limit int) ([]ledger.Entry, error) {
	if err := l.w.before("events"); err != nil {
		return nil, err
	}
	return l.Ledger.Events(ctx, id, after, limit)
}

func (l watchedLedger) Marks(ctx context.Context, id ledger.Shard, seqs []int64) (map[int64]string, error) {
	if err := l.w.before("marks"); err != nil {
		return nil, err
	}
	return l.Ledger.Marks(ctx, id, seqs)
}

func (l watchedLedger) Begin(ctx context.Context, id ledger.Shard) (ledger.Tx, error) {
	if err := l.w.before("begin"); err != nil {
		return nil, err
	}
	tx, err := l.Ledger.Begin(ctx, id)
	if err != nil {
		return nil, err
	}
	l.w.holds(tx)
	return watchedTx{tx, l.w}, nil
}

type watchedTx struct {
	ledger.Tx
	w *watch
}

func (t watchedTx) Append(ctx context.Context, events []sale.Event) error {
	if err := t.w.before("append"); err != nil {
		return err
	}
	return t.Tx.Append(ctx, events)
}

func (t watchedTx) SetAside(ctx context.Context, events []sale.Event, reason string) error {
	if err := t.w.before("set aside"); err != nil {
		return err
	}
	return t.Tx.SetAside(ctx, events, reason)
}

func (t watchedTx) Taints(ctx context.Context) (int, error) {
	if err := t.w.before("taints"); err != nil {
		return 0, err
	}
	return t.Tx.Taints(ctx)
}

func (t watchedTx) Commit(ctx context.Context) error {
	if err := t.w.before("commit"); err != nil {
		return err
	}
	err := t.Tx.Commit(ctx)
	if err == nil {
		t.w.holds(nil)
	}
	return err
}

func (t watchedTx) Rollback() {
	t.Tx.Rollback()
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	if t.w.tx == t.Tx {
		t.w.tx = nil
	}
}

// clone is the ledger as it is now, to go on with twice. No transaction may be open.
func (m *memory) clone() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := newMemory()
	c.versions = slices.Clone(m.versions)
	for id, s := range m.shards {
		to := c.shard(id)
		to.head, to.entries, to.aside, to.buried = s.head, slices.Clone(s.entries), slices.Clone(s.aside), slices.Clone(s.buried)
		for i := range to.entries {
			if err := to.books.Apply(&to.entries[i].Event); err != nil {
				panic(err)
			}
		}
	}
	return c
}

// copied is everything in a Redis, read by commands that miniredis has too.
type copied map[string]copiedKey

type copiedKey struct {
	text    string
	ttl     time.Duration
	hash    map[string]string
	list    []any
	sorted  []redis.Z
	entries []redis.XMessage
}

func (r *rig) copy() copied {
	r.t.Helper()
	all := copied{}
	keys, err := r.rdb.Keys(r.ctx, "fg:*").Result()
	require.NoError(r.t, err)
	for _, key := range keys {
		var c copiedKey
		switch kind := r.rdb.Type(r.ctx, key).Val(); kind {
		case "hash":
			c.hash = r.rdb.HGetAll(r.ctx, key).Val()
		case "list":
			for _, v := range r.rdb.LRange(r.ctx, key, 0, -1).Val() {
				c.list = append(c.list, v)
			}
		case "zset":
			c.sorted = r.rdb.ZRangeWithScores(r.ctx, key, 0, -1).Val()
		case "stream":
			c.entries = r.rdb.XRange(r.ctx, key, "-", "+").Val()
		case "string":
			c.text, c.ttl = r.rdb.Get(r.ctx, key).Val(), max(r.rdb.PTTL(r.ctx, key).Val(), 0)
		default:
			require.NoError(r.t, errors.New(kind))
		}
		all[key] = c
	}
	return all
}

// goBackTo makes the Redis what it was at a copy, as one step.
func (r *rig) goBackTo(all copied) {
	r.t.Helper()
	_, err := r.rdb.TxPipelined(r.ctx, func(p redis.Pipeliner) error {
		p.FlushDB(r.ctx)
		for _, key := range slices.Sorted(maps.Keys(all)) {
			c := all[key]
			switch {
			case c.hash != nil:
				p.HSet(r.ctx, key, c.hash)
			case len(c.list) > 0:
				p.RPush(r.ctx, key, c.list...)
			case len(c.sorted) > 0:
				p.ZAdd(r.ctx, key, c.sorted...)
			case len(c.entries) > 0:
				for _, e := range c.entries {
					p.XAdd(r.ctx, &redis.XAddArgs{Stream: key, ID: e.ID, Values: e.Values})
				}
			case c.text != "":
				p.Set(r.ctx, key, c.text, c.ttl)
			}
		}
		return nil
	})
	require.NoError(r.t, err)
	r.gate = lua.New(r.rdb, lua.Options{}).Shard("drop", 0)
}
