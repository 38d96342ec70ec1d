package reconciler

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// adoption turns the difference between the books and the state of Redis into events that follow the
// ledger's head. Each is folded as it is made, so what one cannot be is found at once.
type adoption struct {
	books   *sale.Books
	state   *redisState
	actor   string
	events  []sale.Event
	aliveMs int64 // the time of the ledger's last event
}

// add makes an event the next of the chain.
func (a *adoption) add(e sale.Event) error {
	b := a.books
	if a.aliveMs == 0 {
		a.aliveMs = b.AtMs
	}
	e.Epoch = max(e.Epoch, b.Epoch)
	e.Seq, e.Mark, e.Prev, e.Sale, e.Shard = b.Seq+1, newMark(), b.Mark, b.Sale, b.Shard
	if e.Actor == "" {
		e.Actor = a.actor
	}
	if err := b.Apply(&e); err != nil {
		return fmt.Errorf("%w: %w", ErrNotAdoptable, err)
	}
	a.events = append(a.events, e)
	return nil
}

func dataText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts and numbers always marshal
	}
	return string(text)
}

// epochs brings the books to the epoch of Redis: each rebuild that the ledger lost is said to have been.
// The first moves the deadlines by what all of them did.
func (a *adoption) epochs(shiftMs int64) error {
	if a.state.epoch-a.books.Epoch > maxLostEpochs {
		return fmt.Errorf("%w: it is in epoch %d, the ledger in %d", ErrNotAdoptable, a.state.epoch, a.books.Epoch)
	}
	for a.books.Epoch < a.state.epoch {
		err := a.add(sale.Event{
			Epoch: a.books.Epoch + 1, Type: sale.EventRebuilt, AtMs: a.state.nowMs, Actor: ledger.ActorReconciler,
			Data: dataText(sale.RebuiltData{ShiftMs: shiftMs, Reason: reasonLost}),
		})
		if err != nil {
			return err
		}
		shiftMs = 0
	}
	return nil
}

// redis takes the books to the state of Redis. The order keeps every level right at every event: what gives
// units back, then what gives stock, what came and went in the order of its time, what takes units, and
// what takes stock.
func (a *adoption) redis(versions []sale.Version, err error) error {
	if err != nil {
		return err
	}
	if err := a.epochs(a.lostShift()); err != nil {
		return err
	}
	for _, stage := range []func() error{
		a.settleKnown, func() error { return a.sale(versions) }, a.raise, a.passing, a.takeUnits, a.lower, a.compare,
	} {
		if err := stage(); err != nil {
			return err
		}
	}
	return nil
}

// same tells whether two records are of one life of a reservation's id.
func same(known, found *sale.Reservation) bool {
	return known != nil && found != nil && known.HeldAtMs == found.HeldAtMs && known.Customer == found.Customer &&
		known.Fingerprint == found.Fingerprint
}

// lostShift is by how much lost rebuilds moved deadlines: at most, so that none ends early.
func (a *adoption) lostShift() int64 {
	shift := int64(0)
	for id, found := range a.state.records {
		if known := a.books.Reservations[id]; same(known, found) && known.Extension == found.Extension {
			shift = max(shift, found.DeadlineMs-known.DeadlineMs)
		}
	}
	return shift
}

// settleKnown brings the reservations that the ledger knows as live to where Redis has them.
func (a *adoption) settleKnown() error {
	for _, id := range slices.Sorted(maps.Keys(a.books.Reservations)) {
		known, found := a.books.Reservations[id], a.state.records[id]
		if known.State.Finished() || found != nil && found.Mark == known.Mark {
			continue
		}
		if err := a.settleOne(known, found); err != nil {
			return err
		}
	}
	return nil
}

