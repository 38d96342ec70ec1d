package lua

import (
	"context"
	"fmt"
	"strconv"

	"flashgate/sale"
)

// Look is a shard as Redis has it at one moment, judged by nobody.
type Look struct {
	// Missing: Redis has no such shard.
	Missing    bool
	Epoch, Seq int64
	Mark       string
	// NowMs is the time of Redis.
	NowMs int64
	// LastMs is the time of Redis at which the shard was last known to be alive.
	LastMs    int64
	Open      bool
	Reason    string // why it is not open
	Building  string // token:slice of a rebuild under way
	Watermark int64
	Version   int64
	// Events are those of the asked epoch with seq > after, in order.
	Events []RawEvent
}

// RawEvent is an event of the outbox, not parsed; Packed is empty where no script wrote it.
type RawEvent struct {
	Epoch, Seq int64
	Packed     string
}

// Parse reads the entry.
func (r RawEvent) Parse(saleID string, shard int) (sale.Event, error) {
	return sale.ParseEvent(saleID, shard, r.Epoch, r.Seq, r.Packed)
}

var lookScript = load("look")

// doorOpen is OPEN of shared/shard.lua.
const doorOpen = "open:3"

// lookFields come before the events in the reply of look.lua.
const lookFields = 7

// Look reads the head of a shard and up to limit events of an epoch after a seq, all at one
// moment. Unlike the verbs it works on a shard that is closed.
func (s *Shard) Look(ctx context.Context, epoch, after int64, limit int) (Look, error) {
	h, f, err := s.callIn(ctx, lookScript, newEra(s.Sale, s.Number, max(epoch, 1)), []any{after, limit})
	if err != nil {
		return Look{}, err
	}
	l := Look{Missing: h.Outcome == sale.Missing, NowMs: h.NowMs}
	if l.Missing {
		return l, nil
	}
	if len(f) < lookFields {
		return l, fmt.Errorf("look: %w: %d fields", ErrScript, len(f))
	}
	l.Epoch, l.Seq, l.Mark = h.Epoch, h.Seq, f[0]
	l.Open, l.Reason, l.Building = f[2] == doorOpen, f[3], f[4]
	// A shard made by a rebuild that did not get far has no version yet.
	l.Version, _ = strconv.ParseInt(f[6], 10, 64)
	for i, to := range map[int]*int64{1: &l.LastMs, 5: &l.Watermark} {
		if *to, err = strconv.ParseInt(f[i], 10, 64); err != nil {
			return l, fmt.Errorf("look: %w: %w", ErrScript, err)
		}
	}
	events := newExpansion(epoch, after, limit)
	for i := lookFields; i+2 < len(f); i += 3 {
		if err := events.add(f[i], f[i+1], f[i+2]); err != nil {
			return l, fmt.Errorf("look: %w: %w", ErrScript, err)
		}
	}
	l.Events = events.list
	return l, nil
}
