package lua_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/lua/luatest"
	"flashgate/sale"
)

// limitedConfig has a rule for every dimension with this burst, that comes back within so many seconds.
func limitedConfig(burst, seconds int64) func(*sale.Config) {
	return func(c *sale.Config) {
		rule := &sale.Limit{Rate: burst, PerSeconds: seconds, Burst: burst}
		c.Limits = &sale.Limits{Customer: rule, IP: rule, Device: rule}
	}
}

// groupedConfig has limits, a tier, and a group of one SKU that is asked for and one that is not.
func groupedConfig(c *sale.Config) {
	limitedConfig(10, 2)(c)
	c.Caps.Tiers = map[string]sale.Tier{"gold": {PerCustomer: 4}, "staff": {PerCustomer: 1}}
	c.Groups = []sale.Group{{Name: "any", SKUs: []string{"AIR-42", "BAG"}, CapPerCustomer: 2}}
}

// reserveLoads are what BenchmarkReserve measures. Every reservation is held, with caps per customer,
// SKU and order, one line, and a customer, an address and a device of its own; those that are refused
// come from 1,000 of each that have spent their burst. Long limits are looked up in two generations,
// those of seconds in one, but for the first seconds of each.
var reserveLoads = []struct {
	name    string
	config  func(*sale.Config)
	refused bool
}{
	{"plain", func(*sale.Config) {}, false},
	{"limits", limitedConfig(10, 2), false},
	{"long limits", limitedConfig(10, 3600), false},
	{"limits+groups+tier", groupedConfig, false},
	{"refused", limitedConfig(1, 3600), true},
}

// BenchmarkReserve measures the reserve script alone on a real Redis, one connection.
func BenchmarkReserve(b *testing.B) {
	for _, load := range reserveLoads {
		for _, batch := range []int{1, 32, 128} {
			b.Run(load.name+"/batch="+strconv.Itoa(batch), func(b *testing.B) {
				benchmarkReserve(b, batch, load.config, load.refused)
			})
		}
	}
}

func benchmarkReserve(b *testing.B, batch int, config func(*sale.Config), refused bool) {
	const refusedOnes = 1024
	server := redistest.Start(b)
	rdb := lua.Connect(lua.ConnectOptions{Addrs: []string{server.Addr()}, ReadTimeout: 20 * time.Second})
	defer func() { _ = rdb.Close() }()
	c := luatest.DemoConfig()
	c.Caps = sale.Caps{PerCustomer: 2, PerOrder: 2}
	c.Items[1].CapPerCustomer, c.Items[1].Stock[0].OnHand = 1, 1_000_000_000
	c.HoldSeconds, c.OpensAt = 30_000, 1
	config(&c)
	e := luatest.NewEnv(b, rdb, c)
	e.SetNow(time.Now().UnixMilli())
	shard := lua.New(rdb, lua.Options{MaxClockStepMs: 1 << 50, StreamMaxEvents: 1 << 50}).Shard("drop", 0)
	requests, n := make([]lua.ReserveRequest, batch), 0
	next := func() {
		for i := range requests {
			n++
			who := n
			if refused {
				who %= refusedOnes
			}
			of := strconv.Itoa(who)
			requests[i] = e.Request("reservation-"+strconv.Itoa(n), "customer-"+of, "BAG/main=1")
			requests[i].IP, requests[i].Device, requests[i].Tier = "2001:db8:0:"+of+"::/64", "device-"+of, "gold"
		}
	}
	// As in the middle of a drop: others are in the generation of limits before this one.
	for range 16_384 / batch {
		next()
		_, err := shard.Reserve(e.Ctx, requests)
		require.NoError(b, err)
	}
	if c.Limits != nil {
		at, err := rdb.HGet(e.Ctx, e.SaleKey(), "limits_at").Result()
		require.NoError(b, err)
		earlier, _, _ := strings.Cut(at, ",")
		window, began := c.Limits.WindowMs(), time.Now().Add(-3*time.Second).UnixMilli()
		at = fmt.Sprintf("%d,%d,%s,%d", began, window, earlier, window)
		require.NoError(b, rdb.HSet(e.Ctx, e.SaleKey(), "limits_at", at).Err())
	}
	want := sale.Held
	if refused {
		want = sale.RateLimited
	}
	first, before := n, redistest.CPU(b, rdb)
	b.ResetTimer()
	for b.Loop() {
		next()
		answers, err := shard.Reserve(e.Ctx, requests)
		if err != nil || answers[batch-1].Outcome != want {
			b.Fatalf("%v %+v", err, answers)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(n-first)/b.Elapsed().Seconds(), "reserves/s")
	b.ReportMetric((redistest.CPU(b, rdb)-before)/float64(n-first)*1e6, "redis-us/reserve")
}
