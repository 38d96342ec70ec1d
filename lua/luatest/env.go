package luatest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// Base is where the clock of an Env begins: far enough ahead of every real clock that the shard's
// time stands still (it never runs backwards), so that a test alone moves it.
var Base = time.Now().Add(24 * time.Hour).UnixMilli()

// Env is one sale on some Redis.
type Env struct {
	T      testing.TB
	Ctx    context.Context
	Redis  redis.UniversalClient
	Store  *lua.Store
	Shard  *lua.Shard
	Config sale.Config
	books  *sale.Books
	n      int
}

// DemoConfig is a sale of two SKUs: AIR-42 at berlin (5, of which 1 safety) and leipzig (3), BAG
// at main (100). It is open from Base for an hour, holds last 10 s, one extension; no caps.
func DemoConfig() sale.Config {
	return sale.Config{
		Sale: "drop", OpensAt: sale.Moment(Base), ClosesAt: sale.Moment(Base + 3_600_000),
		HoldSeconds: 10, MaxExtensions: 1, Allocation: sale.AllocatePriority,
		Items: []sale.Item{
			{SKU: "AIR-42", LowAt: 2, Stock: []sale.Stock{
				{Location: "berlin", OnHand: 5, Safety: 1}, {Location: "leipzig", OnHand: 3},
			}},
			{SKU: "BAG", Stock: []sale.Stock{{Location: "main", OnHand: 100}}},
		},
	}
}

// NewEnv applies a config to an empty Redis.
func NewEnv(t testing.TB, rdb redis.UniversalClient, c sale.Config) *Env {
	e := &Env{
		T: t, Ctx: t.Context(), Redis: rdb, Config: c,
		Store: lua.New(rdb, lua.Options{MaxClockStepMs: 1 << 50}),
		books: sale.NewBooks(c.Sale, 0),
	}
	e.Shard = e.Store.Shard(c.Sale, 0)
	a, err := e.Shard.Apply(e.Ctx, nil, sale.Version{Sale: c.Sale, Version: 1, Lifecycle: sale.Live, Config: c, Actor: "test"})
	require.NoError(t, err)
	require.Equal(t, sale.Applied, a.Outcome)
	e.SetNow(Base)
	return e
}

// key names a key of the shard's first epoch.
func (e *Env) key(name string) string {
	return fmt.Sprintf("fg:{%s:0}:%d:%s", e.Config.Sale, e.Shard.Epoch(), name)
}

// SaleKey is the key of the sale hash.
func (e *Env) SaleKey() string { return "fg:{" + e.Config.Sale + ":0}:sale" }

// SetNow sets the shard's clock, at or after Base.
func (e *Env) SetNow(ms int64) {
	require.NoError(e.T, e.Redis.HSet(e.Ctx, e.SaleKey(), "last_ms", ms).Err())
}

// Request builds a reserve request; lines are pairs "AIR-42/berlin=2".
func (e *Env) Request(id, customer, packed string) lua.ReserveRequest {
	lines, err := sale.ParseLines(packed)
	require.NoError(e.T, err)
	lines = sale.NormalizeLines(lines)
	return lua.ReserveRequest{
		ID: id, Customer: customer, Lines: lines, Actor: "test",
		Fingerprint: sale.Fingerprint(e.Config.Sale, customer, lines),
	}
}

// Reserve sends one request and returns its answer.
func (e *Env) Reserve(id, customer, packed string) lua.Answer {
	e.T.Helper()
	a, err := e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{e.Request(id, customer, packed)})
	require.NoError(e.T, err)
	return a[0]
}

// MustHold reserves under a new id and requires that it is held.
func (e *Env) MustHold(customer, packed string) string {
	e.T.Helper()
	e.n++
	id := "hold-" + strconv.Itoa(e.n)
	a := e.Reserve(id, customer, packed)
	require.Equal(e.T, sale.Held, a.Outcome, "%+v", a)
	return id
}

// Levels reads the stock.
func (e *Env) Levels() map[sale.Place]sale.Level {
	e.T.Helper()
	a, err := e.Shard.Availability(e.Ctx)
	require.NoError(e.T, err)
	require.Equal(e.T, sale.Done, a.Head.Outcome)
	levels := map[sale.Place]sale.Level{}
	for _, i := range a.Items {
		for _, l := range i.Levels {
			levels[sale.Place{SKU: i.SKU, Location: l.Location}] = l.Level
		}
	}
	return levels
}

