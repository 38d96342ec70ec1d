package luatest

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// RoomConfig is DemoConfig with a waiting room: 10 people a second, admissions of a minute, ten minutes
// of presale, 30 s of grace.
func RoomConfig() sale.Config {
	c := DemoConfig()
	c.Queue = &sale.Queue{WaitingRoom: &sale.WaitingRoom{
		Enabled: true, AdmitPerSecond: 10, AdmissionSeconds: 60, PresaleSeconds: 600, GraceSeconds: 30,
	}}
	return c
}

var madeRoom = lua.RoomID{ID: "room-1", Seed: "seed-1", Commit: "commit-1"}

// Join puts customers in line, all with the same order in a draw of the room that Join makes.
func (e *Env) Join(order int64, customers ...string) []int64 {
	e.T.Helper()
	batch := make([]lua.RoomJoin, len(customers))
	for i, c := range customers {
		batch[i] = lua.RoomJoin{Customer: c, Order: order}
	}
	j, err := e.Shard.RoomJoin(e.Ctx, madeRoom.ID, madeRoom, batch)
	require.NoError(e.T, err)
	require.Equal(e.T, sale.Done, j.Outcome)
	require.Equal(e.T, madeRoom, j.Room)
	numbers := make([]int64, len(customers))
	for i, p := range j.Each {
		require.Equal(e.T, sale.Done, p.Outcome)
		numbers[i] = p.Number
	}
	return numbers
}

// Beat tells the room that customers are there.
func (e *Env) Beat(customers ...string) []string {
	e.T.Helper()
	heard := make([]lua.RoomHeard, len(customers))
	for i, c := range customers {
		heard[i].Customer = c
	}
	strangers, err := e.Shard.RoomBeat(e.Ctx, madeRoom.ID, heard)
	require.NoError(e.T, err)
	return strangers
}

// Admit admits at a time, and returns who was.
func (e *Env) Admit(nowMs int64) []string {
	e.T.Helper()
	e.SetNow(nowMs)
	n, err := e.Shard.RoomAdmit(e.Ctx, "gateway-1", 100)
	require.NoError(e.T, err)
	if n == 0 {
		return nil
	}
	var who []string
	for _, news := range e.Look(nowMs).News {
		if news.What == lua.RoomAdmitted && news.AtMs == nowMs {
			who = append(who, news.Customer)
		}
	}
	require.Len(e.T, who, int(n))
	return who
}

// Look reads the room.
func (e *Env) Look(sinceMs int64, ranks ...int64) lua.RoomState {
	e.T.Helper()
	s, err := e.Shard.RoomLook(e.Ctx, sinceMs, 10_000, ranks)
	require.NoError(e.T, err)
	require.Equal(e.T, sale.Done, s.Outcome)
	return s
}

func names(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = prefix + fmt.Sprintf("%04d", i+1)
	}
	return all
}

func roomJoin(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, RoomConfig())
	require.Equal(t, []int64{1, 2, 3}, e.Join(0, "c-1", "c-2", "c-3"))
	require.Equal(t, []int64{2, 4, 4}, e.Join(0, "c-2", "c-4", "c-4"), "joining again gives the same place")
	s := e.Look(0, 0, 1, 3, 4)
	require.Equal(t, madeRoom, s.Room)
	require.Equal(t, []int64{lua.RoomLate + 1, lua.RoomLate + 2, lua.RoomLate + 4}, s.Orders)
	require.EqualValues(t, 4, s.InLine)
	require.EqualValues(t, 4, s.Late)
	require.EqualValues(t, 4, s.Next)
	require.Empty(t, s.News)
	require.Negative(t, s.Free, "not counted yet")
	require.Empty(t, e.Admit(Base+1))
	require.EqualValues(t, 107, e.Look(0).Free)

	other := lua.RoomID{ID: "room-2", Seed: "seed-2", Commit: "commit-2"}
	j, err := e.Shard.RoomJoin(e.Ctx, "", other, []lua.RoomJoin{{Customer: "c-5"}})
	require.NoError(t, err)
	require.Equal(t, madeRoom, j.Room, "there is one room")
}

