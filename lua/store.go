package lua

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"flashgate/sale"
)

// Options are the settings that every call carries. Zero values take the defaults.
type Options struct {
	// MaxClockStepMs: a shard last seen alive longer ago is closed for recovery instead of
	// expiring everything; default 30,000.
	MaxClockStepMs int64
	// RecordMs: how long the record of a finished reservation is kept; default 24 h.
	RecordMs int64
	// StreamMaxEvents: undrained events above which reserves are refused; default 1,000,000.
	StreamMaxEvents int64
	// OnStepBack is told when a shard's seq stepped back within an epoch, after it was closed.
	OnStepBack func(saleID string, shard int, seen, got int64)
}

// Store gives access to the shards in one Redis.
type Store struct {
	rdb    redis.UniversalClient
	opts   Options
	shards sync.Map // shardKey -> *Shard
	// ahead is how far the clock of Redis is before ours, in ms, by the last reply.
	ahead atomic.Int64
}

type shardKey struct {
	sale  string
	shard int
}

// New returns a store on a client that does not repeat calls (see Connect).
func New(rdb redis.UniversalClient, o Options) *Store {
	o.MaxClockStepMs = orDefault(o.MaxClockStepMs, 30_000)
	o.RecordMs = orDefault(o.RecordMs, 24*60*60*1000)
	o.StreamMaxEvents = orDefault(o.StreamMaxEvents, 1_000_000)
	if o.OnStepBack == nil {
		o.OnStepBack = func(string, int, int64, int64) {}
	}
	return &Store{rdb: rdb, opts: o}
}

// Client is the Redis client below.
func (s *Store) Client() redis.UniversalClient { return s.rdb }

// Shard returns the shard of a sale, known to Redis or not.
func (s *Store) Shard(saleID string, shard int) *Shard {
	key := shardKey{saleID, shard}
	if v, ok := s.shards.Load(key); ok {
		return v.(*Shard)
	}
	sh := &Shard{store: s, Sale: saleID, Number: shard}
	sh.life.Store(&life{era: newEra(saleID, shard, 1)})
	v, _ := s.shards.LoadOrStore(key, sh)
	return v.(*Shard)
}

// Ready loads the scripts, so that the first shopper does not wait for it, and learns the time. It fails when Redis
// cannot be reached or would not run them.
func (s *Store) Ready(ctx context.Context) error {
	for _, sc := range scripts {
		if err := sc.redis.Load(ctx, s.rdb).Err(); err != nil {
			return fmt.Errorf("load %s: %w", sc.name, err)
		}
	}
	now, err := s.rdb.Time(ctx).Result()
	if err != nil {
		return fmt.Errorf("read the time: %w", err)
	}
	s.ahead.Store(now.UnixMilli() - time.Now().UnixMilli())
	return nil
}

// Now is the time of Redis, as near as the last reply tells; our own before the first one.
func (s *Store) Now() sale.Moment {
	return sale.Moment(time.Now().UnixMilli() + s.ahead.Load())
}

// Ping tells whether Redis answers.
func (s *Store) Ping(ctx context.Context) error { return s.rdb.Ping(ctx).Err() }

// Shard is a slice of a sale. It is safe for concurrent use.
type Shard struct {
	store  *Store
	Sale   string
	Number int
	life   atomic.Pointer[life]
	// unlimited: by the last reply the sale has no rules, see Reserve.
	unlimited atomic.Bool
}

// life is the epoch that this process last heard of, and the newest seq seen in it.
type life struct {
	*era
	newest atomic.Int64
}

// Head is what every reply says of the shard.
type Head struct {
	Outcome    sale.Outcome
	Epoch, Seq int64
	// NowMs is the time of Redis.
	NowMs int64
	// NextDeadlineMs is the earliest deadline, where the script looked it up; else 0.
	NextDeadlineMs int64
}

const headFields = 5

// Epoch is the epoch that this process last heard of.
func (s *Shard) Epoch() int64 { return s.life.Load().epoch }

