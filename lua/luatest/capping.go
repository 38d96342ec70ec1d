package luatest

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// ask sends one request of somebody and returns its answer.
func (e *Env) ask(id, customer, packed string, change func(*lua.ReserveRequest)) lua.Answer {
	e.T.Helper()
	q := e.Request(id, customer, packed)
	change(&q)
	a, err := e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{q})
	require.NoError(e.T, err)
	return a[0]
}

func tiers(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.Caps = sale.Caps{PerCustomer: 2, PerOrder: 2, Tiers: map[string]sale.Tier{
		"gold": {PerCustomer: 5, PerOrder: 4}, "new": {PerCustomer: 1}, "gold-new": {PerOrder: 1},
	}}
	c.Items[0].CapPerCustomer = 1
	e := NewEnv(t, rdb, c)
	n := 0
	try := func(tier, customer, packed string) lua.Answer {
		n++
		return e.ask(fmt.Sprintf("tier-%04d", n), customer, packed, func(q *lua.ReserveRequest) { q.Tier = tier })
	}
	require.Equal(t, lua.CapBreach{Scope: "order", Cap: 2, Requested: 3}, try("", "c-1", "BAG/=3").Cap)
	require.Equal(t, lua.CapBreach{Scope: "order", Cap: 4, Requested: 5}, try("gold", "c-1", "BAG/=5").Cap)
	require.Equal(t, sale.Held, try("gold", "c-1", "BAG/=4").Outcome)
	require.Equal(t, lua.CapBreach{Scope: "sale", Cap: 5, InUse: 4, Requested: 2}, try("gold", "c-1", "BAG/=2").Cap)
	require.Equal(t, lua.CapBreach{Scope: "sale", Cap: 2, InUse: 4, Requested: 1}, try("", "c-1", "BAG/=1").Cap)
	require.Equal(t, lua.CapBreach{Scope: "sale", Cap: 1, Requested: 2}, try("new", "c-2", "BAG/=2").Cap)
	require.Equal(t, lua.CapBreach{Scope: "order", Cap: 1, Requested: 2}, try("gold-new", "c-2", "BAG/=2").Cap)
	require.Equal(t, lua.CapBreach{Scope: "sku", SKU: "AIR-42", Cap: 1, Requested: 2}, try("gold", "c-2", "AIR-42/=2").Cap)
	// Nothing but a whole name is one.
	for _, tier := range []string{
		"GOLD", "gol", "old", "-new", "gold=5,4;new", "new=1,0;gold", "%a+", ";", "=", "ünknown",
	} {
		require.Equal(t, lua.CapBreach{Scope: "order", Cap: 2, Requested: 3}, try(tier, "c-3", "BAG/=3").Cap, tier)
	}
	// Two tiers in one batch are apart.
	batch := []lua.ReserveRequest{e.Request("both-0001", "c-4", "BAG/=3"), e.Request("both-0002", "c-5", "BAG/=3")}
	batch[0].Tier = "gold"
	answers, err := e.Shard.Reserve(e.Ctx, batch)
	require.NoError(t, err)
	require.Equal(t, sale.Held, answers[0].Outcome)
	require.Equal(t, sale.CapExceeded, answers[1].Outcome)
	e.Books()
}

// groupedConfig has three sizes of one pair: two may be held together.
func groupedConfig() sale.Config {
	c := DemoConfig()
	c.Items = nil
	for _, sku := range []string{"AIR-42", "AIR-43", "XAIR-42", "AIR-4", "BAG"} {
		c.Items = append(c.Items, sale.Item{SKU: sku, Stock: []sale.Stock{
			{Location: "a", OnHand: 50}, {Location: "b", OnHand: 50},
		}})
	}
	c.Groups = []sale.Group{
		{Name: "pair", SKUs: []string{"AIR-42", "AIR-43"}, CapPerCustomer: 2},
		{Name: "all-42", SKUs: []string{"XAIR-42", "AIR-42"}, CapPerCustomer: 3},
	}
	return c
}

