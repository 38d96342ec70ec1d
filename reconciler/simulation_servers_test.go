package reconciler

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// node is a Redis in this process.
type node struct {
	s      *simulation
	server *miniredis.Miniredis
	rdb    *redis.Client
}

func (s *simulation) newNode() *node {
	server := miniredis.NewMiniRedis()
	n := &node{s: s, server: server, rdb: redis.NewClient(&redis.Options{
		Dialer: func(context.Context, string, string) (net.Conn, error) { return server.Dial() },
		// A wait is an actor's, never the connection's.
		MaxRetries: -1, PoolSize: 1, ReadTimeout: -1, WriteTimeout: -1, DisableIdentity: true, Protocol: 2,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})}
	if err := lua.New(n.rdb, lua.Options{}).Ready(context.Background()); err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (n *node) close() {
	n.rdb.Close()
	n.server.Close()
}

// newClient is everybody's: it never connects, because each command ends at the turnstile.
func (s *simulation) newClient() *redis.Client {
	c := redis.NewClient(&redis.Options{
		MaxRetries: -1, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	c.AddHook(turnstile{s})
	return c
}

// do runs a command of an actor, at the time of this Redis.
func (n *node) do(cmd redis.Cmder) error {
	n.server.SetTime(time.Now().Add(n.s.skew))
	return n.rdb.Process(context.Background(), cmd)
}

// snapshot is everything in a Redis.
type snapshot struct {
	texts   map[string]string
	lives   map[string]time.Duration
	hashes  map[string]map[string]string
	lists   map[string][]string
	sorted  map[string]map[string]float64
	streams map[string][]miniredis.StreamEntry
}

func (n *node) copy() snapshot {
	c := snapshot{
		map[string]string{},
		map[string]time.Duration{},
		map[string]map[string]string{},
		map[string][]string{},
		map[string]map[string]float64{},
		map[string][]miniredis.StreamEntry{},
	}
	must := func(err error) { require.NoError(n.s.t, err) }
	for _, key := range n.server.Keys() {
		var err error
		switch kind := n.server.Type(key); kind {
		case "hash":
			fields, err := n.server.HKeys(key)
			must(err)
			c.hashes[key] = map[string]string{}
			for _, f := range fields {
				c.hashes[key][f] = n.server.HGet(key, f)
			}
		case "list":
			values, e := n.server.List(key)
			c.lists[key], err = slices.Clone(values), e
		case "zset":
			members, e := n.server.SortedSet(key)
			c.sorted[key], err = maps.Clone(members), e
		case "stream":
			entries, e := n.server.Stream(key)
			c.streams[key], err = slices.Clone(entries), e
		case "string":
			c.lives[key] = n.server.TTL(key)
			c.texts[key], err = n.server.Get(key)
		default:
			n.s.fail("%s is a %s", key, kind)
		}
		must(err)
	}
	return c
}

// goBackTo makes the Redis what it was at a copy.
func (n *node) goBackTo(c snapshot) {
	must := func(err error) { require.NoError(n.s.t, err) }
	n.server.FlushAll()
	for key, text := range c.texts {
		must(n.server.Set(key, text))
		n.server.SetTTL(key, c.lives[key])
	}
	for key, fields := range c.hashes {
		for f, v := range fields {
			n.server.HSet(key, f, v)
		}
	}
	for key, values := range c.lists {
		_, err := n.server.RPush(key, values...)
		must(err)
	}
	for key, members := range c.sorted {
		for m, score := range members {
			_, err := n.server.ZAdd(key, score, m)
			must(err)
		}
	}
	for key, entries := range c.streams {
		for _, e := range entries {
			_, err := n.server.XAdd(key, e.ID, e.Values)
			must(err)
		}
	}
}

// turnstile makes each command a step of the actor whose it is. Commands of nobody, as of the audit,
// pass.
type turnstile struct{ s *simulation }

func (h turnstile) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h turnstile) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		a := actorOf(ctx)
		if a == nil {
			return h.s.node.do(cmd)
		}
		do := func() error { return a.node.do(cmd) }
		args, at := slices.Clone(cmd.Args()), a.node
		later := func() { _ = at.do(redis.NewCmd(context.Background(), args...)) }
		return a.step(ctx, a.doing, do, later)
	}
}

func (h turnstile) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			if err := h.ProcessHook(nil)(ctx, cmd); err != nil {
				return err
			}
		}
		return nil
	}
}

// namedShard gives the steps of a reconciler their names, and hands on what trim announces.
type namedShard struct {
	shard
	s *simulation
}

func (n namedShard) name(ctx context.Context, format string, args ...any) {
	if a := actorOf(ctx); a != nil {
		a.doing = fmt.Sprintf(format, args...)
	}
}

func (n namedShard) Look(ctx context.Context, epoch, after int64, limit int) (lua.Look, error) {
	n.name(ctx, "look after %d-%d", epoch, after)
	return n.shard.Look(ctx, epoch, after, limit)
}

func (n namedShard) Events(ctx context.Context, epoch, after int64, limit int) ([]lua.RawEvent, error) {
	n.name(ctx, "events after %d-%d", epoch, after)
	return n.shard.Events(ctx, epoch, after, limit)
}

func (n namedShard) Apply(ctx context.Context, base *sale.Version, v sale.Version) (lua.ApplyAnswer, error) {
	n.name(ctx, "apply version %d", v.Version)
	return n.shard.Apply(ctx, base, v)
}