func (a *adoption) settleOne(known, found *sale.Reservation) error {
	gone := !same(known, found)
	if known.State == sale.StateWaiting {
		return a.settleWaiting(known, found)
	}
	if known.State == sale.StateConfirmed {
		if gone || found.State == sale.StateCancelled {
			return a.cancel(known, a.state.nowMs)
		}
		return nil // compare says what else there is.
	}
	if !gone {
		back, ok := sale.Subtract(known.Lines, found.Lines)
		switch {
		case !ok:
			gone = true
		case len(back) > 0:
			if err := a.on(known, sale.EventReduced, a.state.nowMs, "", back, ""); err != nil {
				return err
			}
		}
	}
	if gone {
		return a.on(known, sale.EventReleased, a.state.nowMs, "", known.Lines, "")
	}
	return a.resolve(known, found)
}

// settleWaiting ends a wait that is over in Redis. Who was offered units is made anew, as a hold.
func (a *adoption) settleWaiting(known, found *sale.Reservation) error {
	atMs, reason := a.state.nowMs, reasonAdopt
	if same(known, found) {
		if found.State == sale.StateWaiting {
			return nil
		}
		atMs, reason = found.ResolvedAtMs, sale.LeftByCustomer
	}
	return a.on(known, sale.EventLeft, atMs, "", nil, dataText(sale.LeftData{Reason: reason}))
}

// wait puts one in line whom the ledger does not know, and takes out again who left.
func (a *adoption) wait(found *sale.Reservation) error {
	err := a.on(found, sale.EventWaitlisted, found.HeldAtMs, found.OrderID, found.Lines,
		dataText(sale.WaitlistedData{Fingerprint: found.Fingerprint}))
	if err != nil || found.State == sale.StateWaiting {
		return err
	}
	return a.on(found, sale.EventLeft, found.ResolvedAtMs, "", nil,
		dataText(sale.LeftData{Reason: sale.LeftByCustomer}))
}

// resolve brings a held reservation to the state in which Redis has it.
func (a *adoption) resolve(known, found *sale.Reservation) error {
	for known.Extension < found.Extension {
		err := a.on(known, sale.EventExtended, found.HeldAtMs, "", nil, dataText(sale.ExtendedData{
			Extension: known.Extension + 1, DeadlineMs: max(known.DeadlineMs, found.DeadlineMs),
		}))
		if err != nil {
			return err
		}
	}
	switch found.State {
	case sale.StateReleased:
		return a.on(known, sale.EventReleased, found.ResolvedAtMs, "", known.Lines, "")
	case sale.StateExpired:
		return a.on(known, sale.EventExpired, max(found.ResolvedAtMs, known.DeadlineMs), "", known.Lines, "")
	case sale.StateConfirmed, sale.StateCancelled:
		at := min(found.ResolvedAtMs, known.DeadlineMs-1)
		if err := a.on(known, sale.EventConfirmed, at, found.OrderID, known.Lines, ""); err != nil {
			return err
		}
		if found.State == sale.StateCancelled {
			return a.cancel(known, found.ResolvedAtMs)
		}
	}
	return nil
}

// cancel gives the units back; those that had left on_hand leave it with lower.
func (a *adoption) cancel(known *sale.Reservation, atMs int64) error {
	return a.on(known, sale.EventCancelled, atMs, "", known.Lines,
		dataText(sale.CancelledData{Restock: true, Reason: reasonAdopt}))
}

// on adds an event of a reservation.
func (a *adoption) on(
	r *sale.Reservation, kind sale.EventType, atMs int64, ref string, lines []sale.Line, data string,
) error {
	return a.add(sale.Event{
		Type: kind, AtMs: atMs, Reservation: r.ID, Customer: r.Customer, Lines: slices.Clone(lines), Ref: ref,
		Data: data,
	})
}

