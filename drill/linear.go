//go:build unix

package drill

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"flashgate/ledger"
	"flashgate/loadtest"
	"flashgate/sale"
)

// What is checked: the calls of the contested SKU, of both gateways, have an order in which each
// takes effect at one moment between its first try and its answer, and answers as the state machine
// and the number of units say.
//
// A call that was made again is one call: its effect is anywhere between its first try and the last
// answer. One without an answer at the end, and one that was refused after a try without answer, may
// have had its effect at any later time, or never.
//
// A refusal for stock may come from a gateway's memory, so it is not part of that order: it must have
// been true, by the times of the ledger's events, at some moment from staleRefusal before the call to
// its answer. It is not judged where Redis forgot, nor before, when the ledger had no event any more.
//
// Where Redis forgot, the history is cut: before, every answer counts; after, the history begins with
// what the ledger had. What was asked in between may have had its effect on either side, or none.
// Expiry does not enter: holds last longer than the round.
const (
	staleRefusal  = 300 * time.Millisecond // 250 ms by contract, and the way there
	maxOperations = 5_000
	checkTimeout  = 10 * time.Second
)

// operation is one call of a contender with all its tries.
type operation struct {
	shopper int
	verb    loadtest.Verb
	id      string
	first   time.Duration // when it was first sent
	last    time.Duration // when its last try was sent
	done    time.Duration
	answer  *loadtest.Answer // the last
	doubts  int              // tries without a certain answer before the last
}

// certain tells whether an answer says what happened.
func certain(a *loadtest.Answer) bool { return a.Status >= 200 && a.Status < 500 && a.Status != 202 }

func (o *operation) succeeded() bool { return o.answer.Status == 200 || o.answer.Status == 201 }

// soldOut tells whether it was refused because too little was free.
func (o *operation) soldOut() bool { return o.answer.Code == "insufficient-stock" }

// operations joins the tries of each call.
func operations(rec *loadtest.Recording) []operation {
	byOp := map[int64]*operation{}
	var order []*operation
	for i := range rec.Answers {
		a := &rec.Answers[i]
		o := byOp[a.Op]
		if o == nil {
			o = &operation{shopper: a.Shopper, verb: a.Verb, id: a.ID, first: a.Sent}
			byOp[a.Op] = o
			order = append(order, o)
		} else if !certain(o.answer) {
			o.doubts++
		}
		o.last, o.done, o.answer = a.Sent, a.Done(), a
	}
	all := make([]operation, len(order))
	for i, o := range order {
		all[i] = *o
	}
	return all
}

// cut is when Redis forgot, until it was open again.
type cut struct{ from, to time.Duration }

// cuts joins those that overlap.
func cuts(losses []cut) []cut {
	slices.SortFunc(losses, func(a, b cut) int { return cmp.Compare(a.from, b.from) })
	var all []cut
	for _, c := range losses {
		if n := len(all); n > 0 && c.from <= all[n-1].to {
			all[n-1].to = max(all[n-1].to, c.to)
			continue
		}
		all = append(all, c)
	}
	return all
}

// The states of an id in the model; the empty place is an id that is not known.
const (
	unknown   = '.'
	held      = 'h'
	confirmed = 'c'
	released  = 'r'
	cancelled = 'x'
)

// shelf is the state of the model: free units, and the state of every id by its number.
type shelf struct {
	free int
	ids  string
}

func (s shelf) with(id int, state byte, units int) shelf {
	ids := []byte(s.ids)
	ids[id] = state
	return shelf{s.free + units, string(ids)}
}

// input and output are those of a step of the model.
type input struct {
	verb loadtest.Verb
	id   int
}

type output struct {
	text string // how it was answered; "" is not known
	// replayed is what the answer says of itself.
	replayed bool
	// strict: there was one try, so what it says of itself must be true.
	strict bool
}

// step says whether a call may be answered so, and what is afterwards.
func (s shelf) step(in input, out output) (bool, shelf) {
	if out.text == "" {
		_, next := s.effect(in)
		return true, next
	}
	text, next := s.effect(in)
	if text == "done" && next != s && out.replayed && out.strict {
		return false, s // It says that it was done before, and was not.
	}
	if text == "done" && next == s && !out.replayed && out.strict {
		return false, s // It says that it was the first, and was not.
	}
	return text == out.text, next
}

