package sale_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"flashgate/sale"
)

const deadline = 10_000

// chain applies events to books, numbering and linking them.
type chain struct{ *sale.Books }

func (c chain) next(e sale.Event, data any) sale.Event {
	e.Epoch, e.Seq, e.Prev = max(e.Epoch, c.Epoch, 1), c.Seq+1, c.Mark
	e.Mark, e.Sale = fmt.Sprintf("m%d", e.Seq), c.Sale
	if data != nil {
		b, err := json.Marshal(data)
		if err != nil {
			panic(err)
		}
		e.Data = string(b)
	}
	return e
}

func (c chain) apply(e sale.Event, data any) error {
	e = c.next(e, data)
	return c.Apply(&e)
}

// opened returns books of valid() with the reservation r1 of customer c holding 2 A in berlin.
func opened(t require.TestingT) chain {
	c := chain{sale.NewBooks("drop", 0)}
	require.NoError(t, c.apply(sale.Event{Type: sale.EventSaleCreated},
		sale.SaleData{Version: 1, Lifecycle: sale.Live, Config: *valid()}))
	require.NoError(t, c.apply(held("r1", 2), sale.HeldData{Fingerprint: "f", DeadlineMs: deadline}))
	return c
}

func held(id string, qty int64) sale.Event {
	return sale.Event{Type: sale.EventHeld, AtMs: 1, Reservation: id, Customer: "c", Lines: []sale.Line{{"A", qty, "berlin"}}}
}

var berlin = sale.Place{SKU: "A", Location: "berlin"}

// action is an event on r1 as its state machine would have it, with its data.
func action(typ sale.EventType) (sale.Event, any) {
	e := sale.Event{Type: typ, AtMs: 5, Reservation: "r1", Customer: "c", Lines: []sale.Line{{"A", 2, "berlin"}}, Ref: "order"}
	switch typ {
	case sale.EventHeld:
		return e, sale.HeldData{DeadlineMs: deadline}
	case sale.EventExtended:
		e.Lines = nil
		return e, sale.ExtendedData{Extension: 1, DeadlineMs: deadline + 5}
	case sale.EventReduced:
		e.Lines[0].Qty = 1
	case sale.EventExpired:
		e.AtMs = deadline
	case sale.EventCancelled:
		return e, sale.CancelledData{Restock: true, Reason: "r"}
	}
	return e, nil
}

// The state machine: from every state, the events that are allowed; all others are refused.
func TestTransitions(t *testing.T) {
	paths := map[sale.State][]sale.EventType{
		sale.StateHeld:      {},
		sale.StateConfirmed: {sale.EventConfirmed},
		sale.StateReleased:  {sale.EventReleased},
		sale.StateExpired:   {sale.EventExpired},
		sale.StateCancelled: {sale.EventConfirmed, sale.EventCancelled},
	}
	allowed := map[sale.State]map[sale.EventType]sale.State{
		sale.StateHeld: {
			sale.EventExtended: sale.StateHeld, sale.EventReduced: sale.StateHeld, sale.EventConfirmed: sale.StateConfirmed,
			sale.EventReleased: sale.StateReleased, sale.EventExpired: sale.StateExpired,
		},
		sale.StateConfirmed: {sale.EventCancelled: sale.StateCancelled},
		sale.StateReleased:  {sale.EventHeld: sale.StateHeld}, // its record may be gone in Redis
		sale.StateExpired:   {sale.EventHeld: sale.StateHeld},
		sale.StateCancelled: {sale.EventHeld: sale.StateHeld},
	}
	events := []sale.EventType{
		sale.EventHeld, sale.EventExtended, sale.EventReduced, sale.EventConfirmed, sale.EventReleased, sale.EventExpired,
		sale.EventCancelled,
	}
	for from, path := range paths {
		for _, typ := range events {
			c := opened(t)
			for _, step := range path {
				require.NoError(t, c.apply(action(step)))
			}
			require.Equal(t, from, c.Reservations["r1"].State)
			err := c.apply(action(typ))
			to, ok := allowed[from][typ]
			if !ok {
				require.Error(t, err, "%s on %s", typ, from)
				continue
			}
			require.NoError(t, err, "%s on %s", typ, from)
			r := c.Reservations["r1"]
			require.Equal(t, to, r.State)
			require.Equal(t, c.Seq, r.Seq)
			require.Equal(t, c.Mark, r.Mark)
			require.Equal(t, to == sale.StateHeld, r.ResolvedAtMs == 0)
			require.Equal(t, r.State != sale.StateHeld && r.State != sale.StateConfirmed, r.State.Finished())
		}
	}
}