// sale brings the books to the version that Redis has: by its number, or else by its settings.
func (a *adoption) sale(versions []sale.Version) error {
	fits := func(v *sale.Version, number bool) bool {
		b := &sale.Books{Version: v.Version, Lifecycle: v.Lifecycle, Config: &v.Config}
		for name, value := range a.state.settings {
			if name != lua.SettingWaiting && (number || name != "version") && (lua.Row{Kind: lua.RowSetting, Name: name}).Want(b) != value {
				return false
			}
		}
		return number || v.Status != sale.VersionRejected && v.Version >= a.books.Version
	}
	at := -1
	for _, number := range []bool{true, false} {
		for i := len(versions) - 1; i >= 0 && at < 0; i-- {
			if fits(&versions[i], number) {
				at = i
			}
		}
	}
	if at < 0 {
		return fmt.Errorf("%w: no version of the sale has the settings of redis, version %s: apply its file as it was",
			ErrNotAdoptable, a.state.settings["version"])
	}
	for i := range versions[:at+1] {
		v := &versions[i]
		if v.Version <= a.books.Version || v.Status == sale.VersionRejected && i < at {
			continue
		}
		kind := sale.EventSaleChanged
		if a.books.Config == nil {
			kind = sale.EventSaleCreated
		}
		err := a.add(sale.Event{Type: kind, AtMs: a.state.nowMs, Actor: v.Actor, Data: dataText(sale.SaleData{
			Version: v.Version, Lifecycle: v.Lifecycle, Reason: v.Reason, Config: v.Config,
		})})
		if err != nil {
			return err
		}
	}
	return nil
}

// unknown are the adjustments that the ledger does not have, in the order of their time.
func (a *adoption) unknown(field string) []*sale.Adjustment {
	var all []*sale.Adjustment
	for id, found := range a.state.adjustments {
		if known := a.books.Adjustments[id]; found.Field == field && (known == nil || known.AtMs != found.AtMs) {
			all = append(all, found)
		}
	}
	slices.SortFunc(all, func(x, y *sale.Adjustment) int {
		return cmp.Or(cmp.Compare(x.AtMs, y.AtMs), cmp.Compare(x.Seq, y.Seq), cmp.Compare(x.ID, y.ID))
	})
	return all
}

func (a *adoption) adjust(x *sale.Adjustment) error {
	if _, has := a.books.Stock[x.Place]; !has {
		return nil // The place has left the sale, before it opened.
	}
	return a.add(sale.Event{
		Type: sale.EventAdjusted, AtMs: x.AtMs, Ref: x.ID,
		Lines: []sale.Line{{SKU: x.Place.SKU, Location: x.Place.Location, Qty: x.Delta}},
		Data:  dataText(sale.AdjustedData{Field: x.Field, Fingerprint: x.Fingerprint, Reason: reasonAdopt}),
	})
}

// rest is what no adjustment that Redis still knows accounts for, at each place where there is some.
func (a *adoption) rest(field string, unknown []*sale.Adjustment) []*sale.Adjustment {
	value := func(l sale.Level) int64 {
		if field == "safety" {
			return l.Safety
		}
		return l.OnHand
	}
	deltas := map[sale.Place]int64{}
	for p, l := range a.state.stock {
		deltas[p] = value(l) - value(a.books.Stock[p])
	}
	for _, x := range unknown {
		deltas[x.Place] -= x.Delta
	}
	var all []*sale.Adjustment
	for p, delta := range deltas {
		if delta != 0 {
			all = append(all, &sale.Adjustment{
				ID: "adopt-" + newMark(), Fingerprint: reasonAdopt, Place: p, Field: field, Delta: delta,
				AtMs: a.state.nowMs,
			})
		}
	}
	slices.SortFunc(all, func(x, y *sale.Adjustment) int {
		return cmp.Or(cmp.Compare(x.Place.SKU, y.Place.SKU), cmp.Compare(x.Place.Location, y.Place.Location))
	})
	return all
}

