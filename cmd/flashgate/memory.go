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

// measure counts what may grow in Redis: the stream, of which tail entries may stay, the records that
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
	endless, err := endlessRecords(ctx, rdb, shard+epoch+":")
	if err != nil {
		return nil, err
	}
	var past int64
	keys := rdb.Scan(ctx, 0, shard+"*", scanPage).Iterator()
	for keys.Next(ctx) {
		name := strings.TrimPrefix(keys.Val(), shard)
		if !strings.HasPrefix(name, epoch+":") && name[0] >= '0' && name[0] <= '9' {
			past++ // others belong to the shard, whatever its epoch
		}
	}
	if err := keys.Err(); err != nil {
		return nil, err
	}
	return []loadtest.Measure{
		{What: "entries in the stream", Got: stream, Limit: tail},
		{What: "finished records without an end", Got: endless, Limit: 0},
		{What: "keys of past epochs", Got: past, Limit: 0},
	}, nil
}

// endlessRecords counts the finished records of an epoch that no sweep will clear away.
func endlessRecords(ctx context.Context, rdb redis.UniversalClient, epoch string) (int64, error) {
	left := map[string]bool{}
	records := rdb.HScan(ctx, epoch+"records", 0, "", scanPage).Iterator()
	for records.Next(ctx) {
		id := records.Val()
		if !records.Next(ctx) {
			break
		}
		r, err := sale.ParseReservation(id, records.Val())
		if err != nil {
			return 0, fmt.Errorf("record of %s: %w", id, err)
		}
		if r.State.Finished() {
			left[id] = true
		}
	}
	if err := records.Err(); err != nil {
		return 0, err
	}
	finished, err := rdb.LRange(ctx, epoch+"finished", 0, -1).Result()
	if err != nil {
		return 0, err
	}
	for _, entry := range finished {
		_, id, _ := strings.Cut(entry, " ")
		delete(left, id)
	}
	var endless int64
	for id := range left {
		// One that ended while we looked is gone from both.
		there, err := rdb.HExists(ctx, epoch+"records", id).Result()
		if err != nil {
			return 0, err
		}
		if there {
			endless++
		}
	}
	return endless, nil
}
