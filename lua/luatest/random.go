package luatest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// SeedVariable names the environment variable that repeats a random run.
const SeedVariable = "FLASHGATE_TEST_SEED"

// Seed is that of SeedVariable, or a new one; it is printed with every failure.
func Seed(t testing.TB) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(SeedVariable); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		seed = n
	}
	t.Logf("repeat with %s=%d", SeedVariable, seed)
	return seed
}

const randomSteps = 1500

// randomOperations sends the same random operations to the scripts and to the model, and after
// every step compares the answer, every level, and promise 1; every now and then every key of
// Redis with the fold of the events.
func randomOperations(t *testing.T, rdb redis.UniversalClient) {
	randomRunOf(t, rdb, func(*sale.Config) {})
}

// randomWaitlist does the same in a sale with a waitlist and little stock.
func randomWaitlist(t *testing.T, rdb redis.UniversalClient) {
	randomRunOf(t, rdb, func(c *sale.Config) {
		c.Queue = &sale.Queue{Waitlist: &sale.Waitlist{Enabled: true, Max: 30, OfferSeconds: 6}}
		c.Limits, c.Items[0].CapPerCustomer = nil, 3
	})
}

func randomRunOf(t *testing.T, rdb redis.UniversalClient, change func(*sale.Config)) {
	rng := rand.New(rand.NewPCG(Seed(t), 1))
	c := DemoConfig()
	c.Caps = sale.Caps{PerCustomer: 4, PerOrder: 3}
	c.Caps.Tiers = map[string]sale.Tier{"gold": {PerCustomer: 6}, "new": {PerCustomer: 1, PerOrder: 1}}
	c.Items[0].CapPerCustomer = 2
	c.Items[1].Stock[0].OnHand = 6
	c.Groups = []sale.Group{
		{Name: "both", SKUs: []string{"AIR-42", "BAG"}, CapPerCustomer: 5},
		{Name: "bags", SKUs: []string{"BAG"}, CapPerCustomer: 3},
	}
	c.Limits = &sale.Limits{Device: &sale.Limit{Rate: 3, PerSeconds: 86_400, Burst: 3}}
	if rng.IntN(2) == 0 {
		c.Allocation = sale.AllocateMostStock
	}
	change(&c)
	e := NewEnv(t, rdb, c)
	r := &randomRun{Env: e, rng: rng, model: NewModel(c, Base)}
	r.version = sale.Version{Sale: c.Sale, Version: 1, Lifecycle: sale.Live, Config: c}
	for step := range randomSteps {
		what := r.step()
		require.NoError(t, r.model.Check(), "step %d: %s", step, what)
		require.Equal(t, r.model.Stock, e.Levels(), "step %d: %s", step, what)
		for _, item := range c.Items {
			ids, skips := e.Line(item.SKU)
			require.Equal(t, r.model.LineOf(item.SKU), ids, "step %d: %s", step, what)
			require.Equal(t, r.model.Skips[item.SKU], skips, "step %d: %s", step, what)
		}
		if step%100 == 99 {
			require.Equal(t, r.model.Events, e.Books().Seq, "step %d: %s", step, what)
		}
	}
}

type randomRun struct {
	*Env
	rng   *rand.Rand
	model *Model
	// version of the sale that is applied.
	version sale.Version
}

func (r *randomRun) id() string       { return fmt.Sprintf("id-%05d", r.rng.IntN(400)) }
func (r *randomRun) customer() string { return fmt.Sprintf("c-%d", r.rng.IntN(12)) }

func (r *randomRun) request() lua.ReserveRequest {
	q := r.Request(r.id(), r.customer(), sale.PackLines(r.lines()))
	if r.rng.IntN(3) > 0 {
		q.Device = fmt.Sprintf("d-%d", r.rng.IntN(600))
	}
	q.Tier = []string{"", "", "gold", "new", "unheard-of"}[r.rng.IntN(5)]
	return q
}

func (r *randomRun) lines() []sale.Line {
	places := []sale.Line{
		{SKU: "AIR-42", Location: "berlin"},
		{SKU: "AIR-42", Location: "leipzig"},
		{SKU: "AIR-42"},
		{SKU: "BAG", Location: "main"},
		{SKU: "BAG"},
		{SKU: "NONE"},
		{SKU: "BAG", Location: "berlin"},
	}
	var lines []sale.Line
	for range 1 + r.rng.IntN(2) {
		n := len(places)
		if r.rng.IntN(10) > 0 {
			n -= 2
		}
		l := places[r.rng.IntN(n)]
		l.Qty = int64(1 + r.rng.IntN(2))
		lines = append(lines, l)
	}
	return sale.NormalizeLines(lines)
}