func TestUnitsMove(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []func() (sale.Event, any)
		want  sale.Level
		count int64 // units of the customer
	}{
		{"held", nil, sale.Level{OnHand: 10, Safety: 1, Held: 2}, 2},
		{"confirmed", steps(sale.EventConfirmed), sale.Level{OnHand: 10, Safety: 1, Sold: 2}, 2},
		{"released", steps(sale.EventReleased), sale.Level{OnHand: 10, Safety: 1}, 0},
		{"expired", steps(sale.EventExpired), sale.Level{OnHand: 10, Safety: 1}, 0},
		{"reduced", steps(sale.EventReduced), sale.Level{OnHand: 10, Safety: 1, Held: 1}, 1},
		{"cancelled", steps(sale.EventConfirmed, sale.EventCancelled), sale.Level{OnHand: 10, Safety: 1}, 0},
		{"cancelled for good", append(steps(sale.EventConfirmed), func() (sale.Event, any) {
			e, _ := action(sale.EventCancelled)
			return e, sale.CancelledData{Reason: "broken"}
		}), sale.Level{OnHand: 8, Safety: 1}, 0},
		{"adjusted", []func() (sale.Event, any){adjust("on_hand", -7), adjust("safety", -1)}, sale.Level{OnHand: 3, Held: 2}, 2},
	} {
		b := opened(t)
		for _, step := range c.steps {
			require.NoError(t, b.apply(step()), c.name)
		}
		require.Equal(t, c.want, b.Stock[berlin], c.name)
		require.Equal(t, c.count, b.Customers["c"]["A"], c.name)
		require.NotContains(t, b.Customers["c"], "B")
		require.Equal(t, c.count == 0, b.Customers["c"] == nil, c.name)
	}
}

func steps(types ...sale.EventType) (all []func() (sale.Event, any)) {
	for _, typ := range types {
		all = append(all, func() (sale.Event, any) { return action(typ) })
	}
	return all
}

func adjust(field string, qty int64) func() (sale.Event, any) {
	return func() (sale.Event, any) {
		return sale.Event{Type: sale.EventAdjusted, Ref: "a-" + field, AtMs: 3, Lines: []sale.Line{{"A", qty, "berlin"}}},
			sale.AdjustedData{Field: field, Fingerprint: "f", Reason: "counted"}
	}
}

// What no script may ever write.
func TestEventsThatAreRefused(t *testing.T) {
	change := func(typ sale.EventType, edit func(*sale.Event)) func(chain) (sale.Event, any) {
		return func(chain) (sale.Event, any) {
			e, data := action(typ)
			edit(&e)
			return e, data
		}
	}
	for name, build := range map[string]func(chain) (sale.Event, any){
		"other customer": change(sale.EventConfirmed, func(e *sale.Event) { e.Customer = "d" }),
		"other units":    change(sale.EventConfirmed, func(e *sale.Event) { e.Lines[0].Qty = 1 }),
		"unknown":        change(sale.EventReleased, func(e *sale.Event) { e.Reservation = "r2" }),
		"confirmed late": change(sale.EventConfirmed, func(e *sale.Event) { e.AtMs = deadline }),
		"expired early":  change(sale.EventExpired, func(e *sale.Event) { e.AtMs = deadline - 1 }),
		"reduced by all": change(sale.EventReduced, func(e *sale.Event) { e.Lines[0].Qty = 2 }),
		"reduced more":   change(sale.EventReduced, func(e *sale.Event) { e.Lines[0].Qty = 3 }),
		"reduced by 0":   change(sale.EventReduced, func(e *sale.Event) { e.Lines[0].Qty = 0 }),
		"no such type":   change("lost", func(*sale.Event) {}),
		"no data":        change(sale.EventExtended, func(e *sale.Event) { e.Type = sale.EventRebuilt }),
		"too much":       func(chain) (sale.Event, any) { return held("r2", 8), sale.HeldData{DeadlineMs: deadline} },
		"nothing held":   func(chain) (sale.Event, any) { return held("r2", 0), sale.HeldData{DeadlineMs: deadline} },
		"no lines": func(chain) (sale.Event, any) {
			e := held("r2", 1)
			e.Lines = nil
			return e, sale.HeldData{}
		},
		"unknown place": func(chain) (sale.Event, any) {
			e := held("r2", 1)
			e.Lines[0].Location = "bonn"
			return e, sale.HeldData{}
		},
		"bad data": func(chain) (sale.Event, any) { return held("r2", 1), "text" },
		"extension twice": func(chain) (sale.Event, any) {
			e, _ := action(sale.EventExtended)
			return e, sale.ExtendedData{Extension: 2, DeadlineMs: deadline}
		},
		"shortened": func(chain) (sale.Event, any) {
			e, _ := action(sale.EventExtended)
			return e, sale.ExtendedData{Extension: 1, DeadlineMs: 1}
		},
		"adjusted below": func(chain) (sale.Event, any) { return adjust("on_hand", -8)() },
		"safety below 0": func(chain) (sale.Event, any) { return adjust("safety", -2)() },
		"adjust 2 lines": func(chain) (sale.Event, any) {
			e, data := adjust("on_hand", 1)()
			e.Lines = append(e.Lines, e.Lines[0])
			return e, data
		},
		"created twice": func(chain) (sale.Event, any) {
			return sale.Event{Type: sale.EventSaleCreated}, sale.SaleData{Version: 2, Config: *valid()}
		},
		"item in use removed": func(chain) (sale.Event, any) {
			c := *valid()
			c.Items = c.Items[1:]
			return sale.Event{Type: sale.EventSaleChanged}, sale.SaleData{Version: 2, Config: c}
		},
		"place in use removed": func(chain) (sale.Event, any) {
			c := *valid()
			c.Items[0].Stock = c.Items[0].Stock[1:]
			return sale.Event{Type: sale.EventSaleChanged}, sale.SaleData{Version: 2, Config: c}
		},
		"rebuilt in its epoch": func(chain) (sale.Event, any) {
			return sale.Event{Type: sale.EventRebuilt}, sale.RebuiltData{ShiftMs: 1}
		},
		"moved backwards": func(chain) (sale.Event, any) {
			return sale.Event{Type: sale.EventRebuilt, Epoch: 2}, sale.RebuiltData{ShiftMs: -1}
		},
	} {
		c := opened(t)
		e, data := build(c)
		require.Error(t, c.apply(e, data), name)
	}
	c := chain{sale.NewBooks("drop", 0)}
	require.Error(t, c.apply(sale.Event{Type: sale.EventSaleChanged}, sale.SaleData{Config: *valid()}), "changed before it was created")
}

