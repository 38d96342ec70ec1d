//go:build unix

package drill

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// target is what a fault strikes. Faults of one target wait for each other; those of different
// targets may overlap.
type target string

const (
	onRedis      target = "redis"
	onPostgres   target = "postgres"
	onGateway    target = "gateway"
	onReconciler target = "reconciler"
	onNetwork    target = "network"
)

var targets = []target{onRedis, onPostgres, onGateway, onReconciler, onNetwork}

// fault is something that breaks. strike breaks it, waits for the planned length and heals; it
// returns when everything runs again.
type fault struct {
	name        string
	about       string
	target      target
	least, most time.Duration
	strike      func(ctx context.Context, w *world, s *strike) error
}

// strike is one injection.
type strike struct {
	planned
	began, healed time.Time
	// lostFrom and lostTo bound when Redis forgot; zero: it forgot nothing. maybe: it may have
	// forgotten nothing.
	lostFrom, lostTo time.Time
	maybe            bool
	sale             string
}

const ms = time.Millisecond

// faults in the order in which they are listed.
var faults = []fault{
	{
		"redis-kill", "the primary is killed (-9) and started again with its append-only file", onRedis,
		200 * ms, 1000 * ms, redisKill,
	},
	{"redis-flush", "FLUSHALL at the primary, and so at its replica", onRedis, 0, 0, redisFlush},
	{
		"redis-failover", "replication stalls under load, the primary is killed, the replica promoted",
		onRedis, 50 * ms, 500 * ms, redisFailover,
	},
	{
		"redis-fork", "as redis-failover, with the gateways killed too; the ledger sees the promoted copy " +
			"when that has more events than it",
		onRedis, 50 * ms, 200 * ms, redisFork,
	},
	{
		"redis-flush-rebuild", "FLUSHALL, and again while the sale is rebuilt from the first", onRedis,
		0, 0, redisFlushRebuild,
	},
	{"redis-pause", "the primary stands still (SIGSTOP)", onRedis, 300 * ms, 1500 * ms, redisPause},
	{
		"pg-kill", "PostgreSQL is killed (-9) with all sessions and started again", onPostgres,
		300 * ms, 1500 * ms, pgKill,
	},
	{"pg-pause", "PostgreSQL stands still (SIGSTOP)", onPostgres, 500 * ms, 2500 * ms, pgPause},
	{
		"pg-refuse", "PostgreSQL takes every event and refuses the commit", onPostgres,
		1000 * ms, 2500 * ms, pgRefuse,
	},
	{"gateway-kill", "a gateway is killed (-9) and started again", onGateway, 300 * ms, 1500 * ms, gatewayKill},
	{
		"reconciler-kill", "one or both reconcilers are killed (-9) and started again", onReconciler,
		300 * ms, 2000 * ms, reconcilerKill,
	},
	{
		"net-drop-reply", "what Redis answers is lost after the call had its effect", onNetwork,
		200 * ms, 1000 * ms, dropReplies,
	},
	{"net-delay", "what Redis answers comes 20 to 700 ms late", onNetwork, 500 * ms, 1500 * ms, delayReplies},
	{
		"clock", "a shard's last time seen is moved, as a step of the clock of Redis would", onRedis,
		0, 0, moveClock,
	},
}

// FaultNames lists the faults.
func FaultNames() (names []string) {
	for i := range faults {
		names = append(names, faults[i].name)
	}
	return names
}

func faultNamed(name string) *fault {
	for i := range faults {
		if faults[i].name == name {
			return &faults[i]
		}
	}
	return nil
}

// hit waits for the fault's moment and injects it. Whatever ends the drill, the fault is healed.
func (w *world) hit(ctx context.Context, s *strike) error {
	if !sleep(ctx, s.After) {
		return nil
	}
	w.locks[s.fault.target].Lock()
	defer w.locks[s.fault.target].Unlock()
	if ctx.Err() != nil {
		return nil // called off before it began
	}
	s.began = time.Now()
	err := s.fault.strike(ctx, w, s)
	s.healed = time.Now()
	if err != nil {
		return fmt.Errorf("%s: %w", s.fault.name, err)
	}
	return nil
}

func redisKill(ctx context.Context, w *world, s *strike) error {
	r := w.redis[w.primary]
	r.Kill()
	sleep(ctx, s.Length)
	return r.Restart(ctx)
}

func redisFlush(ctx context.Context, w *world, s *strike) error {
	s.lostFrom = time.Now()
	err := w.ctl[w.primary].FlushAll(ctx).Err()
	s.lostTo = time.Now()
	return err
}

func redisPause(ctx context.Context, w *world, s *strike) error {
	if err := w.redis[w.primary].Pause(); err != nil {
		return err
	}
	sleep(ctx, s.Length)
	return w.redis[w.primary].Resume()
}