func groups(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, groupedConfig())
	e.MustHold("c-1", "AIR-42/=1")
	a := e.Reserve("group-001", "c-1", "AIR-43/a=1;AIR-43/b=1")
	require.Equal(t, lua.CapBreach{Scope: "group", Group: "pair", Cap: 2, InUse: 1, Requested: 2}, a.Cap)
	// AIR-4 and XAIR-42 are not of the pair, whatever their names are part of.
	e.MustHold("c-1", "AIR-4/=5;BAG/=5")
	e.MustHold("c-1", "XAIR-42/=1")
	id := e.MustHold("c-1", "AIR-43/=1")
	require.Equal(t, "pair", e.Reserve("group-002", "c-1", "AIR-42/=1").Cap.Group)
	require.Equal(t, lua.CapBreach{Scope: "group", Group: "all-42", Cap: 3, InUse: 2, Requested: 2},
		e.Reserve("group-003", "c-1", "XAIR-42/=2").Cap)
	e.MustHold("c-1", "XAIR-42/=1")
	// A cart counts in all its groups.
	a = e.Reserve("group-004", "c-2", "AIR-42/=1;AIR-43/=2")
	require.Equal(t, lua.CapBreach{Scope: "group", Group: "pair", Cap: 2, Requested: 3}, a.Cap)
	a = e.Reserve("group-005", "c-2", "AIR-42/=2;XAIR-42/=2;BAG/=1")
	require.Equal(t, lua.CapBreach{Scope: "group", Group: "all-42", Cap: 3, Requested: 4}, a.Cap)
	require.Zero(t, e.Levels()[sale.Place{SKU: "BAG", Location: "b"}].Held)
	e.MustHold("c-2", "AIR-42/=2;XAIR-42/=1")
	// What is sold counts as what is held.
	_, err := e.Shard.Confirm(e.Ctx, id, "order-1", "test")
	require.NoError(t, err)
	require.Equal(t, "pair", e.Reserve("group-006", "c-1", "AIR-43/=1").Cap.Group)
	// The sale's cap and the order's come first, the SKU's last.
	c := e.Config
	c.Caps.PerCustomer, c.Items = 1, append([]sale.Item(nil), c.Items...)
	c.Items[0].CapPerCustomer = 1
	two := version(2, c)
	one := version(1, e.Config)
	applied, err := e.Shard.Apply(e.Ctx, &one, two)
	require.NoError(t, err)
	require.Equal(t, sale.Applied, applied.Outcome)
	require.Equal(t, "sale", e.Reserve("group-007", "c-3", "AIR-42/=3").Cap.Scope)
	c.Caps.PerCustomer, c.Groups = 0, []sale.Group{{Name: "alone", SKUs: []string{"AIR-42"}, CapPerCustomer: 2}}
	applied, err = e.Shard.Apply(e.Ctx, &two, version(3, c))
	require.NoError(t, err)
	require.Equal(t, sale.Applied, applied.Outcome)
	require.Equal(t, "alone", e.Reserve("group-007", "c-3", "AIR-42/=3").Cap.Group)
	require.Equal(t, "sku", e.Reserve("group-007", "c-3", "AIR-42/=2").Cap.Scope)
	e.MustHold("c-1", "AIR-43/=3")
	e.Books()
}

func groupFreed(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, groupedConfig())
	id := e.MustHold("c-1", "AIR-42/=1;AIR-43/=1")
	take := func(id string) sale.Outcome { return e.Reserve(id, "c-1", "AIR-43/=2").Outcome }
	require.Equal(t, sale.CapExceeded, take("freed-001"))
	_, err := e.Shard.Release(e.Ctx, id, []sale.Line{{SKU: "AIR-42", Location: "a", Qty: 1}}, "test", "")
	require.NoError(t, err)
	require.Equal(t, sale.CapExceeded, take("freed-001"))
	_, err = e.Shard.Release(e.Ctx, id, nil, "test", "")
	require.NoError(t, err)
	require.Equal(t, sale.Held, take("freed-001"))
	e.SetNow(Base + 10_000)
	require.Equal(t, sale.Again, take("freed-002"), "the cap is taken by a hold that is over")
	_, err = e.Shard.Expire(e.Ctx, 10)
	require.NoError(t, err)
	require.Equal(t, sale.Held, take("freed-002"))
	e.Books()
}