func TestOnlyTheNextEventContinuesTheChain(t *testing.T) {
	for name, edit := range map[string]func(*sale.Event){
		"gap":       func(e *sale.Event) { e.Seq++ },
		"again":     func(e *sale.Event) { e.Seq-- },
		"fork":      func(e *sale.Event) { e.Prev = "other" },
		"old epoch": func(e *sale.Event) { e.Epoch-- },
	} {
		c := opened(t)
		e := c.next(action(sale.EventReleased))
		edit(&e)
		require.ErrorIs(t, c.Apply(&e), sale.ErrNotNext, name)
	}
}

func TestRebuiltMovesLiveDeadlinesOnly(t *testing.T) {
	c := opened(t)
	require.NoError(t, c.apply(held("r2", 1), sale.HeldData{DeadlineMs: 500}))
	e, data := action(sale.EventConfirmed)
	require.NoError(t, c.apply(e, data))
	require.NoError(t, c.apply(sale.Event{Type: sale.EventRebuilt, Epoch: 2}, sale.RebuiltData{ShiftMs: 30_000}))
	require.EqualValues(t, 2, c.Epoch)
	require.EqualValues(t, deadline, c.Reservations["r1"].DeadlineMs)
	require.EqualValues(t, 30_500, c.Reservations["r2"].DeadlineMs)
}

func TestSaleChangedKeepsAdjustments(t *testing.T) {
	c := opened(t)
	e, data := adjust("on_hand", -3)()
	require.NoError(t, c.apply(e, data))
	require.Equal(t, sale.Level{OnHand: 7, Safety: 1, Held: 2}, c.Adjustments["a-on_hand"].Level)
	next := *valid()
	next.Items[0].Stock[0].OnHand += 5
	next.Items = append(next.Items[:1], sale.Item{SKU: "C", Stock: []sale.Stock{{"berlin", 4, 0}}})
	require.NoError(t, c.apply(sale.Event{Type: sale.EventSaleChanged},
		sale.SaleData{Version: 2, Lifecycle: sale.Paused, Config: next}))
	require.Equal(t, sale.Level{OnHand: 12, Safety: 1, Held: 2}, c.Stock[berlin])
	require.Equal(t, sale.Level{OnHand: 4}, c.Stock[sale.Place{SKU: "C", Location: "berlin"}])
	require.NotContains(t, c.Stock, sale.Place{SKU: "B", Location: "berlin"})
	require.EqualValues(t, 2, c.Version)
	require.Equal(t, sale.Paused, c.Lifecycle)
}

func TestForget(t *testing.T) {
	c := opened(t)
	require.NoError(t, c.apply(held("r2", 1), sale.HeldData{DeadlineMs: deadline}))
	require.NoError(t, c.apply(action(sale.EventReleased))) // r1 at 5
	e, data := adjust("on_hand", 1)()                       // at 3
	require.NoError(t, c.apply(e, data))
	c.Forget(4)
	require.Len(t, c.Reservations, 2)
	require.Empty(t, c.Adjustments)
	c.Forget(5)
	require.Equal(t, []string{"r2"}, slices.Collect(maps.Keys(c.Reservations)))
	c.Forget(1 << 40)
	require.Len(t, c.Reservations, 1, "a live hold is never forgotten")
}

