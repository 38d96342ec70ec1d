package gateway

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// soldOut is what a script answers to one line of which nothing is left, in epoch 1.
func soldOut(seq, dueInMs int64, lines ...sale.Line) lua.Answer {
	a := lua.Answer{Outcome: sale.Insufficient, Head: lua.Head{Epoch: 1, Seq: seq, NowMs: 1000}}
	if dueInMs > 0 {
		a.Head.NextDeadlineMs = 1000 + dueInMs
	}
	for _, l := range lines {
		a.Shortages = append(a.Shortages, lua.Shortage{Line: l})
	}
	return a
}

func lineOf(sku, location string) sale.Line { return sale.Line{SKU: sku, Qty: 1, Location: location} }

// told lets the edge learn one answer that was just asked for.
func (e *edge) told(a lua.Answer, asked ...sale.Line) {
	e.learn("drop", time.Now(), []lua.ReserveRequest{{Lines: asked}}, []lua.Answer{a})
}

func TestEdgeForgetsInTime(t *testing.T) {
	inBubble := func(name string, f func(t *testing.T, e *edge, out func() bool)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEdge(Options{}, newMetrics(nil))
				f(t, e, func() bool { return len(e.short(nil, "drop", []sale.Line{lineOf("A", "main")})) == 1 })
			})
		})
	}
	a := lineOf("A", "main")
	inBubble("at its age", func(t *testing.T, e *edge, out func() bool) {
		e.told(soldOut(7, 0, a), a)
		require.True(t, out())
		time.Sleep(249 * time.Millisecond)
		require.True(t, out())
		time.Sleep(time.Millisecond)
		require.False(t, out())
	})
	inBubble("counted from when it was asked, not answered", func(t *testing.T, e *edge, out func() bool) {
		sent := time.Now()
		time.Sleep(200 * time.Millisecond)
		e.learn("drop", sent, []lua.ReserveRequest{{Lines: []sale.Line{a}}}, []lua.Answer{soldOut(7, 0, a)})
		time.Sleep(50 * time.Millisecond)
		require.False(t, out())
	})
	inBubble("at the next deadline, however often nothing has changed", func(t *testing.T, e *edge, out func() bool) {
		e.told(soldOut(7, 400, a), a)
		for range 3 {
			time.Sleep(100 * time.Millisecond)
			e.unchanged("drop", time.Now(), lua.Head{Outcome: sale.Done, Epoch: 1, Seq: 7})
		}
		time.Sleep(99 * time.Millisecond)
		require.True(t, out())
		time.Sleep(time.Millisecond)
		require.False(t, out())
	})
	inBubble("seq at a standstill keeps it, a later one does not", func(t *testing.T, e *edge, out func() bool) {
		e.told(soldOut(7, 0, a), a)
		time.Sleep(200 * time.Millisecond)
		e.unchanged("drop", time.Now(), lua.Head{Outcome: sale.Done, Epoch: 1, Seq: 7})
		time.Sleep(200 * time.Millisecond)
		require.True(t, out())
		e.unchanged("drop", time.Now(), lua.Head{Outcome: sale.Done, Epoch: 1, Seq: 8})
		e.unchanged("drop", time.Now(), lua.Head{Outcome: sale.Done, Epoch: 2, Seq: 7})
		e.unchanged("drop", time.Now(), lua.Head{Outcome: sale.Recovering, Epoch: 1, Seq: 7})
		time.Sleep(50 * time.Millisecond)
		require.False(t, out())
	})
	inBubble("when units come back, if that was after what it knows", func(t *testing.T, e *edge, out func() bool) {
		e.told(soldOut(7, 0, a), a)
		e.announced(lua.Watermark{Sale: "drop", Epoch: 1, Seq: 7, Returned: []string{"A"}})
		e.announced(lua.Watermark{Sale: "drop", Epoch: 1, Seq: 9, Returned: []string{"B"}})
		e.announced(lua.Watermark{Sale: "other", Epoch: 1, Seq: 9, Returned: []string{"A"}})
		e.announced(lua.Watermark{Sale: "drop", Epoch: 1, Seq: 9})
		require.True(t, out())
		e.announced(lua.Watermark{Sale: "drop", Epoch: 1, Seq: 8, Returned: []string{"B", "A"}})
		require.False(t, out())
		// An answer that was on its way for longer than the announcement.
		e.told(soldOut(8, 0, a), a)
		require.False(t, out())
		e.told(soldOut(9, 0, a), a)
		require.True(t, out())
		e.announced(lua.Watermark{Sale: "drop", Epoch: 1, Seq: 10, Returned: []string{lua.AnySKU}})
		require.False(t, out())
	})
	inBubble("with its epoch, and when the shard is closed", func(t *testing.T, e *edge, out func() bool) {
		e.told(soldOut(7, 0, a), a)
		e.announced(lua.Watermark{Sale: "drop", Epoch: 2, Seq: 8, Returned: []string{lua.AnySKU}})
		require.False(t, out())
		e.told(soldOut(9, 0, a), a)
		require.False(t, out(), "an answer of the past epoch")
		next := soldOut(9, 0, a)
		next.Head.Epoch = 2
		e.told(next, a)
		require.True(t, out())
		e.told(lua.Answer{Outcome: sale.Recovering}, a)
		require.False(t, out())
	})
}