// largestGroups guards that as many members as there may be are found, one by one and, for a batch of
// many SKUs, all at once.
func largestGroups(t *testing.T, rdb redis.UniversalClient) {
	c := DemoConfig()
	c.Items = nil
	all := make([]string, 5000)
	for i := range all {
		all[i] = fmt.Sprintf("SKU-%d", i)
		c.Items = append(c.Items, sale.Item{SKU: all[i], Stock: []sale.Stock{{Location: "main", OnHand: 9}}})
	}
	c.Groups = []sale.Group{
		{Name: "all", SKUs: all, CapPerCustomer: 20},
		{Name: "odd", SKUs: []string{"SKU-1", "SKU-3"}, CapPerCustomer: 1},
	}
	e := NewEnv(t, rdb, c)
	require.Equal(t, "odd", e.Reserve("large-001", "c-1", "SKU-1/=1;SKU-3/=1").Cap.Group)
	e.MustHold("c-1", "SKU-4999/=9;SKU-49/=9;SKU-1/=1")
	var batch []lua.ReserveRequest
	for i := range 10 {
		cart := ""
		for j := range sale.MaxLines {
			cart += fmt.Sprintf("SKU-%d/main=1;", 100+i*sale.MaxLines+j)
		}
		batch = append(batch, e.Request(fmt.Sprintf("cart-%04d", i), fmt.Sprintf("c-%d", 10+i), cart[:len(cart)-1]))
	}
	batch = append(batch, e.Request("cart-1001", "c-1", "SKU-2/=2"), e.Request("cart-1002", "c-1", "SKU-3/=1"),
		e.Request("cart-1003", "c-1", "SKU-2/=1"), e.Request("cart-1004", "c-10", "SKU-9/=1"))
	began := time.Now()
	answers, err := e.Shard.Reserve(e.Ctx, batch)
	require.NoError(t, err)
	t.Logf("carts of %d SKUs of a group of %d: %v", 10*sale.MaxLines, len(all), time.Since(began))
	for _, a := range answers[:10] {
		require.Equal(t, sale.Held, a.Outcome)
	}
	require.Equal(t, lua.CapBreach{Scope: "group", Group: "all", Cap: 20, InUse: 19, Requested: 2}, answers[10].Cap)
	require.Equal(t, lua.CapBreach{Scope: "group", Group: "odd", Cap: 1, InUse: 1, Requested: 1}, answers[11].Cap)
	require.Equal(t, sale.Held, answers[12].Outcome)
	require.Equal(t, lua.CapBreach{Scope: "group", Group: "all", Cap: 20, InUse: 20, Requested: 1}, answers[13].Cap)
	e.Books()
}

func owners(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	id := e.MustHold("c-1", "BAG/=2")
	for _, other := range []string{"c-2", "c-", "c-1 ", "C-1", "c-1\n"} {
		a, err := e.Shard.Extend(e.Ctx, id, 1, "test", other)
		require.NoError(t, err)
		require.Equal(t, sale.UnknownReservation, a.Outcome, other)
		require.Empty(t, a.Reservation, "nothing is told of it")
		a, err = e.Shard.Release(e.Ctx, id, nil, "test", other)
		require.NoError(t, err)
		require.Equal(t, sale.UnknownReservation, a.Outcome, other)
		require.Empty(t, a.Reservation)
	}
	require.Equal(t, int64(2), e.Level("BAG", "main").Held)
	a, err := e.Shard.Extend(e.Ctx, id, 1, "test", "c-1")
	require.NoError(t, err)
	require.Equal(t, sale.Extended, a.Outcome)
	a, err = e.Shard.Release(e.Ctx, id, nil, "test", "c-1")
	require.NoError(t, err)
	require.Equal(t, sale.Released, a.Outcome)
	a, err = e.Shard.Release(e.Ctx, id, nil, "test", "c-2")
	require.NoError(t, err)
	require.Equal(t, sale.UnknownReservation, a.Outcome, "nor what became of it")
	e.Books()
}

func onceOnly(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, DemoConfig())
	got := together(t, 50, func(int) (sale.Outcome, error) {
		first, err := e.Shard.Once(e.Ctx, "token: {é} \"1\"", time.Minute)
		if first {
			return sale.Done, err
		}
		return sale.Replay, err
	})
	require.Equal(t, map[sale.Outcome]int{sale.Done: 1, sale.Replay: 49}, got)
	first, err := e.Shard.Once(e.Ctx, "token-2", time.Minute)
	require.NoError(t, err)
	require.True(t, first)
	ttl, err := rdb.PTTL(e.Ctx, e.key("o:token-2")).Result()
	require.NoError(t, err)
	require.Greater(t, ttl, time.Duration(0))
	require.LessOrEqual(t, ttl, time.Minute)
	// Whoever has not heard of the epoch must not count in another.
	rebuild(e, e.Books(), 100)
	_, err = e.Shard.Once(e.Ctx, "token-3", time.Minute)
	require.NoError(t, err)
	late := lua.New(rdb, lua.Options{MaxClockStepMs: 1 << 50}).Shard(e.Config.Sale, 0)
	first, err = late.Once(e.Ctx, "token-3", time.Minute)
	require.NoError(t, err)
	require.False(t, first)
	_, err = e.Store.Shard("no-such-sale", 0).Once(e.Ctx, "token-3", time.Minute)
	require.ErrorIs(t, err, lua.ErrRefused)
}
