package reconciler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/internal/pgtest"
	"flashgate/internal/redistest"
	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// rig is one sale on some Redis and some ledger, seen by a gateway's store and by reconcilers.
type rig struct {
	t      testing.TB
	ctx    context.Context
	rdb    redis.UniversalClient
	ledger ledger.Ledger
	memory *memory // the ledger when it is that one
	id     ledger.Shard
	gate   *lua.Shard
	rng    *rand.Rand
	log    *logBuffer
	opts   Options
	batch  int // reserves of one call of traffic, at most
	n      int
}

// logBuffer collects what reconcilers say; it is shown when a test fails.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func connect(t testing.TB, addr string) redis.UniversalClient {
	rdb := lua.Connect(lua.ConnectOptions{Addrs: []string{addr}, PoolSize: 20, ReadTimeout: 20 * time.Second})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// onEachRedis runs a test that needs nothing of a real Redis on miniredis too.
func onEachRedis(t *testing.T, f func(t *testing.T, rdb redis.UniversalClient)) {
	t.Run("miniredis", func(t *testing.T) { f(t, connect(t, redistest.Mini(t).Addr())) })
	t.Run("redis", func(t *testing.T) { f(t, connect(t, redistest.Shared(t).Addr())) })
}

func realRedis(t *testing.T) redis.UniversalClient { return connect(t, redistest.Shared(t).Addr()) }

// ownRedis is for tests that run beside others.
func ownRedis(t *testing.T) redis.UniversalClient { return connect(t, redistest.Start(t).Addr()) }

func newRig(t *testing.T, rdb redis.UniversalClient) *rig {
	m := newMemory()
	r := newRigOn(t, rdb, m)
	r.memory = m
	return r
}

func newRigOn(t testing.TB, rdb redis.UniversalClient, l ledger.Ledger) *rig {
	seed := uint64(time.Now().UnixNano())
	r := &rig{
		t: t, ctx: t.Context(), rdb: rdb, ledger: l, id: ledger.Shard{Sale: "drop"},
		rng: rand.New(rand.NewPCG(seed, 1)), log: &logBuffer{}, opts: fast(), batch: 8,
	}
	r.gate = lua.New(rdb, lua.Options{}).Shard("drop", 0)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d\n%s", seed, r.log)
		}
	})
	return r
}

var processStart = time.Now().UnixMilli()

// config is a sale that is open now: plenty of stock at two places, caps, holds of a minute; of HOT so few
// that most who want it wait. It is the same at every call.
func config() sale.Config {
	now := processStart
	return sale.Config{
		Sale: "drop", OpensAt: sale.Moment(now - 60_000), ClosesAt: sale.Moment(now + 3_600_000),
		HoldSeconds: 60, MaxExtensions: 2, Allocation: sale.AllocatePriority,
		Caps: sale.Caps{PerCustomer: 1000},
		Items: []sale.Item{
			{SKU: "AIR", CapPerCustomer: 900, Stock: []sale.Stock{
				{Location: "berlin", OnHand: 20_000, Safety: 10}, {Location: "leipzig", OnHand: 3000},
			}},
			{SKU: "BAG", Stock: []sale.Stock{{Location: "main", OnHand: 10_000}}},
			{SKU: "HOT", Stock: []sale.Stock{{Location: "main", OnHand: 6}}},
		},
		Queue: &sale.Queue{Waitlist: &sale.Waitlist{Enabled: true, Max: 1000, OfferSeconds: 60}},
	}
}

// put writes a version to the ledger; the reconciler brings it to Redis.
func (r *rig) put(c sale.Config) sale.Version {
	r.t.Helper()
	all, err := r.ledger.Versions(r.ctx, c.Sale)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		require.NoError(r.t, err)
	}
	latest := int64(0)
	for _, v := range all {
		if v.Status != sale.VersionRejected {
			latest = v.Version
		}
	}
	v, err := r.ledger.PutVersion(r.ctx, sale.Version{Sale: c.Sale, Lifecycle: sale.Live, Config: c, Actor: "test"}, latest)
	require.NoError(r.t, err)
	return v
}

// worker makes a reconciler and hands it over before it runs.
func (r *rig) make(name string, change ...func(*Reconciler)) *Reconciler {
	rec := New(Deps{
		Store: lua.New(r.rdb, lua.Options{}), Ledger: r.ledger, Options: r.opts,
		Log: slog.New(slog.NewTextHandler(r.log, nil)).With("by", name),
	})
	for _, f := range change {
		f(rec)
	}
	return rec
}

