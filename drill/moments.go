//go:build unix

package drill

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"flashgate/ledger"
)

// The faults here strike at one certain moment, which chance would meet in one drill of hundreds: each is
// the moment at which one rule of recovery decides.

// redisFork makes two branches of one history, and the ledger sees the second only when it is the longer:
// seq alone would take it for what continues the first. Gateways that have seen the first would close the
// shard at once, so they are killed along with the primary.
func redisFork(ctx context.Context, w *world, s *strike) error {
	w.locks[onGateway].Lock()
	defer w.locks[onGateway].Unlock()
	old, next := w.primary, 1-w.primary
	if err := w.poll(ctx, syncTimeout, func(ctx context.Context) error { return w.synced(ctx, next) }); err != nil {
		return err
	}
	s.lostFrom, s.maybe = time.Now(), true
	w.copy.Delay(stall)
	sleep(ctx, s.Length)
	for _, g := range w.gateways {
		g.kill()
	}
	// What does not come in time makes a weaker fault, not a wrong one.
	_ = w.poll(ctx, moment, func(ctx context.Context) error { return w.drained(ctx, s) })
	if err := w.promote(ctx, next); err != nil {
		return err
	}
	w.gate.MoveTo(w.redis[next].Addr())
	for _, g := range w.gateways {
		if err := g.start(ctx); err != nil {
			return err
		}
	}
	_ = w.poll(ctx, moment, func(ctx context.Context) error { return w.overtaken(ctx, s) })
	w.books.MoveTo(w.redis[next].Addr())
	s.lostTo = time.Now()
	return w.rejoin(ctx, old)
}

// moment is how long a fault waits for its moment.
const moment = 3 * time.Second

// drained tells whether the ledger has all that the primary has of the crowd's sale.
func (w *world) drained(ctx context.Context, s *strike) error {
	ahead, err := w.ahead(ctx, s)
	if err == nil && ahead > 0 {
		err = fmt.Errorf("the ledger lacks %d events", ahead)
	}
	return err
}

// overtaken tells whether the primary has more events of the crowd's sale than the ledger.
func (w *world) overtaken(ctx context.Context, s *strike) error {
	ahead, err := w.ahead(ctx, s)
	if err == nil && ahead <= 0 {
		err = fmt.Errorf("the ledger has %d events more", -ahead)
	}
	return err
}

// ahead is by how many events the primary is ahead of the ledger, by their numbers alone.
func (w *world) ahead(ctx context.Context, s *strike) (int64, error) {
	text, err := w.ctl[w.primary].HGet(ctx, saleKey(s.sale), "seq").Result()
	if err != nil {
		return 0, err
	}
	seq, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, err
	}
	head, err := w.ledger.Head(ctx, ledger.Shard{Sale: s.sale})
	return seq - head.Seq, err
}

// redisFlushRebuild empties Redis, and again when the shard of the crowd's sale is written anew and not yet
// open: what comes of the slow rebuild must not open a shard of which half is gone.
func redisFlushRebuild(ctx context.Context, w *world, s *strike) error {
	w.locks[onNetwork].Lock()
	defer w.locks[onNetwork].Unlock()
	w.books.Delay(slowReply)
	defer w.books.Heal()
	if err := redisFlush(ctx, w, s); err != nil {
		return err
	}
	err := w.poll(ctx, w.opts.Settle, func(ctx context.Context) error {
		building, err := w.ctl[w.primary].HGet(ctx, saleKey(s.sale), "building").Result()
		_, slice, _ := strings.Cut(building, ":")
		if err == nil && (slice == "" || slice == "0") {
			err = errors.New("nothing is rebuilt yet")
		}
		return err
	})
	if err != nil {
		return err
	}
	err = w.ctl[w.primary].FlushAll(ctx).Err()
	s.lostTo = time.Now()
	return err
}

// slowReply is long enough to strike between a call and the next.
const slowReply = 250 * ms

// refuseCommits lets every transaction that appends to the ledger fail at its end, as a disk that is full
// or a serialization failure does.
const refuseCommits = `
CREATE OR REPLACE FUNCTION drill_refuse() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'refused by the drill' USING ERRCODE = 'disk_full'; END $$;
CREATE CONSTRAINT TRIGGER drill_refuse AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION drill_refuse()`

func pgRefuse(ctx context.Context, w *world, s *strike) error {
	if err := w.pg.Exec(ctx, w.database, refuseCommits); err != nil {
		return err
	}
	sleep(ctx, s.Length)
	return w.pg.Exec(ctx, w.database, `DROP TRIGGER drill_refuse ON ledger`)
}