// Line reads who waits for a SKU, in order, and how often the first was passed over.
func (e *Env) Line(sku string) (ids []string, skips int) {
	e.T.Helper()
	ids, err := e.Redis.ZRange(e.Ctx, e.key("w:"+sku), 0, -1).Result()
	require.NoError(e.T, err)
	if len(ids) > 0 {
		var waiting, units int
		packed, err := e.Redis.HGet(e.Ctx, e.key("waitlist"), sku).Result()
		require.NoError(e.T, err)
		_, err = fmt.Sscanf(packed, "%d,%d,%d", &waiting, &units, &skips)
		require.NoError(e.T, err)
	}
	return ids, skips
}

// Level reads one level.
func (e *Env) Level(sku, location string) sale.Level {
	e.T.Helper()
	return e.Levels()[sale.Place{SKU: sku, Location: location}]
}

// Books folds everything the shard has appended since the last call, and checks that Redis is
// what the fold says, in every key.
func (e *Env) Books() *sale.Books {
	e.T.Helper()
	look, err := e.Shard.Look(e.Ctx, e.Shard.Epoch(), e.books.Seq, 1_000_000)
	require.NoError(e.T, err)
	for _, raw := range look.Events {
		event, err := raw.Parse(e.Config.Sale, 0)
		require.NoError(e.T, err)
		require.NoError(e.T, e.books.Apply(&event))
	}
	require.Equal(e.T, e.books.Seq, look.Seq)
	require.Equal(e.T, e.books.Mark, look.Mark)
	RequireRedisIs(e.T, e.Ctx, e.Redis, e.books)
	return e.books
}

// RequireRedisIs compares every key of a shard with its books: stock, customers, deadlines,
// records of reservations and adjustments, lines, no more and no less. Only limits, what is seen once and
// where to look for offers are no matter of the books.
func RequireRedisIs(t testing.TB, ctx context.Context, rdb redis.UniversalClient, b *sale.Books) {
	t.Helper()
	RequireRedisIsBut(t, ctx, rdb, b, func(*sale.Reservation) bool { return false })
}

// RequireRedisIsBut is RequireRedisIs where the records of some reservations may have been cleared away.
func RequireRedisIsBut(
	t testing.TB, ctx context.Context, rdb redis.UniversalClient, b *sale.Books, over func(*sale.Reservation) bool,
) {
	t.Helper()
	prefix := fmt.Sprintf("fg:{%s:%d}:%d:", b.Sale, b.Shard, b.Epoch)
	want := map[string]string{}
	for i := range b.Config.Items {
		item := &b.Config.Items[i]
		packed := fmt.Sprintf("%d,%d|", item.CapPerCustomer, item.LowAt)
		for j, s := range item.Stock {
			l := b.Stock[sale.Place{SKU: item.SKU, Location: s.Location}]
			if j > 0 {
				packed += ";"
			}
			packed += fmt.Sprintf("%s:%d,%d,%d,%d", s.Location, l.OnHand, l.Safety, l.Held, l.Sold)
		}
		want["stock "+item.SKU] = packed
	}
	for customer, counts := range b.Customers {
		for sku, n := range counts {
			want["customer "+customer+" "+sku] = strconv.FormatInt(n, 10)
		}
	}
	for id, r := range b.Reservations {
		want["record "+id] = r.Pack()
		if r.State == sale.StateHeld {
			want["deadline "+id] = strconv.FormatInt(r.DeadlineMs, 10)
		} else if r.State.Finished() {
			want["finished "+id] = strconv.FormatInt(r.ResolvedAtMs, 10)
		}
	}
	for sku, line := range b.Lines {
		want["waitlist "+sku] = fmt.Sprintf("%d,%d,%d", len(line.Waiting), line.Units, line.Skips)
		for _, r := range line.Waiting {
			want["waiter "+sku+" "+r.ID] = strconv.FormatInt(r.Seq, 10)
		}
	}
	for id, a := range b.Adjustments {
		want["adjustment "+id] = a.Pack()
	}
	got := readAll(t, ctx, rdb, prefix)
	for id, r := range b.Reservations {
		if got["record "+id] == "" && over(r) {
			delete(want, "record "+id)
			delete(want, "finished "+id)
		}
	}
	for name := range got {
		// A member of the deadlines names also those of its holds that have ended, until it is due.
		if id, deadline := strings.CutPrefix(name, "deadline "); deadline && want[name] == "" &&
			b.Reservations[id] != nil {
			delete(got, name)
		}
	}
	require.Equal(t, want, got)
	waiting, err := rdb.HGet(ctx, fmt.Sprintf("fg:{%s:%d}:sale", b.Sale, b.Shard), "waiting").Result()
	if !errors.Is(err, redis.Nil) {
		require.NoError(t, err)
	}
	n, _ := strconv.ParseInt(waiting, 10, 64)
	require.Equal(t, b.Waiting, n)
}