// start runs a reconciler until stop is called, or the test ends.
func (r *rig) start(name string, change ...func(*Reconciler)) (stop func()) {
	return r.run(r.make(name, change...))
}

func (r *rig) run(rec *Reconciler) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = rec.Run(ctx) }()
	stop = func() { cancel(); <-done }
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) eventually(what string, f func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !f(); {
		if time.Now().After(end) {
			l, _ := r.gate.Look(r.ctx, 1, 0, 1)
			h, _ := r.ledger.Head(r.ctx, r.id)
			r.t.Fatalf("not within %v: %s\nredis %+v\nledger %+v", patience, what, l, h)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// settled waits until the shard is open and the ledger has everything.
func (r *rig) settled() ledger.Head {
	r.t.Helper()
	var h ledger.Head
	r.eventually("open and drained", func() bool {
		l, err := r.gate.Look(r.ctx, 1, 0, 1)
		require.NoError(r.t, err)
		h, err = r.ledger.Head(r.ctx, r.id)
		require.NoError(r.t, err)
		return l.Open && l.Building == "" && l.Seq > 0 && l.Epoch == h.Epoch && l.Seq == h.Seq &&
			l.Mark == h.Mark && l.Watermark == h.Seq
	})
	return h
}

// notFarBehind lets traffic wait for the ledger, as a gateway does with stream_max_events: otherwise it
// would outrun a ledger on a slow machine without end.
func (r *rig) notFarBehind(events int64) {
	r.t.Helper()
	r.eventually("the ledger follows", func() bool {
		l, err := r.gate.Look(r.ctx, 1, 0, 1)
		require.NoError(r.t, err)
		return l.Seq-l.Watermark <= events
	})
}

// created makes the sale by a reconciler that then stops.
func (r *rig) created() {
	r.t.Helper()
	r.put(config())
	stop := r.start("creator")
	r.settled()
	stop()
}

// drainAll runs a reconciler until the ledger has everything.
func (r *rig) drainAll() ledger.Head {
	r.t.Helper()
	stop := r.start("drain")
	defer stop()
	return r.settled()
}

func (r *rig) request(id, customer, packed string) lua.ReserveRequest {
	lines, err := sale.ParseLines(packed)
	require.NoError(r.t, err)
	lines = sale.NormalizeLines(lines)
	return lua.ReserveRequest{
		ID: id, Customer: customer, Lines: lines, Actor: "test",
		Fingerprint: sale.Fingerprint("drop", customer, lines),
	}
}

func (r *rig) reserve(id, customer, packed string) lua.Answer {
	r.t.Helper()
	a, err := r.gate.Reserve(r.ctx, []lua.ReserveRequest{r.request(id, customer, packed)})
	require.NoError(r.t, err)
	return a[0]
}

// hold reserves under a new id.
func (r *rig) hold() string {
	r.t.Helper()
	r.n++
	id := fmt.Sprintf("r-%d", r.n)
	a := r.reserve(id, fmt.Sprintf("holder-%d", r.n), "AIR/berlin=1")
	require.Equal(r.t, sale.Held, a.Outcome, "%+v", a)
	return id
}

func (r *rig) confirm(id string) lua.Answer {
	r.t.Helper()
	a, err := r.gate.Confirm(r.ctx, id, "order-"+id, "test")
	require.NoError(r.t, err)
	return a
}

// traffic makes about n random calls of every verb; a shard that is recovering is left alone.
func (r *rig) traffic(n int) {
	r.t.Helper()
	must := func(err error) { require.NoError(r.t, err) }
	for n > 0 {
		if r.rng.IntN(3) == 0 || r.n == 0 {
			batch := make([]lua.ReserveRequest, 1+r.rng.IntN(r.batch))
			for i := range batch {
				r.n++
				lines := []string{
					"AIR/=1", "AIR/leipzig=2;BAG/main=1", "BAG/main=3", "AIR/berlin=2", "HOT/=1", "HOT/main=2", "BAG/main=1;HOT/=1",
				}[r.rng.IntN(7)]
				batch[i] = r.request(fmt.Sprintf("r-%d", r.n), fmt.Sprintf("c-%d", r.rng.IntN(50)), lines)
			}
			_, err := r.gate.Reserve(r.ctx, batch)
			must(err)
			n -= len(batch)
			continue
		}
		n--
		id := fmt.Sprintf("r-%d", 1+r.rng.IntN(r.n))
		var err error
		switch r.rng.IntN(10) {
		case 0, 1, 2, 3:
			_, err = r.gate.Confirm(r.ctx, id, "order-"+id, "test")
		case 4, 5:
			_, err = r.gate.Release(r.ctx, id, nil, "test", "")
		case 6:
			_, err = r.gate.Release(r.ctx, id, []sale.Line{{SKU: "AIR", Location: "leipzig", Qty: 1}}, "test", "")
		case 7:
			_, err = r.gate.Extend(r.ctx, id, int64(1+r.rng.IntN(3)), "test", "")
		case 8:
			_, err = r.gate.Cancel(r.ctx, id, r.rng.IntN(2) == 0, "changed mind", "test")
		default:
			_, err = r.gate.Adjust(r.ctx, lua.AdjustRequest{
				ID: fmt.Sprintf("a-%d", r.rng.IntN(1000)), Fingerprint: "fp",
				Place: sale.Place{SKU: "BAG", Location: "main"}, Field: "on_hand", Amount: 1,
				Reason: "count", Actor: "test",
			})
		}
		must(err)
	}
}

// entries reads the whole chain and verifies it.
func (r *rig) entries() []ledger.Entry {
	r.t.Helper()
	var all []ledger.Entry
	var head ledger.Head
	for {
		page, err := r.ledger.Events(r.ctx, r.id, head.Seq, 5000)
		require.NoError(r.t, err)
		if len(page) == 0 {
			return all
		}
		head, err = head.Verify(r.id, page)
		require.NoError(r.t, err)
		all = append(all, page...)
	}
}

// fold is what the ledger says the shard must be.
func (r *rig) fold() *sale.Books {
	r.t.Helper()
	b := sale.NewBooks(r.id.Sale, r.id.Number)
	for _, e := range r.entries() {
		require.NoError(r.t, b.Apply(&e.Event))
		for p, l := range b.Stock {
			require.NoError(r.t, l.Check(), "P1 at %v", p)
		}
	}
	return b
}

// sameAsFold is property P6: Redis equals the fold of the ledger plus the undrained events, in
// every key. What must be there is written to a Redis of its own and read back.
func (r *rig) sameAsFold() *sale.Books {
	r.t.Helper()
	b := r.fold()
	l, err := r.gate.Look(r.ctx, b.Epoch, b.Seq, 1_000_000)
	require.NoError(r.t, err)
	for _, raw := range l.Events {
		e, err := raw.Parse(r.id.Sale, r.id.Number)
		require.NoError(r.t, err)
		require.NoError(r.t, b.Apply(&e))
	}
	other := connect(r.t, redistest.Mini(r.t).Addr())
	sh := lua.New(other, lua.Options{}).Shard(r.id.Sale, r.id.Number)
	_, err = sh.Close(r.ctx, "t", "")
	require.NoError(r.t, err)
	parts := slices.Collect(lua.Slices(b, 500, 24*3600*1000, l.NowMs))
	for i, part := range parts {
		o, err := sh.Build(r.ctx, b.Epoch, "t", i+1, part)
		require.NoError(r.t, err)
		require.Equal(r.t, sale.Done, o)
	}
	o, err := sh.Flip(r.ctx, b, "t", len(parts), 1<<50)
	require.NoError(r.t, err)
	require.Equal(r.t, sale.Done, o)
	prefix := fmt.Sprintf("fg:{%s:%d}:", r.id.Sale, r.id.Number)
	want := contents(r.t, other, prefix, b.Epoch)
	got := contents(r.t, r.rdb, prefix, b.Epoch)
	require.Equal(r.t, want, got)
	return b
}

// contents reads every key of the shard's epoch in readable form, but for what time and the
// outbox make different.
func contents(t testing.TB, rdb redis.UniversalClient, prefix string, epoch int64) map[string]string {
	t.Helper()
	ctx, out := t.Context(), map[string]string{}
	keys, err := rdb.Keys(ctx, strings.NewReplacer("{", "[{]", "}", "[}]").Replace(prefix)+"*").Result()
	require.NoError(t, err)
	for _, key := range keys {
		name := strings.TrimPrefix(key, prefix)
		if name != "sale" && !strings.HasPrefix(name, fmt.Sprintf("%d:", epoch)) ||
			name == fmt.Sprintf("%d:offers", epoch) { // a hint
			continue
		}
		kind, err := rdb.Type(ctx, key).Result()
		require.NoError(t, err)
		switch kind {
		case "hash":
			fields, err := rdb.HGetAll(ctx, key).Result()
			require.NoError(t, err)
			for f, v := range fields {
				none := f == lua.SettingWaiting && v == "" // as good as not there
				if name != "sale" || f != "last_ms" && f != "watermark" && !none {
					out[name+" "+f] = v
				}
			}
		case "zset":
			for _, z := range rdb.ZRangeWithScores(ctx, key, 0, -1).Val() {
				at := fmt.Sprintf("%.0f", z.Score)
				for member := range strings.SplitSeq(fmt.Sprint(z.Member), "\n") {
					// A member of the deadlines names also those of its holds that are no more.
					record := rdb.HGet(ctx, fmt.Sprintf("%s%d:records", prefix, epoch), member).Val()
					if name != fmt.Sprintf("%d:deadlines", epoch) ||
						strings.HasPrefix(record, "held\n") && strings.Contains(record, "\n"+at+"\n") {
						out[name+" "+member] = at
					}
				}
			}
		case "list":
			for _, entry := range rdb.LRange(ctx, key, 0, -1).Val() {
				at, id, _ := strings.Cut(entry, " ")
				out[name+" "+id] = at
			}
		case "string":
			out[name] = fmt.Sprintf("%q expires %t", rdb.Get(ctx, key).Val(), rdb.TTL(ctx, key).Val() > 0)
		case "stream":
		default:
			t.Fatalf("%s is a %s", key, kind)
		}
	}
	return out
}

// saved is a state of Redis to go back to.
type saved map[string]savedKey

type savedKey struct {
	dump string
	ttl  time.Duration
}

// save and restore stand for a promoted replica that had not come so far. Both are atomic, and for
// real Redis only.
func (r *rig) save() saved {
	r.t.Helper()
	all, err := r.rdb.Eval(r.ctx, `
		local all = {}
		for _, key in ipairs(redis.call('KEYS', 'fg:*')) do
			all[#all + 1] = key
			all[#all + 1] = redis.call('DUMP', key)
			all[#all + 1] = redis.call('PTTL', key)
		end
		return all`, nil).Slice()
	require.NoError(r.t, err)
	s := saved{}
	for i := 0; i < len(all); i += 3 {
		ttl := time.Duration(max(all[i+2].(int64), 0)) * time.Millisecond
		s[all[i].(string)] = savedKey{all[i+1].(string), ttl}
	}
	return s
}

func (r *rig) restore(s saved) {
	r.t.Helper()
	_, err := r.rdb.TxPipelined(r.ctx, func(p redis.Pipeliner) error {
		p.FlushDB(r.ctx)
		for k, v := range s {
			p.Restore(r.ctx, k, v.ttl, v.dump)
		}
		return nil
	})
	require.NoError(r.t, err)
	// The gateway of the other life has no memory of this one.
	r.gate = lua.New(r.rdb, lua.Options{}).Shard("drop", 0)
}

// rebuilds lists the reasons of the rebuilds in the ledger.
func (r *rig) rebuilds() []string {
	r.t.Helper()
	var reasons []string
	for _, e := range r.entries() {
		if e.Type == sale.EventRebuilt {
			_, reason, _ := strings.Cut(e.Data, `"reason":"`)
			reasons = append(reasons, strings.TrimSuffix(reason, `"}`))
		}
	}
	return reasons
}

// killAt lets a reconciler die for good when it is about to take a step for the nth time.
func killAt(name string, n int, died chan<- struct{}) func(*Reconciler) {
	var mu sync.Mutex
	dead := false
	return func(r *Reconciler) {
		r.step = func(_ ledger.Shard, step string) error {
			mu.Lock()
			defer mu.Unlock()
			if !dead && step == name {
				if n--; n <= 0 {
					dead = true
					close(died)
				}
			}
			if dead {
				return errInjected
			}
			return nil
		}
	}
}

// value reads a counter or gauge.
func value(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var d dto.Metric
	require.NoError(t, m.Write(&d))
	return d.GetCounter().GetValue() + d.GetGauge().GetValue()
}