func (r *randomRun) step() string {
	switch n := r.rng.IntN(100); {
	case n < 45:
		return r.reserveBatch()
	case n < 55:
		return r.resolve("confirm")
	case n < 65:
		return r.resolve("release")
	case n < 70:
		return r.resolve("keep")
	case n < 73:
		return r.resolve("extend")
	case n < 75:
		return r.pause()
	case n < 80:
		return r.resolve("cancel")
	case n < 87:
		return r.adjust()
	case n < 94:
		r.model.NowMs += int64(r.rng.IntN(4000))
		r.SetNow(r.model.NowMs)
		return "time"
	default:
		x, err := r.Shard.Expire(r.Ctx, lua.MaxBatch)
		require.NoError(r.T, err)
		require.Equal(r.T, r.model.Expire(), x.Expired)
		return "expire"
	}
}

func (r *randomRun) reserveBatch() string {
	var batch []lua.ReserveRequest
	what := "reserve"
	for range 1 + r.rng.IntN(5) {
		batch = append(batch, r.request())
	}
	answers, err := r.Shard.Reserve(r.Ctx, batch)
	require.NoError(r.T, err)
	for i, q := range batch {
		want := r.model.Reserve(q.ID, Asker{q.Customer, q.Device, q.Tier}, q.Lines)
		what += fmt.Sprintf(" %s %s/%s/%s %s -> %s", q.ID, q.Customer, q.Device, q.Tier, sale.PackLines(q.Lines),
			answers[i].Outcome)
		require.Equal(r.T, want, answers[i].Outcome, what)
		if want == sale.Held || want == sale.Replay || want == sale.Waitlisted || want == sale.Waiting {
			r.requireHold(q.ID, answers[i].Reservation, what)
		}
	}
	return what
}

func (r *randomRun) requireHold(id string, got sale.Reservation, what string) {
	want := r.model.Holds[id]
	require.Equal(r.T, *want, Hold{
		State: got.State, Customer: got.Customer, Asked: want.Asked, Lines: got.Lines,
		Deadline: got.DeadlineMs, Extension: got.Extension, Order: got.OrderID,
	}, what)
}

func (r *randomRun) resolve(verb string) string {
	id := r.id()
	var want sale.Outcome
	var got lua.Answer
	var err error
	switch verb {
	case "confirm":
		order := "order-" + strconv.Itoa(r.rng.IntN(2))
		want = r.model.Confirm(id, order)
		got, err = r.Shard.Confirm(r.Ctx, id, order, "test")
	case "release":
		want = r.model.Release(id, nil)
		got, err = r.Shard.Release(r.Ctx, id, nil, "test", "")
	case "keep":
		keep := r.keep(id)
		want = r.model.Release(id, keep)
		got, err = r.Shard.Release(r.Ctx, id, keep, "test", "")
	case "extend":
		n := int64(1 + r.rng.IntN(2))
		want = r.model.Extend(id, n)
		got, err = r.Shard.Extend(r.Ctx, id, n, "test", "")
	case "cancel":
		restock := r.rng.IntN(2) == 0
		want = r.model.Cancel(id, restock)
		got, err = r.Shard.Cancel(r.Ctx, id, restock, "a reason", "test")
	}
	require.NoError(r.T, err)
	what := verb + " " + id
	require.Equal(r.T, want, got.Outcome, what)
	if want != sale.UnknownReservation {
		r.requireHold(id, got.Reservation, what)
	}
	return what
}

func (r *randomRun) keep(id string) []sale.Line {
	if h := r.model.Holds[id]; h != nil && r.rng.IntN(5) > 0 {
		l := h.Lines[0]
		l.Qty = 1
		return []sale.Line{l}
	}
	return []sale.Line{{SKU: "BAG", Location: "main", Qty: int64(1 + r.rng.IntN(2))}}
}

func (r *randomRun) adjust() string {
	id := fmt.Sprintf("adj-%d", r.rng.IntN(60))
	p := sale.Place{SKU: "AIR-42", Location: "leipzig"}
	field, delta := "on_hand", int64(r.rng.IntN(7)-3)
	if r.rng.IntN(3) == 0 {
		field = "safety"
	}
	want := r.model.Adjust(id, p, field, delta)
	got, err := r.Shard.Adjust(r.Ctx, lua.AdjustRequest{
		ID: id, Fingerprint: "same", Place: p, Field: field, Amount: delta, Reason: "count", Actor: "test",
	})
	require.NoError(r.T, err)
	what := fmt.Sprintf("adjust %s %s %d", id, field, delta)
	require.Equal(r.T, want, got.Outcome, what)
	if want == sale.Adjusted {
		require.Equal(r.T, r.model.Adjusted[id], got.Level, what)
	}
	return what
}

// pause pauses the sale or takes it on again.
func (r *randomRun) pause() string {
	next := r.version
	next.Version++
	if next.Lifecycle == sale.Live && r.rng.IntN(2) == 0 {
		next.Lifecycle = sale.Paused
	} else {
		next.Lifecycle = sale.Live
	}
	a, err := r.Shard.Apply(r.Ctx, &r.version, next)
	require.NoError(r.T, err)
	require.Equal(r.T, sale.Applied, a.Outcome)
	r.version = next
	r.model.Apply(next.Lifecycle)
	return "sale is " + string(next.Lifecycle)
}
