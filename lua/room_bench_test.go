package lua_test

import (
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

// roomBench is a sale with a waiting room of 200 people a second that has so many in line already.
func roomBench(b *testing.B, waiting int) (*luatest.Env, lua.RoomID, func(n int) []lua.RoomJoin) {
	server := redistest.Start(b)
	rdb := lua.Connect(lua.ConnectOptions{Addrs: []string{server.Addr()}, ReadTimeout: 20 * time.Second})
	b.Cleanup(func() { _ = rdb.Close() })
	c := luatest.RoomConfig()
	c.Items[1].Stock[0].OnHand = 1_000_000_000
	c.Queue.WaitingRoom.AdmitPerSecond = 200
	e := luatest.NewEnv(b, rdb, c)
	room := lua.RoomID{ID: "ABCDEFGHIJKLM", Seed: strings.Repeat("s", 52), Commit: strings.Repeat("c", 64)}
	count := 0
	next := func(n int) []lua.RoomJoin {
		batch := make([]lua.RoomJoin, n)
		for i := range batch {
			count++
			batch[i].Customer = "customer-" + strconv.Itoa(1_000_000+count)
		}
		return batch
	}
	for range waiting / 100 {
		join(b, e, room, next(100))
	}
	return e, room, next
}

func join(b *testing.B, e *luatest.Env, room lua.RoomID, batch []lua.RoomJoin) {
	j, err := e.Shard.RoomJoin(e.Ctx, room.ID, room, batch)
	if err != nil || j.Outcome != sale.Done {
		b.Fatal(err, j.Outcome)
	}
}

// BenchmarkRoomJoin measures joining a room in which 100,000 wait; compare redis-us/join with redis-us/reserve of
// BenchmarkReserve/plain.
func BenchmarkRoomJoin(b *testing.B) {
	for _, batch := range []int{1, 32, 128} {
		b.Run("batch="+strconv.Itoa(batch), func(b *testing.B) {
			e, room, next := roomBench(b, 100_000)
			n, before := 0, redistest.CPU(b, e.Redis)
			for b.Loop() {
				join(b, e, room, next(batch))
				n += batch
			}
			b.ReportMetric((redistest.CPU(b, e.Redis)-before)/float64(n)*1e6, "redis-us/join")
		})
	}
}

// BenchmarkRoomTick measures what a gateway costs Redis every quarter of a second in a room in which 100,000 wait,
// however many of them read their tickets: looking, and admitting 50.
func BenchmarkRoomTick(b *testing.B) {
	e, room, _ := roomBench(b, 100_000)
	ranks := []int64{}
	for r := 0.0; r < 106_000; r = max(r+1, r*1.06) {
		ranks = append(ranks, int64(r))
	}
	now, since, admitted := luatest.Base, int64(0), int64(0)
	var admitting, looking float64
	n := 0
	for b.Loop() {
		n++
		now += 250
		e.SetNow(now)
		heard := make([]lua.RoomHeard, 50)
		for i := range heard {
			heard[i].Customer = "customer-" + strconv.Itoa(1_000_000+1+(n-1)*50+i)
		}
		_, err := e.Shard.RoomBeat(e.Ctx, room.ID, heard)
		require.NoError(b, err)
		at := redistest.CPU(b, e.Redis)
		got, err := e.Shard.RoomAdmit(e.Ctx, "gateway", 100)
		require.NoError(b, err)
		admitted += got
		mid := redistest.CPU(b, e.Redis)
		state, err := e.Shard.RoomLook(e.Ctx, since, 10_000, ranks)
		require.NoError(b, err)
		end := redistest.CPU(b, e.Redis)
		admitting, looking, since = admitting+mid-at, looking+end-mid, state.Head.NowMs
		if admitted > 90_000 {
			break
		}
	}
	b.ReportMetric(float64(admitted)/float64(n), "admitted/tick")
	b.ReportMetric(admitting/float64(n)*1e6, "redis-us/admit")
	b.ReportMetric(looking/float64(n)*1e6, "redis-us/look")
}

// BenchmarkRoomMemory reports the bytes of Redis that a ticket takes.
func BenchmarkRoomMemory(b *testing.B) {
	for b.Loop() {
		const tickets = 100_000
		e, room, next := roomBench(b, 100) // the keys are there
		before := redistest.Memory(b, e.Redis)
		for range tickets / 100 {
			join(b, e, room, next(100))
		}
		b.ReportMetric(float64(redistest.Memory(b, e.Redis)-before)/tickets, "bytes/ticket")
	}
}