func roomDraw(t *testing.T, rdb redis.UniversalClient) {
	c := RoomConfig()
	c.OpensAt += 700_000
	c.ClosesAt += 700_000
	e := NewEnv(t, rdb, c)
	join := func(of string, made lua.RoomID) lua.RoomJoined {
		j, err := e.Shard.RoomJoin(e.Ctx, of, made, []lua.RoomJoin{{Customer: "c-1", Order: 7}})
		require.NoError(t, err)
		return j
	}
	j := join("", madeRoom)
	require.Equal(t, sale.NotOpen, j.Outcome)
	require.Equal(t, Base+100_000, j.OpensMs)
	e.SetNow(Base + 100_000)
	j = join("a lost room", madeRoom)
	require.Equal(t, sale.Again, j.Outcome)
	require.Equal(t, madeRoom, j.Room)
	require.Empty(t, e.Look(0).Room.ID)
	require.Equal(t, sale.Done, join(madeRoom.ID, madeRoom).Outcome)
	j = join("", lua.RoomID{ID: "room-2", Seed: "seed-2", Commit: "commit-2"})
	require.Equal(t, sale.Again, j.Outcome, "the order was drawn for a room that is not made")
	require.Equal(t, madeRoom, j.Room)

	require.Equal(t, []int64{0}, e.Join(5, "c-2"))
	require.Empty(t, e.Admit(Base+699_999))
	e.SetNow(Base + 700_000)
	require.Equal(t, []int64{1}, e.Join(3, "c-3"), "later ones stand behind, whatever their order")
	require.Equal(t, []int64{5, 7, lua.RoomLate + 1}, e.Look(0, 0, 1, 2).Orders)
	e.Beat("c-1", "c-2", "c-3")
	require.Empty(t, e.Admit(Base+700_050), "no credit from before the opening")
	require.Equal(t, []string{"c-1", "c-2"}, sorted(e.Admit(Base+700_200)))
	require.Equal(t, []string{"c-3"}, e.Admit(Base+700_400))
}

func sorted(list []string) []string {
	out := append([]string{}, list...)
	for i := range out {
		for j := i; j > 0 && out[j] < out[j-1]; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}

func roomRate(t *testing.T, rdb redis.UniversalClient) {
	c := RoomConfig()
	c.Items[1].Stock[0].OnHand = 100_000
	e := NewEnv(t, rdb, c)
	all := names("c-", 1000)
	for i := 0; i < len(all); i += 100 {
		e.Join(0, all[i:i+100]...)
	}
	now, admitted := Base, 0
	for range 100 { // 25 s at a tick of 250 ms, the caller changes
		now += 250
		admitted += len(e.Admit(now))
		e.Beat(all...)
	}
	require.Equal(t, 250, admitted, "exactly the rate")
	require.Empty(t, e.Admit(now+199), "sooner than a tick nothing is due")
	require.Len(t, e.Admit(now+2500), 25, "a gap is made up for")
	now += 2500
	require.Len(t, e.Admit(now+20_000), 30, "but not a long one")
	now += 20_000

	n, err := e.Shard.RoomAdmit(e.Ctx, "slow", 50)
	require.NoError(t, err)
	require.Zero(t, n)
	e.Beat(all...)
	require.Len(t, e.Admit(now+1000), 5, "the slowest gateway sets the pace")
	now += 1000
	e.Beat(all...)
	require.Len(t, e.Admit(now+2500), 25, "until it is not heard of any more")
}

func roomModes(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, RoomConfig())
	e.Join(0, names("c-", 50)...)
	version := sale.Version{Sale: "drop", Version: 1, Lifecycle: sale.Live, Config: e.Config, Actor: "test"}
	change := func(edit func(*sale.Version)) {
		t.Helper()
		before := version
		room := *version.Config.Queue.WaitingRoom
		version.Config.Queue = &sale.Queue{WaitingRoom: &room}
		version.Version++
		edit(&version)
		a, err := e.Shard.Apply(e.Ctx, &before, version)
		require.NoError(t, err)
		require.Equal(t, sale.Applied, a.Outcome)
	}
	now := Base + 1000
	require.Len(t, e.Admit(now), 10)
	change(func(v *sale.Version) { v.Config.Queue.WaitingRoom.Mode = sale.RoomPaused })
	require.Empty(t, e.Admit(now+1000))
	require.Equal(t, []int64{51}, e.Join(0, "late"), "a paused room takes people in")
	change(func(v *sale.Version) { v.Config.Queue.WaitingRoom.Mode = sale.RoomOpen })
	require.Len(t, e.Admit(now+1500), 5, "the pause is not made up for")
	change(func(v *sale.Version) { v.Lifecycle = sale.Paused })
	require.Empty(t, e.Admit(now+2500))
	change(func(v *sale.Version) { v.Lifecycle = sale.Live; v.Config.Queue.WaitingRoom.AdmitPerSecond = 20 })
	require.Len(t, e.Admit(now+3500), 20, "a changed rate counts at once")
	change(func(v *sale.Version) { v.Config.Queue.WaitingRoom.Mode = sale.RoomDrain })
	j, err := e.Shard.RoomJoin(e.Ctx, madeRoom.ID, madeRoom, []lua.RoomJoin{{Customer: "c-0050"}, {Customer: "later"}})
	require.NoError(t, err)
	require.Equal(t, []lua.RoomPlace{{Outcome: sale.Done, Number: 50}, {Outcome: sale.LineFull}}, j.Each)
	require.Len(t, e.Admit(now+4500), 16, "who is in line still comes in")
	change(func(v *sale.Version) { v.Config.Queue = nil })
	j, err = e.Shard.RoomJoin(e.Ctx, madeRoom.ID, madeRoom, []lua.RoomJoin{{Customer: "c-1"}})
	require.NoError(t, err)
	require.Equal(t, sale.NoRoom, j.Outcome)
	require.Equal(t, sale.Held, e.Reserve("free-for-all", "c-1", "BAG/=1").Outcome)
}