func TestEdgeKnowsPlaces(t *testing.T) {
	out := func(e *edge, lines ...sale.Line) []lua.Shortage { return e.short(nil, "drop", lines) }
	fresh := func() *edge { return newEdge(Options{EdgeMemory: time.Hour}, newMetrics(nil)) }

	e := fresh()
	e.told(soldOut(7, 0, lineOf("A", "berlin")), lineOf("A", "berlin"))
	require.Len(t, out(e, lineOf("A", "berlin")), 1)
	require.Empty(t, out(e, lineOf("A", "")), "another location may have some")
	require.Empty(t, out(e, lineOf("A", "leipzig")))
	e.told(soldOut(7, 0, lineOf("A", "")), lineOf("A", ""))
	require.Len(t, out(e, lineOf("A", "leipzig")), 1, "nowhere is not there either")
	require.Len(t, out(e, lineOf("A", ""), lineOf("B", "")), 1, "one line that is short refuses all")

	e = fresh()
	one := soldOut(7, 0, lineOf("A", ""))
	e.told(one, lineOf("A", "berlin"), lineOf("A", ""))
	require.Empty(t, out(e, lineOf("A", "")), "what another line of the request took is available to others")
	one.Shortages[0].Available = 1
	e.told(one, lineOf("A", ""))
	require.Empty(t, out(e, lineOf("A", "")), "one is left for who asks for one")

	e = newEdge(Options{EdgeMemory: -1}, newMetrics(nil))
	e.told(soldOut(7, 0, lineOf("A", "")), lineOf("A", ""))
	require.Empty(t, out(e, lineOf("A", "")), "it is off")
}

func TestEdgeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(nil)
		e := newEdge(Options{EdgePlaces: 100}, m)
		for i := range 1000 {
			e.told(soldOut(int64(i), 0, lineOf(fmt.Sprint("A", i), "")), lineOf(fmt.Sprint("A", i), ""))
			e.returned(fmt.Sprint("sale-", i), 1, 1, "A")
		}
		require.Equal(t, 100, e.places)
		require.InDelta(t, 100, value(t, m.edgePlaces), 0)
		require.LessOrEqual(t, len(e.sales), 100)
		time.Sleep(time.Second)
		e.told(soldOut(2000, 0, lineOf("B", "")), lineOf("B", ""))
		require.Equal(t, 1, e.places, "what is over makes room")
		e.forget("drop")
		require.Zero(t, e.places)
	})
}

func TestRemembersOnlyWhatMemoryMayAnswer(t *testing.T) {
	now := sale.Moment(time.Now().UnixMilli())
	open := sale.Version{Lifecycle: sale.Live, Config: sale.Config{OpensAt: now - 1000, ClosesAt: now + 60_000}}
	g := &Gateway{store: mini(t)}
	require.True(t, g.remembers(&open))
	for name, change := range map[string]func(*sale.Version){
		"waitlist": func(v *sale.Version) { v.Config.Queue = &sale.Queue{Waitlist: &sale.Waitlist{Enabled: true}} },
		"room":     func(v *sale.Version) { v.Config.Queue = &sale.Queue{WaitingRoom: &sale.WaitingRoom{Enabled: true}} },
		"paused":   func(v *sale.Version) { v.Lifecycle = sale.Paused },
		"over":     func(v *sale.Version) { v.Config.ClosesAt = now - 1 },
		"not yet":  func(v *sale.Version) { v.Config.OpensAt = now + 60_000 },
	} {
		v := open
		change(&v)
		require.False(t, g.remembers(&v), name)
	}
	open.Config.Queue = &sale.Queue{Waitlist: &sale.Waitlist{}}
	require.True(t, g.remembers(&open), "a waitlist that is off takes nobody")
}

// What a reconciler announces reaches the edge, beside those who wait for the ledger.
func TestAnnouncementsOfReturnsAreHeard(t *testing.T) {
	onBoth(t, func(t *testing.T, store *lua.Store) {
		shard := putSale(t, store, "drop", 60, map[string]int64{"A": 1})
		created, err := shard.Look(t.Context(), 1, 0, 10)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		e := newEdge(Options{EdgeMemory: time.Hour}, newMetrics(nil))
		both := make(chan lua.Watermark, 100)
		done := make(chan struct{})
		go func() {
			defer close(done)
			heard{store, e.announced}.Watermarks(ctx, func(w lua.Watermark) { both <- w })
		}()
		for i := 0; ; i++ { // The first may come before somebody listens.
			e.told(soldOut(0, 0, lineOf("A", "")), lineOf("A", ""))
			_, err := shard.Trim(t.Context(), 1, 1, created.Mark, 100, "A", "B")
			require.NoError(t, err)
			select {
			case w := <-both:
				require.Equal(t, lua.Watermark{Sale: "drop", Epoch: 1, Seq: 1, Returned: []string{"A", "B"}}, w)
			case <-time.After(50 * time.Millisecond):
				require.Less(t, i, 400, "nothing was heard")
				continue
			}
			break
		}
		require.Empty(t, e.short(nil, "drop", []sale.Line{lineOf("A", "")}))
		cancel()
		<-done
	})
}