// effect is what a call does, in the words of the contract.
func (s shelf) effect(in input) (text string, next shelf) {
	state := s.ids[in.id]
	switch in.verb {
	case loadtest.Reserve:
		switch {
		case state == held || state == confirmed:
			return "done", s
		case state == released:
			return "already-released", s
		case state == cancelled:
			return "already-cancelled", s
		case s.free == 0:
			return "insufficient-stock", s
		}
		return "done", s.with(in.id, held, -1)
	case loadtest.Confirm:
		return s.end(in.id, held, confirmed, 0, map[byte]string{
			released: "already-released", cancelled: "already-cancelled",
		})
	case loadtest.Release:
		return s.end(in.id, held, released, 1, map[byte]string{
			confirmed: "already-confirmed", cancelled: "already-cancelled",
		})
	case loadtest.Cancel:
		return s.end(in.id, confirmed, cancelled, 1, map[byte]string{held: "not-confirmed", released: "not-confirmed"})
	default:
		return "not a call of a contender", s
	}
}

func (s shelf) end(id int, from, to byte, units int, refusals map[byte]string) (string, shelf) {
	switch state := s.ids[id]; state {
	case from:
		return "done", s.with(id, to, units)
	case to:
		return "done", s
	case unknown:
		return "unknown-reservation", s
	default:
		return refusals[state], s
	}
}

// model begins with the given state.
func model(first shelf) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return first },
		Step: func(state, in, out any) (bool, any) {
			return state.(shelf).step(in.(input), out.(output)) //nolint:forcetypeassert // ours alone
		},
	}
}

// history numbers the ids and cuts the operations into parts.
type history struct {
	operations []operation
	cuts       []cut
	numbers    map[string]int
	units      int
	// started is the beginning of the recording, events the contest's chain.
	started time.Time
	events  []ledger.Entry
}

func newHistory(rec *loadtest.Recording, losses []cut, events []ledger.Entry, units int) *history {
	h := &history{
		operations: operations(rec), cuts: cuts(losses), numbers: map[string]int{}, units: units,
		started: rec.Started, events: events,
	}
	number := func(id string) {
		if _, ok := h.numbers[id]; id != "" && !ok {
			h.numbers[id] = len(h.numbers)
		}
	}
	for i := range h.operations {
		number(h.operations[i].id)
	}
	for i := range events {
		number(events[i].Reservation)
	}
	return h
}

// after is what the ledger's chain makes of the shelf up to a time of the recording.
func (h *history) after(t time.Duration) shelf {
	ids := make([]byte, len(h.numbers))
	for i := range ids {
		ids[i] = unknown
	}
	free := h.units
	for i := range h.events {
		e := &h.events[i]
		if time.UnixMilli(e.AtMs).Sub(h.started) > t {
			break
		}
		id, ok := h.numbers[e.Reservation]
		if !ok {
			continue
		}
		switch e.Type {
		case sale.EventHeld, sale.EventOffered:
			ids[id], free = held, free-1
		case sale.EventConfirmed:
			ids[id] = confirmed
		case sale.EventReleased, sale.EventExpired:
			ids[id], free = released, free+1
		case sale.EventCancelled:
			ids[id], free = cancelled, free+1
		}
	}
	return shelf{free, string(ids)}
}

// part is the history between two cuts; lower and upper bound it.
func (h *history) part(lower, upper time.Duration) (all []porcupine.Operation) {
	add := func(o *operation, out output, from, to time.Duration) {
		all = append(all, porcupine.Operation{
			ClientId: o.shopper, Input: input{o.verb, h.numbers[o.id]}, Output: out,
			Call: int64(from), Return: int64(to),
		})
	}
	for i := range h.operations {
		o := &h.operations[i]
		inside := o.last >= lower && o.done < upper && certain(o.answer)
		from := max(o.first, lower)
		if inside {
			out := output{text: o.answer.Code}
			if o.succeeded() {
				out = output{"done", o.answer.Replayed, o.doubts == 0 && o.verb == loadtest.Reserve}
			}
			if !o.soldOut() {
				add(o, out, from, o.done)
			}
		}
		doubt := o.first < upper && o.done >= lower && (!inside || !o.succeeded() && o.doubts > 0)
		if doubt && !(certain(o.answer) && !o.succeeded() && o.doubts == 0) {
			add(o, output{}, max(o.first, lower), math.MaxInt64)
		}
	}
	return all
}

// falseRefusal looks for a refusal for stock that was not true at any moment that counts.
func (h *history) falseRefusal() string {
	empty, blind := h.empty(), h.blind()
	for i := range h.operations {
		o := &h.operations[i]
		from, to := o.last-staleRefusal, o.done
		judged := o.soldOut() && !slices.ContainsFunc(blind, func(c cut) bool { return from <= c.to && to >= c.from })
		if judged && !slices.ContainsFunc(empty, func(c cut) bool { return from <= c.to && to >= c.from }) {
			return fmt.Sprintf("%s was refused for stock at %d ms, when units were free", o.id, o.done.Milliseconds())
		}
	}
	return ""
}