func roomGhosts(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, RoomConfig())
	all := names("c-", 40)
	e.Join(0, all...)
	e.SetNow(Base + 30_000) // Of the first who were heard of, only these are heard of again.
	require.Equal(t, []string{"stranger"}, e.Beat("c-0002", "c-0004", "stranger", "c-0030"))
	now := Base + 30_200
	require.Equal(t, []string{"c-0002", "c-0004", "c-0030"}, sorted(e.Admit(now)), "no slot is wasted")
	s := e.Look(0)
	require.EqualValues(t, 37, s.PassedOver)
	require.Zero(t, s.InLine)
	e.Join(0, "new-1", "new-2", "new-3")
	require.Empty(t, e.Beat("c-0020", "c-0003", "c-0040"))
	require.Equal(t, []string{"c-0003", "c-0020", "c-0040", "new-1"}, sorted(e.Admit(now+200)), "who is back is next")
	require.Equal(t, []int64{1}, e.Join(0, "c-0001"), "who was passed over keeps their place")
	s = e.Look(0)
	require.EqualValues(t, 3, s.Returned)
	require.EqualValues(t, 7, s.Admitted)
}

func roomStock(t *testing.T, rdb redis.UniversalClient) {
	c := RoomConfig()
	c.Items = c.Items[:1] // 7 units
	c.Queue.WaitingRoom.OverAdmissionPercent = 200
	e := NewEnv(t, rdb, c)
	e.Join(0, names("c-", 40)...)
	now := Base + 2000
	first := e.Admit(now)
	require.Len(t, first, 14, "two people a unit that is free")
	require.Empty(t, e.Admit(now+1000))
	for i, customer := range first[:7] {
		r := e.Request("reservation-"+strconv.Itoa(i), customer, "AIR-42/=1")
		r.Admission = lua.Admission(now, now+60_000)
		a, err := e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{r})
		require.NoError(t, err)
		require.Equal(t, sale.Held, a[0].Outcome)
	}
	require.Empty(t, e.Admit(now+2000), "sold out: nobody is let in for nothing")
	a, err := e.Shard.Release(e.Ctx, "reservation-0", nil, "test", "")
	require.NoError(t, err)
	require.Equal(t, sale.Released, a.Outcome)
	require.Empty(t, e.Admit(now+3000), "seven are inside for one unit")
	for i, customer := range first[7:13] {
		outcome, was, err := e.Shard.RoomLeave(e.Ctx, madeRoom.ID, customer, e.Join(0, customer)[0])
		require.NoError(t, err)
		require.True(t, was, "%d", i)
		require.Equal(t, sale.Done, outcome)
	}
	require.Len(t, e.Admit(now+4000), 1)
}