// adjustAll makes those whose delta is up, or those whose is down.
func (a *adoption) adjustAll(all []*sale.Adjustment, up bool) error {
	for _, x := range all {
		if x.Delta > 0 == up {
			if err := a.adjust(x); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *adoption) raise() error {
	unknown := a.unknown("on_hand")
	return a.adjustAll(append(a.rest("on_hand", unknown), unknown...), true)
}

func (a *adoption) lower() error {
	unknown := a.unknown("on_hand")
	return a.adjustAll(append(unknown, a.rest("on_hand", unknown)...), false)
}

// fresh are the reservations that the ledger does not know, by the time at which they were held.
func (a *adoption) fresh(finished bool) []*sale.Reservation {
	var all []*sale.Reservation
	for id, found := range a.state.records {
		if known := a.books.Reservations[id]; found.State.Finished() == finished && !same(known, found) {
			all = append(all, found)
		}
	}
	slices.SortFunc(all, func(x, y *sale.Reservation) int {
		return cmp.Or(cmp.Compare(x.HeldAtMs, y.HeldAtMs), cmp.Compare(x.Seq, y.Seq), cmp.Compare(x.ID, y.ID))
	})
	return all
}

// passing makes the reservations that came and went, for their idempotency, and the changes of safety,
// which stood in each other's way, in the order of their time.
func (a *adoption) passing() error {
	safety := a.unknown("safety")
	rest := a.rest("safety", safety)
	if err := a.adjustAll(rest, true); err != nil {
		return err
	}
	for _, r := range a.fresh(true) {
		for len(safety) > 0 && safety[0].AtMs <= r.HeldAtMs {
			if err := a.adjust(safety[0]); err != nil {
				return err
			}
			safety = safety[1:]
		}
		if r.State == sale.StateLeft {
			if err := a.wait(r); err != nil {
				return err
			}
			continue
		}
		if !a.room(r.Lines) {
			continue // It gave everything back; only a repeat of its id is not known as one.
		}
		if err := a.hold(r); err != nil {
			return err
		}
	}
	for _, x := range safety {
		if err := a.adjust(x); err != nil {
			return err
		}
	}
	return a.adjustAll(rest, false)
}

func (a *adoption) room(lines []sale.Line) bool {
	for _, l := range lines {
		if a.books.Stock[sale.Place{SKU: l.SKU, Location: l.Location}].Available() < l.Qty {
			return false
		}
	}
	return true
}

// hold makes a reservation that the ledger does not know, and brings it to its state.
func (a *adoption) hold(found *sale.Reservation) error {
	err := a.on(found, sale.EventHeld, found.HeldAtMs, "", found.Lines, dataText(sale.HeldData{
		Fingerprint: found.Fingerprint, DeadlineMs: found.DeadlineMs,
	}))
	if err != nil {
		return err
	}
	return a.resolve(a.books.Reservations[found.ID], found)
}

func (a *adoption) takeUnits() error {
	for _, found := range a.fresh(false) {
		take := a.hold
		if found.State == sale.StateWaiting {
			take = a.wait
		}
		if err := take(found); err != nil {
			return err
		}
	}
	return nil
}

// compare is the proof: the books equal Redis in every level, count and live reservation.
func (a *adoption) compare() error {
	b, st := a.books, a.state
	wrong := func(what, name string, redis, books any) error {
		return fmt.Errorf("%w: %s %.80s is %v in redis, and %v by its reservations and adjustments", ErrNotAdoptable,
			what, name, redis, books)
	}
	for p, l := range st.stock {
		if b.Stock[p] != l {
			return wrong("stock", p.SKU+"/"+p.Location, l, b.Stock[p])
		}
	}
	for p, l := range b.Stock {
		if _, has := st.stock[p]; !has {
			return wrong("stock", p.SKU+"/"+p.Location, absent, l)
		}
	}
	for _, names := range []map[string]bool{namesOf(st.customers), namesOf(b.Customers)} {
		for name := range names {
			if want := (lua.Row{Kind: lua.RowCustomer, Name: name}).Want(b); st.customers[name] != want {
				return wrong("customer", name, st.customers[name], want)
			}
		}
	}
	for id, found := range st.records {
		known := b.Reservations[id]
		if known == nil && found.State.Finished() {
			continue
		}
		if !same(known, found) || known.State != found.State || known.OrderID != found.OrderID ||
			sale.PackLines(known.Lines) != sale.PackLines(found.Lines) || known.DeadlineMs < found.DeadlineMs {
			return wrong("reservation", id, found, known)
		}
	}
	return nil
}

func namesOf[V any](m map[string]V) map[string]bool {
	names := make(map[string]bool, len(m))
	for name := range m {
		names[name] = true
	}
	return names
}