func (n namedShard) Trim(
	ctx context.Context, epoch, watermark int64, mark string, tail int64, returned ...string,
) (sale.Outcome, error) {
	n.name(ctx, "trim to %d-%d", epoch, watermark)
	o, err := n.shard.Trim(ctx, epoch, watermark, mark, tail, returned...)
	if err == nil && o == sale.Done {
		for _, d := range n.s.doors {
			if n.s.rng.IntN(4) > 0 { // It may be lost.
				d.announced(epoch, watermark)
			}
		}
	}
	return o, err
}

func (n namedShard) Expire(ctx context.Context, limit int) (lua.Expiry, error) {
	n.name(ctx, "expire")
	x, err := n.shard.Expire(ctx, limit)
	if err == nil && x.Head.Outcome == sale.Done {
		n.s.swept = time.Now()
	}
	return x, err
}

func (n namedShard) Close(ctx context.Context, token, reason string) (lua.ClosedShard, error) {
	n.name(ctx, "close: %s", reason)
	return n.shard.Close(ctx, token, reason)
}

func (n namedShard) CloseOver(ctx context.Context, token, reason, building string) (lua.ClosedShard, error) {
	n.name(ctx, "close: %s", reason)
	return n.shard.CloseOver(ctx, token, reason, building)
}

func (n namedShard) Build(ctx context.Context, epoch int64, token string, k int, part lua.Slice) (sale.Outcome, error) {
	n.name(ctx, "build slice %d of epoch %d", k, epoch)
	return n.shard.Build(ctx, epoch, token, k, part)
}

func (n namedShard) Flip(ctx context.Context, b *sale.Books, token string, slices int, notAfterMs int64) (sale.Outcome, error) {
	n.name(ctx, "flip to epoch %d", b.Epoch)
	return n.shard.Flip(ctx, b, token, slices, notAfterMs)
}

func (n namedShard) DropPast(ctx context.Context) error {
	n.name(ctx, "drop past epochs")
	return n.shard.DropPast(ctx)
}

// simulatedLedger makes each call to the ledger a step.
type simulatedLedger struct {
	ledger.Ledger
	s *simulation
}

func (l simulatedLedger) Head(ctx context.Context, id ledger.Shard) (h ledger.Head, err error) {
	err = actorOf(ctx).step(ctx, "head", func() (err error) { h, err = l.Ledger.Head(ctx, id); return err }, nil)
	return h, err
}

func (l simulatedLedger) Events(ctx context.Context, id ledger.Shard, after int64, limit int) (page []ledger.Entry, err error) {
	err = actorOf(ctx).step(ctx, fmt.Sprintf("events after %d", after), func() (err error) {
		page, err = l.Ledger.Events(ctx, id, after, limit)
		return err
	}, nil)
	return page, err
}

func (l simulatedLedger) Marks(ctx context.Context, id ledger.Shard, seqs []int64) (marks map[int64]string, err error) {
	err = actorOf(ctx).step(ctx, fmt.Sprintf("marks of %v", seqs), func() (err error) {
		marks, err = l.Ledger.Marks(ctx, id, seqs)
		return err
	}, nil)
	return marks, err
}

func (l simulatedLedger) PendingVersions(ctx context.Context) (all []sale.Version, err error) {
	err = actorOf(ctx).step(ctx, "pending versions", func() (err error) {
		all, err = l.Ledger.PendingVersions(ctx)
		return err
	}, nil)
	return all, err
}

// stepBegin waits for the lock.
const stepBegin = "begin"

func (l simulatedLedger) Begin(ctx context.Context, id ledger.Shard) (ledger.Tx, error) {
	var tx *simulatedTx
	err := actorOf(ctx).step(ctx, stepBegin, func() error {
		t, err := l.Ledger.Begin(ctx, id)
		if err == nil {
			tx = &simulatedTx{Tx: t, s: l.s, a: actorOf(ctx)}
			l.s.holder = tx
		}
		return err
	}, nil)
	if err != nil && tx != nil {
		tx.Rollback() // The session ends with its connection.
	}
	if err != nil {
		return nil, err
	}
	return tx, nil
}

type simulatedTx struct {
	ledger.Tx
	s *simulation
	a *actor
}

func (t *simulatedTx) Append(ctx context.Context, events []sale.Event) error {
	return t.a.step(ctx, fmt.Sprintf("append %d events from %d", len(events), events[0].Seq), func() error {
		return t.Tx.Append(ctx, events)
	}, nil)
}

func (t *simulatedTx) SetAside(ctx context.Context, events []sale.Event, reason string) error {
	return t.a.step(ctx, fmt.Sprintf("set aside %d events", len(events)), func() error {
		return t.Tx.SetAside(ctx, events, reason)
	}, nil)
}

func (t *simulatedTx) Bury(context.Context, ledger.DeadLetter) error {
	t.s.found("an event is a dead letter, and nobody wrote one")
	return errInjected
}

func (t *simulatedTx) Versions(ctx context.Context) (all []sale.Version, err error) {
	err = t.a.step(ctx, "versions", func() (err error) { all, err = t.Tx.Versions(ctx); return err }, nil)
	return all, err
}

func (t *simulatedTx) Commit(ctx context.Context) error {
	head := t.Tx.Head()
	return t.a.step(ctx, fmt.Sprintf("commit %d-%d", head.Epoch, head.Seq), func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				t.s.found("the ledger took what does not fold: %v", p)
			}
		}()
		if err = t.Tx.Commit(ctx); err == nil {
			t.free()
		}
		return err
	}, nil)
}

func (t *simulatedTx) Rollback() {
	t.Tx.Rollback()
	t.free()
}

func (t *simulatedTx) free() {
	if t.s.holder == t {
		t.s.holder = nil
	}
}