func roomLeave(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, RoomConfig())
	e.Join(0, "c-1", "c-2")
	leave := func(customer string, number int64) bool {
		outcome, was, err := e.Shard.RoomLeave(e.Ctx, madeRoom.ID, customer, number)
		require.NoError(t, err)
		require.Equal(t, sale.Done, outcome)
		return was
	}
	require.True(t, leave("c-1", 1))
	require.False(t, leave("c-1", 1))
	require.False(t, leave("nobody", 1))
	require.Equal(t, []string{"c-1"}, e.Beat("c-1"))
	news := e.Look(Base).News
	require.Equal(t, []lua.RoomNews{{Customer: "c-1", What: lua.RoomLeft, AtMs: Base, Number: 1, NewsMs: Base}}, news)
	require.Equal(t, []int64{3}, e.Join(0, "c-1"), "the place is gone for good")
	require.False(t, leave("c-1", 1), "an old ticket does not touch the new place")
	require.Equal(t, lua.RoomWaits, e.Look(Base).News[0].What)
	require.Equal(t, []string{"c-1", "c-2"}, sorted(e.Admit(Base+200)))
	require.True(t, leave("c-2", 2), "who was admitted may leave too")
	r := e.Request("reservation-1", "c-2", "BAG/=1")
	r.Admission = lua.Admission(Base+200, Base+60_200)
	a, err := e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{r})
	require.NoError(t, err)
	require.Equal(t, sale.AdmissionInvalid, a[0].Outcome)
	outcome, _, err := e.Shard.RoomLeave(e.Ctx, "another room", "c-1", 3)
	require.NoError(t, err)
	require.Equal(t, sale.NoRoom, outcome)
}

func roomAdmission(t *testing.T, rdb redis.UniversalClient) {
	c := RoomConfig()
	c.Items[1].CapPerCustomer = 2
	e := NewEnv(t, rdb, c)
	e.Join(0, "c-1", "c-2", "c-3")
	now := Base + 300
	require.Len(t, e.Admit(now), 3)
	valid := lua.Admission(now, now+60_000)
	n := 0
	reserve := func(customer, admission, lines string) sale.Outcome {
		n++
		r := e.Request("reservation-"+strconv.Itoa(n), customer, lines)
		r.Admission = admission
		a, err := e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{r})
		require.NoError(t, err)
		return a[0].Outcome
	}
	require.Equal(t, sale.NotAdmitted, reserve("c-1", "", "BAG/=1"))
	require.Equal(t, sale.AdmissionInvalid, reserve("c-1", lua.BadAdmission, "BAG/=1"))
	require.Equal(t, sale.AdmissionInvalid, reserve("c-4", valid, "BAG/=1"), "who was never in")
	require.Equal(t, sale.AdmissionInvalid, reserve("c-1", lua.Admission(now-1, now+60_000), "BAG/=1"), "another admission")
	require.Equal(t, sale.CapExceeded, reserve("c-1", valid, "BAG/=3"))
	require.Equal(t, sale.Insufficient, reserve("c-1", valid, "AIR-42/berlin=5"))
	require.Equal(t, sale.Held, reserve("c-1", valid, "BAG/=1"), "what was refused used nothing")
	require.Equal(t, sale.AdmissionInvalid, reserve("c-1", valid, "BAG/=1"), "it is used once")
	replay, err := e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{e.Request("reservation-7", "c-1", "BAG/=1")})
	require.NoError(t, err)
	require.Equal(t, sale.Replay, replay[0].Outcome, "a replay needs no admission")

	// Two of one customer in one batch: the first has it.
	one, two := e.Request("reservation-a", "c-2", "BAG/=1"), e.Request("reservation-b", "c-2", "BAG/=1")
	one.Admission, two.Admission = valid, valid
	a, err := e.Shard.Reserve(e.Ctx, []lua.ReserveRequest{one, two})
	require.NoError(t, err)
	require.Equal(t, sale.Held, a[0].Outcome)
	require.Equal(t, sale.AdmissionInvalid, a[1].Outcome)

	e.SetNow(now + 59_999)
	require.EqualValues(t, 1, e.Look(0).Inside)
	e.SetNow(now + 60_000)
	require.Equal(t, sale.AdmissionInvalid, reserve("c-3", valid, "BAG/=1"), "it has ended")
	s := e.Look(0)
	require.Zero(t, s.Inside)
	require.EqualValues(t, 2, s.Used)
	require.Equal(t, []int64{4}, e.Join(0, "c-3"), "whose admission ended joins anew")
	e.Books()
}

func roomSurvives(t *testing.T, rdb redis.UniversalClient) {
	e := NewEnv(t, rdb, RoomConfig())
	e.Join(0, names("c-", 30)...)
	require.Len(t, e.Admit(Base+1000), 10)
	before := e.Look(0, 0, 5, 19)
	books := e.Books()
	rebuild(e, books, 10)
	e.SetNow(Base + 1000)
	after := e.Look(0, 0, 5, 19)
	require.Equal(t, before.RoomCounts, after.RoomCounts)
	require.Equal(t, before.Orders, after.Orders)
	require.Equal(t, before.News, after.News)
	require.Len(t, e.Admit(Base+2000), 10, "it goes on where it was")
}