// Promise 1 and exact caps, whatever events come: what the books accept always adds up, and what
// customers have is what levels say is held and sold.
func TestBooksAlwaysAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := opened(t)
		c.Books.AtMs = 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			e, data := action(rapid.SampledFrom([]sale.EventType{
				sale.EventHeld, sale.EventExtended, sale.EventReduced, sale.EventConfirmed, sale.EventReleased,
				sale.EventExpired, sale.EventCancelled, sale.EventAdjusted,
			}).Draw(t, "type"))
			if e.Type == sale.EventAdjusted {
				e, data = adjust(rapid.SampledFrom([]string{"on_hand", "safety"}).Draw(t, "field"),
					rapid.Int64Range(-4, 4).Draw(t, "delta"))()
			} else {
				e.Reservation = fmt.Sprintf("r%d", rapid.IntRange(1, 4).Draw(t, "reservation"))
				e.Customer = fmt.Sprintf("c%d", rapid.IntRange(1, 2).Draw(t, "customer"))
				if r := c.Reservations[e.Reservation]; r != nil && e.Type != sale.EventHeld {
					e.Customer = r.Customer
					if e.Type != sale.EventReduced && e.Type != sale.EventExtended {
						e.Lines = r.Lines
					}
				}
			}
			before := snapshot(c.Books)
			if err := c.apply(e, data); err != nil {
				// Books after an error are of no use, so go on with what was before.
				c.Books = before
			}
			checkBooks(t, c.Books)
		}
	})
}

func snapshot(b *sale.Books) *sale.Books {
	s := *b
	s.Stock = maps.Clone(b.Stock)
	s.Reservations, s.Adjustments = map[string]*sale.Reservation{}, maps.Clone(b.Adjustments)
	for id, r := range b.Reservations {
		copied := *r
		s.Reservations[id] = &copied
	}
	s.Customers = map[string]map[string]int64{}
	for customer, counts := range b.Customers {
		s.Customers[customer] = maps.Clone(counts)
	}
	return &s
}

func checkBooks(t require.TestingT, b *sale.Books) {
	kept, sold := map[sale.Place]int64{}, map[sale.Place]int64{}
	customers := map[string]map[string]int64{}
	for _, r := range b.Reservations {
		if r.State.Finished() {
			continue
		}
		for _, l := range r.Lines {
			to := kept
			if r.State == sale.StateConfirmed {
				to = sold
			}
			to[sale.Place{SKU: l.SKU, Location: l.Location}] += l.Qty
			if customers[r.Customer] == nil {
				customers[r.Customer] = map[string]int64{}
			}
			customers[r.Customer][l.SKU] += l.Qty
		}
	}
	for place, l := range b.Stock {
		require.NoError(t, l.Check())
		require.Equal(t, l.OnHand, l.Available()+l.Safety+l.Held+l.Sold)
		require.Equal(t, kept[place], l.Held)
		require.Equal(t, sold[place], l.Sold)
	}
	require.Equal(t, customers, b.Customers)
}

// The data of held is read by hand where it is as the scripts write it: that must be what JSON says.
func TestDataOfHeldIsReadAsJSON(t *testing.T) {
	for _, text := range []string{
		`{"fp":"c2FsZS1kcm9","deadline":1795749503119}`, `{"fp":"","deadline":0}`, `{"fp":"f","deadline":-5}`,
		`{"deadline":7,"fp":"f"}`, `{ "fp":"f","deadline":7}`, `{"fp":"a\u0062","deadline":7}`, `{"fp":"f","deadline":7,"x":1}`,
		`{"fp":"f","deadline":+7}`, `{"fp":"f","deadline":07}`, `{"fp":"f","deadline":7e3}`, `{"fp":"f","deadline":}`,
		`{"fp":"f","deadline":7}}`, `{"fp":"ü","deadline":7}`, `{"fp":"f","deadline":99999999999999999999}`, `{}`, ``,
	} {
		c := opened(t)
		e := c.next(held("r2", 1), nil)
		e.Data = text
		err := c.Apply(&e)
		var want sale.HeldData
		if json.Unmarshal([]byte(text), &want) != nil {
			require.Error(t, err, text)
			continue
		}
		require.NoError(t, err, text)
		r := c.Reservations["r2"]
		require.Equal(t, want, sale.HeldData{Fingerprint: r.Fingerprint, DeadlineMs: r.DeadlineMs}, text)
	}
}