// blind are the times of which the ledger does not know everything: the cuts, each from the last event
// before it, because what came after that event may be what was lost.
func (h *history) blind() (all []cut) {
	for _, c := range h.cuts {
		from := time.Duration(math.MinInt64)
		for i := range h.events {
			if at := time.UnixMilli(h.events[i].AtMs).Sub(h.started); at <= c.from {
				from = at
			}
		}
		all = append(all, cut{from, c.to})
	}
	return all
}

// empty are the times without a free unit, by the ledger's chain; its times are whole ms.
func (h *history) empty() (all []cut) {
	const rounding = 2 * time.Millisecond
	s, since, none := h.units, time.Duration(0), false
	for i := range h.events {
		e := &h.events[i]
		at := time.UnixMilli(e.AtMs).Sub(h.started)
		switch e.Type {
		case sale.EventHeld, sale.EventOffered:
			s--
		case sale.EventReleased, sale.EventExpired, sale.EventCancelled:
			s++
		}
		switch {
		case s <= 0 && !none:
			since, none = at, true
		case s > 0 && none:
			all, none = append(all, cut{since - rounding, at + rounding}), false
		}
	}
	if none {
		all = append(all, cut{since - rounding, math.MaxInt64})
	}
	return all
}

// stuck names the call that could not be put into an order: the first to end of those that the longest
// order leaves out, with every call of its id.
func (h *history) stuck(state shelf, part []porcupine.Operation, info porcupine.LinearizationInfo) string {
	var longest []porcupine.Operation
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, order := range partition {
			if len(order) > len(longest) {
				longest = order
			}
		}
	}
	placed := map[porcupine.Operation]bool{}
	for _, o := range longest {
		_, state = state.step(o.Input.(input), o.Output.(output)) //nolint:forcetypeassert // ours alone
		placed[o] = true
	}
	rest := slices.DeleteFunc(slices.Clone(part), func(o porcupine.Operation) bool { return placed[o] })
	if len(rest) == 0 {
		return "which one is not known"
	}
	at := slices.MinFunc(rest, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	id := at.Input.(input).id //nolint:forcetypeassert // ours alone
	text := fmt.Sprintf("%d of them do, then %d units are free, and of the next id (%c) the calls are:",
		len(longest), state.free, state.ids[id])
	for i := range h.operations {
		if o := &h.operations[i]; h.numbers[o.id] == id {
			text += fmt.Sprintf(" %s %s %d to %d ms, %d tries without answer, then %d %s;", o.verb, o.id,
				o.first.Milliseconds(), o.done.Milliseconds(), o.doubts, o.answer.Status, o.answer.Code)
		}
	}
	return text
}

// linearity is what the check found.
type linearity struct {
	Operations int    `json:"operations"`
	Parts      int    `json:"parts"`
	Word       string `json:"word"` // kept, broken or unknown
	Detail     string `json:"detail,omitempty"`
}

// check looks for an order of every part.
func (h *history) check() linearity {
	found := linearity{Operations: len(h.operations), Word: wordKept}
	if len(h.operations) > maxOperations {
		found.Word, found.Detail = wordUnknown, fmt.Sprintf("more than %d calls", maxOperations)
		return found
	}
	if text := h.falseRefusal(); text != "" {
		found.Word, found.Detail = wordBroken, text
		return found
	}
	lower, first := time.Duration(math.MinInt64/2), h.after(-time.Hour)
	for i := 0; i <= len(h.cuts); i++ {
		upper := time.Duration(math.MaxInt64)
		if i < len(h.cuts) {
			upper = h.cuts[i].from
		}
		found.Parts++
		part := h.part(lower, upper)
		result, info := porcupine.CheckOperationsVerbose(model(first), part, checkTimeout)
		switch result {
		case porcupine.Illegal:
			found.Word = wordBroken
			found.Detail = fmt.Sprintf("part %d: %d calls have no order; %s", i+1, len(part),
				h.stuck(first, part, info))
			return found
		case porcupine.Unknown:
			found.Word = wordUnknown
			found.Detail = fmt.Sprintf("part %d: %d calls, not decided within %v", i+1, len(part), checkTimeout)
		}
		if i < len(h.cuts) {
			// Times of events are whole ms.
			lower = h.cuts[i].to + 2*time.Millisecond
			first = h.after(h.cuts[i].to)
		}
	}
	return found
}
