package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"flashgate/loadtest"
	"flashgate/sale"
)

// scanPage is how many keys one SCAN asks for.
const scanPage = 1_000

// measure counts what may grow in Redis: the stream, of which tail events may stay, the records that
// are finished and have no end, and what is left of past epochs. It is for one server, as the embedded
// one is.
func measure(ctx context.Context, rdb redis.UniversalClient, saleID string, tail int64) ([]loadtest.Measure, error) {
	shard := "fg:{" + saleID + ":0}:"
	epoch, err := rdb.HGet(ctx, shard+"sale", "epoch").Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	stream, err := rdb.XLen(ctx, shard+epoch+":events").Result()
	if err != nil {
		return nil, err
	}
	var past, endless int64
	keys := rdb.Scan(ctx, 0, shard+"*", scanPage).Iterator()
	for keys.Next(ctx) {
		name := strings.TrimPrefix(keys.Val(), shard)
		record, inEpoch := strings.CutPrefix(name, epoch+":")
		switch {
		case !inEpoch:
			if name[0] >= '0' && name[0] <= '9' { // others belong to the shard, whatever its epoch
				past++
			}
		case strings.HasPrefix(record, "r:"):
			fine, err := bounded(ctx, rdb, keys.Val())
			if err != nil {
				return nil, err
			}
			if !fine {
				endless++
			}
		}
	}
	if err := keys.Err(); err != nil {
		return nil, err
	}
	return []loadtest.Measure{
		{What: "events in the stream", Got: stream, Limit: tail},
		{What: "finished records without an end", Got: endless, Limit: 0},
		{What: "keys of past epochs", Got: past, Limit: 0},
	}, nil
}

// bounded tells whether a record is live, or finished with a time to live.
func bounded(ctx context.Context, rdb redis.UniversalClient, key string) (bool, error) {
	packed, err := rdb.Get(ctx, key).Result()
	if errors.Is(err, redis.Nil) {
		return true, nil // It ended while we looked.
	}
	if err != nil {
		return false, err
	}
	r, err := sale.ParseReservation(key, packed)
	if err != nil {
		return false, fmt.Errorf("%s: %w", key, err)
	}
	if !r.State.Finished() {
		return true, nil
	}
	ttl, err := rdb.PTTL(ctx, key).Result()
	return ttl > 0, err
}