// stall is longer than any fault: what waits in the proxy is cut before.
const stall = time.Hour

func redisFailover(ctx context.Context, w *world, s *strike) error {
	old, next := w.primary, 1-w.primary
	err := w.poll(ctx, syncTimeout, func(ctx context.Context) error { return w.synced(ctx, next) })
	if err != nil {
		return err
	}
	s.lostFrom, s.maybe = time.Now(), true
	w.copy.Delay(stall)
	sleep(ctx, s.Length)
	if err := w.promote(ctx, next); err != nil {
		return err
	}
	addr := w.redis[next].Addr()
	// Who learns of it first is drawn: a gateway may sell before the reconcilers see the new primary.
	first, second := w.gate, w.books
	if s.Pick%2 == 1 {
		first, second = second, first
	}
	first.MoveTo(addr)
	sleep(ctx, time.Duration(s.Pick/2%200)*ms)
	second.MoveTo(addr)
	s.lostTo = time.Now()
	return w.rejoin(ctx, old)
}

// promote kills the primary and makes a replica the next one.
func (w *world) promote(ctx context.Context, next int) error {
	w.redis[w.primary].Kill()
	if err := w.ctl[next].Do(ctx, "REPLICAOF", "NO", "ONE").Err(); err != nil {
		return err
	}
	w.primary = next
	return nil
}

// rejoin makes what was the primary the replica.
func (w *world) rejoin(ctx context.Context, old int) error {
	w.copy.MoveTo(w.redis[w.primary].Addr())
	w.copy.Heal()
	if err := w.redis[old].Restart(ctx); err != nil {
		return err
	}
	return w.follow(ctx, old)
}

func pgKill(ctx context.Context, w *world, s *strike) error {
	w.pg.Kill()
	sleep(ctx, s.Length)
	return w.pg.Start(ctx)
}

func pgPause(ctx context.Context, w *world, s *strike) error {
	w.pg.Pause()
	sleep(ctx, s.Length)
	w.pg.Resume()
	return nil
}

func gatewayKill(ctx context.Context, w *world, s *strike) error {
	g := w.gateways[s.Pick%uint64(len(w.gateways))]
	g.kill()
	sleep(ctx, s.Length)
	return g.start(ctx)
}

func reconcilerKill(ctx context.Context, w *world, s *strike) error {
	struck := w.reconcilers[:]
	if n := s.Pick % 3; n < 2 {
		struck = struck[n : n+1]
	}
	for _, r := range struck {
		r.kill()
	}
	sleep(ctx, s.Length)
	for _, r := range struck {
		if err := r.start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// dropReplies strikes the gateways, and one time in three the reconcilers too.
func dropReplies(ctx context.Context, w *world, s *strike) error {
	w.gate.LoseReplies()
	defer w.gate.Heal()
	if s.Pick%3 == 0 {
		w.books.LoseReplies()
		defer w.books.Heal()
	}
	sleep(ctx, s.Length)
	return nil
}

// delayReplies strikes as dropReplies does. More than the timeout of the gateways is an unknown outcome.
func delayReplies(ctx context.Context, w *world, s *strike) error {
	late := time.Duration(20+s.Pick/3%681) * ms
	w.gate.Delay(late)
	defer w.gate.Heal()
	if s.Pick%3 == 0 {
		w.books.Delay(late)
		defer w.books.Heal()
	}
	sleep(ctx, s.Length)
	return nil
}

// saleKey is the key of a sale's own hash.
func saleKey(id string) string { return "fg:{" + id + ":0}:sale" }

// moveLastSeen adds ARGV[1] ms to the last time seen of an open shard.
var moveLastSeen = redis.NewScript(`
if string.sub(redis.call('HGET', KEYS[1], 'door') or '', 1, 4) ~= 'open' then
  return redis.error_reply('CLOSED the shard is not open')
end
return redis.call('HINCRBY', KEYS[1], 'last_ms', ARGV[1])`)

// moveClock moves the last time seen of the crowd's sale. Earlier by more than the largest step, the
// shard was last seen alive too long ago, as if the clock had jumped ahead: it must be closed and
// rebuilt. Later, the clock seems to have stepped back: time stands still until it has caught up.
func moveClock(ctx context.Context, w *world, s *strike) error {
	by := -(maxClockStep + time.Second + time.Duration(s.Pick/2%5000)*ms)
	if s.Pick%2 == 1 {
		by = 500*ms + time.Duration(s.Pick/2%2000)*ms
	}
	// A shard that is being rebuilt takes its time from the ledger: wait until it is open.
	return w.poll(ctx, w.opts.Settle, func(ctx context.Context) error {
		return moveLastSeen.Run(ctx, w.ctl[w.primary], []string{saleKey(s.sale)}, by.Milliseconds()).Err()
	})
}
