//go:build unix

package drill

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/loadtest"
	"flashgate/sale"
)

// told builds a recording and the ledger's chain, call by call.
type told struct {
	rec    loadtest.Recording
	events []ledger.Entry
	op     int64
}

func newTold() *told { return &told{rec: loadtest.Recording{Started: time.UnixMilli(1_000_000)}} }

// say adds a call in the time from and to, in ms, with its answer: a status and a code.
func (d *told) say(verb loadtest.Verb, id string, from, to, status int, code string) *told {
	d.op++
	return d.again(verb, id, from, to, status, code)
}

// again is another try of the last call.
func (d *told) again(verb loadtest.Verb, id string, from, to, status int, code string) *told {
	d.rec.Answers = append(d.rec.Answers, loadtest.Answer{
		Op: d.op, Verb: verb, ID: id, Sent: time.Duration(from) * time.Millisecond,
		Took: time.Duration(to-from) * time.Millisecond, Status: status, Code: code, Replayed: code == "replayed",
	})
	return d
}

func (d *told) event(at int, t sale.EventType, id string) *told {
	d.events = append(d.events, ledger.Entry{Event: sale.Event{AtMs: 1_000_000 + int64(at), Type: t, Reservation: id}})
	return d
}

func TestOrderOfAHistory(t *testing.T) {
	const r, c, g, x = loadtest.Reserve, loadtest.Confirm, loadtest.Release, loadtest.Cancel
	oneHeld := func() *told { return newTold().say(r, "a", 0, 10, 201, "").event(5, sale.EventHeld, "a") }
	for name, test := range map[string]struct {
		told *told
		cuts []cut
		word string
	}{
		"nothing":       {newTold(), nil, wordKept},
		"one unit":      {oneHeld(), nil, wordKept},
		"sold twice":    {oneHeld().say(r, "b", 20, 30, 201, ""), nil, wordBroken},
		"at once twice": {oneHeld().say(r, "b", 0, 10, 201, ""), nil, wordBroken},
		"given back": {
			oneHeld().say(g, "a", 11, 20, 200, "").event(15, sale.EventReleased, "a").say(r, "b", 21, 30, 201, ""), nil, wordKept,
		},
		"sold before it was given back": {
			oneHeld().say(g, "a", 40, 50, 200, "").event(45, sale.EventReleased, "a").say(r, "b", 21, 30, 201, ""), nil, wordBroken,
		},
		"given back twice": {
			oneHeld().say(g, "a", 11, 20, 200, "").say(c, "a", 30, 40, 200, ""), nil, wordBroken,
		},
		"replay":                    {oneHeld().say(r, "a", 20, 30, 201, "replayed"), nil, wordKept},
		"new twice":                 {oneHeld().say(r, "a", 20, 30, 201, ""), nil, wordBroken},
		"replay of nothing":         {newTold().say(r, "a", 0, 10, 201, "replayed"), nil, wordBroken},
		"a lost answer had effect":  {newTold().say(r, "a", 0, 10, 0, "").again(r, "a", 20, 30, 201, "replayed"), nil, wordKept},
		"a lost answer had none":    {newTold().say(r, "a", 0, 10, 0, "").say(r, "b", 20, 30, 201, ""), nil, wordKept},
		"a lost answer, effect yet": {newTold().say(r, "a", 0, 10, 0, "").say(g, "a", 50, 60, 200, ""), nil, wordKept},
		"cancelled and sold again": {
			oneHeld().say(c, "a", 11, 20, 200, "").say(x, "a", 21, 30, 200, "").say(r, "b", 31, 40, 201, ""), nil, wordKept,
		},
		"confirmed and gone": {
			oneHeld().say(c, "a", 11, 20, 200, "").say(c, "a", 30, 40, 404, "unknown-reservation"), nil, wordBroken,
		},
		"true refusal":  {oneHeld().say(r, "b", 20, 30, 409, "insufficient-stock"), nil, wordKept},
		"false refusal": {newTold().say(r, "b", 20, 30, 409, "insufficient-stock"), nil, wordBroken},
		"refusal from memory": {
			oneHeld().event(50, sale.EventReleased, "a").say(g, "a", 45, 55, 200, "").
				say(r, "b", 200, 210, 409, "insufficient-stock"), nil, wordKept,
		},
		"refusal from a memory that is too old": {
			oneHeld().event(50, sale.EventReleased, "a").say(g, "a", 45, 55, 200, "").
				say(r, "b", 600, 610, 409, "insufficient-stock"), nil, wordBroken,
		},
		"refused for a hold that Redis forgot": {
			newTold().event(-50, sale.EventAdjusted, "").say(r, "a", 0, 10, 201, "").
				say(r, "b", 12, 15, 409, "insufficient-stock"),
			[]cut{{20 * time.Millisecond, 50 * time.Millisecond}},
			wordKept,
		},
		"refused before the hold that Redis forgot": {
			newTold().say(r, "b", 12, 15, 409, "insufficient-stock").event(400, sale.EventHeld, "a").
				event(401, sale.EventReleased, "a").say(r, "c", 500, 510, 201, ""),
			[]cut{{520 * time.Millisecond, 550 * time.Millisecond}},
			wordBroken,
		},
		"a hold that Redis forgot": {
			newTold().say(r, "a", 0, 10, 201, "").say(r, "b", 100, 110, 201, "").event(105, sale.EventHeld, "b"),
			[]cut{{20 * time.Millisecond, 50 * time.Millisecond}},
			wordKept,
		},
		"a hold that Redis forgot after it": {
			newTold().say(r, "a", 60, 70, 201, "").say(r, "b", 100, 110, 201, ""),
			[]cut{{20 * time.Millisecond, 50 * time.Millisecond}},
			wordBroken,
		},
		"a hold that the ledger had": {
			oneHeld().say(r, "b", 100, 110, 201, ""), []cut{{20 * time.Millisecond, 50 * time.Millisecond}}, wordBroken,
		},
	} {
		t.Run(name, func(t *testing.T) {
			found := newHistory(&test.told.rec, test.cuts, test.told.events, 1).check()
			require.Equal(t, test.word, found.Word, found.Detail)
			require.Equal(t, len(test.cuts)+1, max(found.Parts, len(test.cuts)+1))
		})
	}
}

// What has no order is named with what was asked of its id.
func TestWhatHasNoOrderIsNamed(t *testing.T) {
	d := newTold().say(loadtest.Reserve, "a", 0, 10, 201, "").say(loadtest.Reserve, "b", 20, 30, 201, "")
	detail := newHistory(&d.rec, nil, nil, 1).check().Detail
	require.Contains(t, detail, "1 of them do, then 0 units are free")
	require.Contains(t, detail, "reserve b 20 to 30 ms, 0 tries without answer, then 201")
}

func TestTooLongAHistoryIsUnknown(t *testing.T) {
	d := newTold()
	for i := range maxOperations + 1 {
		d.say(loadtest.Reserve, strconv.Itoa(i), i, i, 409, "insufficient-stock")
	}
	require.Equal(t, wordUnknown, newHistory(&d.rec, nil, nil, 1).check().Word)
}
