package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/lua"
	"flashgate/sale"
)

const (
	scaleBatch  = 32     // reserves of one call
	scaleWindow = 2_048  // reserves of one round
	scaleTrim   = 16_384 // events after which the stream is trimmed, as the reconciler does
)

// scaled is a sale straight in Redis, without a ledger: caps per customer, SKU and order, holds that do not end
// meanwhile, a customer of its own for each reservation, which takes one unit of any SKU.
type scaled struct {
	b     *testing.B
	id    string
	shard *lua.Shard
	lines [][]sale.Line
	rng   *rand.Rand
	made  int
	since int // events since the last trim
}

func newScaled(b *testing.B, rdb redis.UniversalClient, id string, skus int) *scaled {
	b.Helper()
	now := sale.Moment(time.Now().UnixMilli())
	c := sale.Config{
		Sale: id, OpensAt: now, ClosesAt: now + 24*3_600_000, HoldSeconds: 36_000,
		Caps: sale.Caps{PerCustomer: 2, PerOrder: 2}, Allocation: sale.AllocatePriority,
	}
	s := &scaled{b: b, id: id, rng: rand.New(rand.NewPCG(1, 2))}
	for i := range skus {
		sku := fmt.Sprintf("SKU-%05d", i)
		c.Items = append(c.Items, sale.Item{
			SKU: sku, CapPerCustomer: 1, Stock: []sale.Stock{{Location: "main", OnHand: 100_000_000}},
		})
		s.lines = append(s.lines, []sale.Line{{SKU: sku, Location: "main", Qty: 1}})
	}
	s.shard = lua.New(rdb, lua.Options{StreamMaxEvents: 1 << 50, MaxClockStepMs: 1 << 50}).Shard(id, 0)
	a, err := s.shard.Apply(b.Context(), nil, sale.Version{
		Sale: id, Version: 1, Lifecycle: sale.Live, Config: c, Actor: "bench",
	})
	require.NoError(b, err)
	require.Equal(b, sale.Applied, a.Outcome)
	return s
}

// reserve takes so many holds, a call for each batch.
func (s *scaled) reserve(holds, size int) {
	s.b.Helper()
	requests := make([]lua.ReserveRequest, size)
	for done := 0; done < holds; {
		batch := requests[:min(size, holds-done)]
		for i := range batch {
			s.made++
			customer := fmt.Sprintf("customer-%08d", s.made)
			lines := s.lines[s.rng.IntN(len(s.lines))]
			batch[i] = lua.ReserveRequest{
				ID: fmt.Sprintf("reservation-%08d", s.made), Customer: customer, Lines: lines, Actor: "key:shop",
				Fingerprint: sale.Fingerprint(s.id, customer, lines),
			}
		}
		answers, err := s.shard.Reserve(s.b.Context(), batch)
		require.NoError(s.b, err)
		require.Equal(s.b, sale.Held, answers[len(answers)-1].Outcome)
		done += len(batch)
		if s.since += len(batch); s.since >= scaleTrim {
			s.trim()
		}
	}
}

// trim does what the reconciler does once the ledger has the events.
func (s *scaled) trim() {
	s.b.Helper()
	s.since = 0
	epoch := s.shard.Epoch()
	l, err := s.shard.Look(s.b.Context(), epoch, 0, 1)
	require.NoError(s.b, err)
	done, err := s.shard.Trim(s.b.Context(), epoch, l.Seq, l.Mark, 0)
	require.NoError(s.b, err)
	require.Equal(s.b, sale.Done, done)
}

// cost is what one of these reserves costs Redis, in us.
func (s *scaled) cost(rdb redis.UniversalClient) float64 {
	s.b.Helper()
	before := redistest.CPU(s.b, rdb)
	s.reserve(scaleWindow, scaleBatch)
	used := redistest.CPU(s.b, rdb) - before
	s.trim()
	return used / scaleWindow * 1e6
}

func scaleClient(b *testing.B, cluster bool, addrs ...string) redis.UniversalClient {
	rdb := lua.Connect(lua.ConnectOptions{Addrs: addrs, Cluster: cluster, ReadTimeout: 20 * time.Second})
	b.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// scaleHolds gives each level a Redis of its own. Small sales are made anew each round, so that they stay small:
// at a thousand a round ends with three.
func scaleHolds(b *testing.B, f *figures) {
	const rounds, small = 11, 10_000
	type at struct {
		rdb   redis.UniversalClient
		sale  *scaled
		empty int64
	}
	servers := map[int]*at{}
	for _, level := range f.levels {
		s := &at{rdb: scaleClient(b, false, redistest.Start(b).Addr())}
		s.sale = newScaled(b, s.rdb, "drop", 1)
		s.sale.reserve(128, 128) // The scripts are in memory from now on.
		if level > small {
			s.empty = redistest.Memory(b, s.rdb)
			s.sale.reserve(level-128, 128)
		}
		servers[level] = s
	}
	for range rounds {
		for _, level := range f.levels {
			s := servers[level]
			if level <= small {
				require.NoError(b, s.rdb.FlushAll(b.Context()).Err())
				s.sale = newScaled(b, s.rdb, "drop", 1)
				s.empty = redistest.Memory(b, s.rdb)
				s.sale.reserve(level, 128)
			}
			s.sale.trim()
			bytes := float64(redistest.Memory(b, s.rdb)-s.empty) / float64(s.sale.made)
			f.add(level, scaleWindow, metric{s.sale.cost(s.rdb), redisMetric}, metric{bytes, "bytes/hold"})
		}
	}
}

// scaleSKUs has all sales in one Redis.
func scaleSKUs(b *testing.B, f *figures) {
	const rounds = 15
	rdb := scaleClient(b, false, redistest.Start(b).Addr())
	sales := map[int]*scaled{}
	for _, level := range f.levels {
		sales[level] = newScaled(b, rdb, fmt.Sprintf("skus-%d", level), level)
		sales[level].reserve(2*level+scaleWindow, 128)
	}
	for range rounds {
		for _, level := range f.levels {
			f.add(level, scaleWindow, metric{sales[level].cost(rdb), redisMetric})
		}
	}
}

// scaleSales sends each batch to the next of so many sales. busiest is the part of all that the busiest of the
// four nodes did: what it leaves is how much faster the cluster is than one Redis.
func scaleSales(b *testing.B, f *figures) {
	const rounds = 15
	nodes := redistest.StartNodes(b, 4)
	rdb := scaleClient(b, true, nodes.Addrs()...)
	sales := map[int][]*scaled{}
	for _, level := range f.levels {
		for i := range level {
			s := newScaled(b, rdb, fmt.Sprintf("sale-%d-%d", level, i), 1)
			s.reserve(1_000, 128) // beyond what Redis keeps in its small encodings
			sales[level] = append(sales[level], s)
		}
	}
	next := map[int]int{}
	for range rounds {
		for _, level := range f.levels {
			before, was := redisCPU(b, nodes)
			const reserves = 2 * 100 * scaleBatch // twice each of a hundred
			for range reserves / scaleBatch {
				next[level]++
				sales[level][next[level]%level].reserve(scaleBatch, scaleBatch)
			}
			after, is := redisCPU(b, nodes)
			most := 0.0
			for i := range is {
				most = max(most, (is[i]-was[i])/(after-before))
			}
			f.add(level, reserves, metric{(after - before) / reserves * 1e6, redisMetric}, metric{most, "busiest"})
		}
	}
}
