package lua

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"flashgate/sale"
)

// Look is a shard as Redis has it at one moment, judged by nobody.
type Look struct {
	// Missing: Redis has no such shard.
	Missing    bool
	Epoch, Seq int64
	Mark       string
	// LastMs is the time of Redis at which the shard was last known to be alive.
	LastMs    int64
	Open      bool
	Reason    string // why it is not open
	Building  string // token:slice of a rebuild under way
	Watermark int64
	Version   int64
	// Events are the entries of the asked epoch with seq > after, in order, not parsed.
	Events []RawEvent
}

// RawEvent is an entry of the outbox.
type RawEvent struct {
	Epoch, Seq int64
	Packed     string
}

// Parse reads the entry.
func (r RawEvent) Parse(saleID string, shard int) (sale.Event, error) {
	return sale.ParseEvent(saleID, shard, r.Epoch, r.Seq, r.Packed)
}

// Look reads the head of a shard and up to limit events of an epoch after a seq, all at one
// moment. Unlike the verbs it works on a shard that is closed.
func (s *Shard) Look(ctx context.Context, epoch, after int64, limit int) (Look, error) {
	e := newEra(s.Sale, s.Number, max(epoch, 1))
	var head *redis.SliceCmd
	var events *redis.XMessageSliceCmd
	_, err := s.store.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		head = p.HMGet(ctx, e.keys[keySale], "epoch", "seq", "mark", "last_ms", "door",
			"door_reason", "building", "watermark", "version")
		events = p.XRangeN(ctx, e.keys[keyEvents],
			fmt.Sprintf("%s-%d", e.text, after+1), "+", int64(limit))
		return nil
	})
	if err != nil {
		return Look{}, fmt.Errorf("look at %s:%d: %w", s.Sale, s.Number, err)
	}
	f := head.Val()
	if len(f) < 9 || f[0] == nil {
		return Look{Missing: true}, nil
	}
	l := Look{Mark: text(f[2]), Open: text(f[4]) == "open", Reason: text(f[5]), Building: text(f[6])}
	for i, to := range map[int]*int64{0: &l.Epoch, 1: &l.Seq, 3: &l.LastMs, 7: &l.Watermark} {
		if *to, err = strconv.ParseInt(text(f[i]), 10, 64); err != nil {
			return l, fmt.Errorf("look at %s:%d: %w", s.Sale, s.Number, err)
		}
	}
	// A shard made by a rebuild that did not get far has no version yet.
	l.Version, _ = strconv.ParseInt(text(f[8]), 10, 64)
	for _, m := range events.Val() {
		raw, err := rawEvent(m)
		if err != nil {
			return l, fmt.Errorf("look at %s:%d: %w", s.Sale, s.Number, err)
		}
		l.Events = append(l.Events, raw)
	}
	return l, nil
}

// rawEvent reads the id of an entry; an entry that no script wrote keeps an empty Packed, which
// does not parse.
func rawEvent(m redis.XMessage) (RawEvent, error) {
	epoch, seq, ok := strings.Cut(m.ID, "-")
	r := RawEvent{Packed: text(m.Values["e"])}
	var err1, err2 error
	r.Epoch, err1 = strconv.ParseInt(epoch, 10, 64)
	r.Seq, err2 = strconv.ParseInt(seq, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return r, fmt.Errorf("entry id %q", m.ID)
	}
	return r, nil
}
