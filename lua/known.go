package lua

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"flashgate/sale"
)

// Known tells of 1 to MaxBatch ids, in order, whether there is a record, without reading it; one of a finished
// reservation whose time is over may still be there. Where the head says something else than DONE, nothing is
// known.
func (s *Shard) Known(ctx context.Context, ids ...string) ([]bool, Head, error) {
	if len(ids) == 0 || len(ids) > MaxBatch {
		return nil, Head{}, fmt.Errorf("known: %d ids, must be 1 to %d", len(ids), MaxBatch)
	}
	h, records, err := s.ask(ctx, func(e *era) (Head, []string, error) { return s.readRecords(ctx, e, ids) })
	if err != nil {
		return nil, h, err
	}
	known := make([]bool, len(ids))
	for i := range records {
		known[i] = records[i] != ""
	}
	return known, h, nil
}

// readRecords reads the records of an era, "" for none, and then the head of the shard, by plain commands in one
// round trip: a script would cost Redis twice as much. An epoch that is the shard's after the records were
// read was so before. Its time is what the last script said, gone on.
func (s *Shard) readRecords(ctx context.Context, e *era, ids []string) (Head, []string, error) {
	args := make([]any, 2, 2+len(ids))
	args[0], args[1] = "hmget", &e.keys[recordsKey]
	for i := range ids {
		args = append(args, &ids[i])
	}
	records := redis.NewStringSliceCmd(ctx, args...)
	head := redis.NewStringSliceCmd(ctx, "hmget", &e.keys[saleKey], "epoch", "seq", "last_ms", "door")
	pipe := s.store.rdb.Pipeline()
	_, _ = pipe.Process(ctx, records), pipe.Process(ctx, head) // as Exec says
	if _, err := pipe.Exec(ctx); err != nil {
		return Head{}, nil, named("known", err)
	}
	f := head.Val()
	if f[0] == "" {
		return Head{Outcome: sale.Missing}, nil, nil
	}
	h, err := parseHead([]string{string(sale.Done), f[0], f[1], f[2], ""})
	if err != nil {
		return Head{}, nil, fmt.Errorf("known: %w: %w", ErrScript, err)
	}
	last := h.NowMs
	h.NowMs = max(int64(s.store.Now()), last)
	if f[3] != doorOpen || h.Epoch != e.epoch || h.NowMs-last > s.store.opts.MaxClockStepMs {
		h.Outcome = sale.Recovering
		return h, nil, nil
	}
	return h, records.Val(), nil
}