// call runs a script with the arguments that all begin with, as ask does.
func (s *Shard) call(ctx context.Context, sc *script, args ...any) (Head, []string, error) {
	return s.ask(ctx, func(e *era) (Head, []string, error) { return s.callIn(ctx, sc, e, args) })
}

// ask makes a call in the era that this process knows. A reply of another epoch teaches the epoch, and the call
// is made once more; a seq that stepped back closes the shard.
func (s *Shard) ask(ctx context.Context, call func(*era) (Head, []string, error)) (Head, []string, error) {
	for again := true; ; again = false {
		life := s.life.Load()
		seen := life.newest.Load()
		h, rest, err := call(life.era)
		switch {
		case err != nil:
			return h, nil, err
		case h.Outcome == sale.Missing:
			return h, nil, nil
		case h.Outcome == sale.Recovering:
			if again && h.Epoch != life.epoch && h.Epoch > 0 {
				s.follow(life, h.Epoch)
				continue
			}
			return h, nil, nil
		case h.Seq < seen:
			s.steppedBack(ctx, life, seen, h.Seq)
			h.Outcome = sale.Recovering
			return h, nil, nil
		}
		for n := life.newest.Load(); n < h.Seq && !life.newest.CompareAndSwap(n, h.Seq); {
			n = life.newest.Load()
		}
		return h, rest, nil
	}
}

// follow moves on to the epoch that Redis names.
func (s *Shard) follow(from *life, epoch int64) {
	s.life.CompareAndSwap(from, &life{era: newEra(s.Sale, s.Number, epoch)})
}

// steppedBack closes a shard whose Redis has lost writes that this process saw.
func (s *Shard) steppedBack(ctx context.Context, in *life, seen, got int64) {
	reason := fmt.Sprintf("seq stepped back from %d to %d in epoch %d", seen, got, in.epoch)
	// When this call fails too the next one sees the same step.
	_, _, err := s.callIn(ctx, closeScript, in.era, []any{"", reason, anyBuilding})
	if err == nil {
		s.store.opts.OnStepBack(s.Sale, s.Number, seen, got)
	}
}

// callIn runs a script in one era, whatever the shard's is.
func (s *Shard) callIn(ctx context.Context, sc *script, e *era, args []any) (Head, []string, error) {
	full := make([]any, commandArgs, commandArgs+len(sc.keys)+4+len(args))
	for _, k := range sc.keys {
		full = append(full, &e.keys[k]) // A pointer fits where a string would be copied to.
	}
	full = append(full, &e.text, markBase(), s.store.opts.MaxClockStepMs, s.store.opts.RecordMs)
	fields, err := sc.run(ctx, s.store.rdb, append(full, args...))
	if err != nil {
		return Head{}, nil, err
	}
	h, err := parseHead(fields)
	if err != nil {
		return Head{}, nil, fmt.Errorf("%s: %w: %w", sc.name, ErrScript, err)
	}
	s.store.ahead.Store(h.NowMs - time.Now().UnixMilli())
	return h, fields[headFields:], nil
}

// markBase is 64 random bits as 11 characters: with the number of the event in its call they
// make its mark.
func markBase() string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], rand.Uint64())
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func parseHead(f []string) (Head, error) {
	h := Head{Outcome: sale.Outcome(f[0])}
	for _, n := range []struct {
		to *int64
		at int
	}{{&h.Epoch, 1}, {&h.Seq, 2}, {&h.NowMs, 3}} {
		v, err := strconv.ParseInt(f[n.at], 10, 64)
		if err != nil {
			return h, fmt.Errorf("head of reply: %w", err)
		}
		*n.to = v
	}
	if due := f[4]; due != "" {
		h.NextDeadlineMs, _ = strconv.ParseInt(due, 10, 64)
	}
	return h, nil
}

// at is a field of a reply; one that is missing is "".
func at(fields []string, i int) string {
	if i < len(fields) {
		return fields[i]
	}
	return ""
}