// readAll reads every key of an epoch but the stream, limits and what is seen once, in the words of
// RequireRedisIs.
func readAll(t testing.TB, ctx context.Context, rdb redis.UniversalClient, prefix string) map[string]string {
	t.Helper()
	got := map[string]string{}
	stock, err := rdb.HGetAll(ctx, prefix+"stock").Result()
	require.NoError(t, err)
	for sku, packed := range stock {
		got["stock "+sku] = packed
	}
	customers, err := rdb.HGetAll(ctx, prefix+"customers").Result()
	require.NoError(t, err)
	for customer, packed := range customers {
		for sku, n := range parseCounts(packed) {
			got["customer "+customer+" "+sku] = n
		}
	}
	records, err := rdb.HGetAll(ctx, prefix+"records").Result()
	require.NoError(t, err)
	for id, packed := range records {
		got["record "+id] = packed
	}
	finished, err := rdb.LRange(ctx, prefix+"finished", 0, -1).Result()
	require.NoError(t, err)
	for _, entry := range finished {
		at, id, _ := strings.Cut(entry, " ")
		got["finished "+id] = at
	}
	deadlines, err := rdb.ZRangeWithScores(ctx, prefix+"deadlines", 0, -1).Result()
	require.NoError(t, err)
	for _, z := range deadlines {
		for id := range strings.SplitSeq(z.Member.(string), "\n") {
			at := strconv.FormatInt(int64(z.Score), 10)
			if record := got["record "+id]; got["deadline "+id] == "" || strings.Contains(record, "\n"+at+"\n") {
				got["deadline "+id] = at // of two, the one that its record says
			}
		}
	}
	lines, err := rdb.HGetAll(ctx, prefix+"waitlist").Result()
	require.NoError(t, err)
	for sku, packed := range lines {
		got["waitlist "+sku] = packed
	}
	keys, err := rdb.Keys(ctx, prefix+"*").Result()
	require.NoError(t, err)
	for _, k := range keys {
		kind, name, named := strings.Cut(k[len(prefix):], ":")
		switch {
		case named && kind == "a":
			v, err := rdb.Get(ctx, k).Result()
			require.NoError(t, err)
			got["adjustment "+name] = v
		case named && kind == "w":
			line, err := rdb.ZRangeWithScores(ctx, k, 0, -1).Result()
			require.NoError(t, err)
			for _, z := range line {
				got["waiter "+name+" "+z.Member.(string)] = strconv.FormatInt(int64(z.Score), 10)
			}
		case named && (kind == "l" || kind == "o"):
		case !slices.Contains([]string{
			"stock", "customers", "deadlines", "events", "records", "finished", "waitlist", "offers",
		}, kind):
			got["key "+k] = ""
		}
	}
	return got
}

func parseCounts(packed string) map[string]string {
	counts := map[string]string{}
	packed = packed[:strings.LastIndexByte(packed, ';')+1] // what follows is of limits
	for len(packed) > 1 {
		packed = packed[1:]
		end := 0
		for packed[end] != ';' {
			end++
		}
		for i := range end {
			if packed[i] == '=' {
				counts[packed[:i]] = packed[i+1 : end]
			}
		}
		packed = packed[end:]
	}
	return counts
}
