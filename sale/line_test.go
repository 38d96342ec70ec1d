package sale_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"flashgate/sale"
)

func anyLines(open bool) *rapid.Generator[[]sale.Line] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) sale.Line {
		locations := []string{"berlin", "leipzig", "x.y_z-1"}
		if open {
			locations = append(locations, "")
		}
		return sale.Line{
			SKU:      rapid.SampledFrom([]string{"A", "B", "A-1", "a.b_c"}).Draw(t, "sku"),
			Qty:      rapid.Int64Range(1, sale.MaxQty).Draw(t, "qty"),
			Location: rapid.SampledFrom(locations).Draw(t, "location"),
		}
	}), 0, sale.MaxLines)
}

func TestLinesArePackedAndParsed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := anyLines(true).Draw(t, "lines")
		got, err := sale.ParseLines(sale.PackLines(lines))
		require.NoError(t, err)
		require.True(t, slices.Equal(lines, got))
	})
	require.Equal(t, "A/berlin=2;B/=1", sale.PackLines([]sale.Line{{"A", 2, "berlin"}, {"B", 1, ""}}))
	for _, wrong := range []string{"A", "A/b", "A/b=", "A/b=x", "/b=1", ";", "A/b=1;", "A/b=99999999999999999999"} {
		_, err := sale.ParseLines(wrong)
		require.Error(t, err, wrong)
	}
}

// Whatever the order in which lines are asked for, their normal form and fingerprint are one, with
// the same units per place, each place once, open places after the named ones.
func TestNormalizedLinesDoNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := anyLines(true).Draw(t, "lines")
		asked := slices.Clone(lines)
		normal := sale.NormalizeLines(lines)
		require.True(t, slices.Equal(asked, lines), "the request itself is not changed")
		shuffled := sale.NormalizeLines(rapid.Permutation(lines).Draw(t, "shuffled"))
		require.True(t, slices.Equal(normal, shuffled))
		require.True(t, slices.Equal(normal, sale.NormalizeLines(normal)))
		require.Equal(t, sale.Units(lines), sale.Units(normal))
		require.Equal(t, sale.Fingerprint("s", "c", normal), sale.Fingerprint("s", "c", shuffled))
		seen, open := map[sale.Place]bool{}, map[string]bool{}
		for _, l := range normal {
			place := sale.Place{SKU: l.SKU, Location: l.Location}
			require.False(t, seen[place])
			require.False(t, open[l.SKU], "a named place after the open one")
			seen[place], open[l.SKU] = true, l.Location == ""
		}
	})
}

func TestFingerprintTellsRequestsApart(t *testing.T) {
	lines := []sale.Line{{"A", 2, "berlin"}}
	base := sale.Fingerprint("s", "c", lines)
	require.Len(t, base, 11)
	for _, other := range []string{
		sale.Fingerprint("s2", "c", lines), sale.Fingerprint("s", "c2", lines), sale.Fingerprint("s", "c", nil),
		sale.Fingerprint("s", "c", []sale.Line{{"A", 1, "berlin"}}), sale.Fingerprint("s", "c", []sale.Line{{"A", 2, ""}}),
		sale.Fingerprint("s", "c", []sale.Line{{"A", 2, "berlin"}, {"B", 1, "berlin"}}),
	} {
		require.NotEqual(t, base, other)
	}
}

func TestSubtract(t *testing.T) {
	from := []sale.Line{{"A", 3, "x"}, {"B", 1, "x"}}
	left, ok := sale.Subtract(from, []sale.Line{{"A", 1, "x"}, {"A", 1, "x"}, {"B", 1, "x"}})
	require.True(t, ok)
	require.Equal(t, []sale.Line{{"A", 1, "x"}}, left)
	for _, take := range [][]sale.Line{{{"A", 4, "x"}}, {{"A", 1, "y"}}, {{"C", 1, "x"}}} {
		_, ok = sale.Subtract(from, take)
		require.False(t, ok)
	}
	left, ok = sale.Subtract(from, from)
	require.True(t, ok)
	require.Empty(t, left)
}

func TestRecordsArePackedAndParsed(t *testing.T) {
	number := rapid.Int64Range(-1<<53, 1<<53)
	text := rapid.StringMatching(`[ -~äß€]{0,20}`)
	rapid.Check(t, func(t *rapid.T) {
		lines := anyLines(false).Draw(t, "lines")
		if len(lines) == 0 {
			lines = nil
		}
		r := sale.Reservation{
			ID: "id", State: sale.StateHeld, Customer: text.Draw(t, "customer"), Fingerprint: "fp", Lines: lines,
			HeldAtMs: number.Draw(t, "held"), DeadlineMs: number.Draw(t, "deadline"), ResolvedAtMs: number.Draw(t, "resolved"),
			Extension: number.Draw(t, "extension"), OrderID: text.Draw(t, "order"), Seq: number.Draw(t, "seq"), Mark: "m",
		}
		gotR, err := sale.ParseReservation("id", r.Pack())
		require.NoError(t, err)
		require.Equal(t, r, gotR)

		a := sale.Adjustment{
			ID: "id", Fingerprint: "fp", Place: sale.Place{SKU: "A", Location: "x"}, Field: "safety",
			Delta: number.Draw(t, "delta"), AtMs: number.Draw(t, "at"),
			Level: sale.Level{
				OnHand: number.Draw(t, "onhand"), Safety: number.Draw(t, "safety"),
				Held: number.Draw(t, "h"), Sold: number.Draw(t, "sold"),
			},
			Seq: 7, Mark: "m",
		}
		gotA, err := sale.ParseAdjustment("id", a.Pack())
		require.NoError(t, err)
		require.Equal(t, a, gotA)

		e := sale.Event{
			Epoch: 2, Seq: 3, Mark: "m", Prev: "p", AtMs: number.Draw(t, "e"), Type: sale.EventHeld, Sale: "s", Shard: 0,
			Reservation: "id", Customer: text.Draw(t, "ec"), Lines: lines, Actor: text.Draw(t, "actor"),
			Ref: text.Draw(t, "ref"), Data: `{"reason":"a\nb"}`,
		}
		gotE, err := sale.ParseEvent("s", 0, 2, 3, e.Pack())
		require.NoError(t, err)
		require.Equal(t, e, gotE)
	})
}

func TestRecordsThatCannotBeRead(t *testing.T) {
	r := sale.Reservation{State: sale.StateHeld}
	a := sale.Adjustment{}
	e := sale.Event{Type: sale.EventHeld}
	for _, packed := range []string{"", "x", r.Pack() + "\n", a.Pack() + "\n", "x" + e.Pack() + "\nmore"} {
		_, err := sale.ParseReservation("id", packed)
		require.Error(t, err)
		_, err = sale.ParseAdjustment("id", packed)
		require.Error(t, err)
		_, err = sale.ParseEvent("s", 0, 1, 1, packed)
		require.Error(t, err)
	}
	_, err := sale.ParseEvent("s", 0, 1, 1, "m\n\nsoon\nheld\n\n\n\n\n\n")
	require.Error(t, err)
	_, err = sale.ParseEvent("s", 0, 1, 1, "m\n\n5\nheld\n\n\nbroken\n\n\n")
	require.Error(t, err)
	_, err = sale.ParseReservation("id", "held\nc\nf\nbroken\n1\n1\n1\n1\n\n1\nm")
	require.Error(t, err)
	_, err = sale.ParseReservation("id", "held\nc\nf\n\n1\n1\nx\n1\n\n1\nm")
	require.Error(t, err)
	_, err = sale.ParseAdjustment("id", "f\nA\nx\non_hand\n1\n1\n1\n1\n1\nx\n1\nm")
	require.Error(t, err)
}

// A hash depends on every column and on what was before.
func TestHashCoversEveryColumn(t *testing.T) {
	base := sale.Event{
		Epoch: 1, Seq: 2, Mark: "m", Prev: "p", AtMs: 3, Type: sale.EventHeld, Sale: "s", Shard: 0, Reservation: "r",
		Customer: "c", Lines: []sale.Line{{"A", 1, "x"}}, Actor: "a", Ref: "f", Data: "{}",
	}
	seen := map[string]bool{string(base.Hash(nil)): true, string(base.Hash([]byte("x"))): true}
	for _, change := range []func(*sale.Event){
		func(e *sale.Event) { e.Epoch++ }, func(e *sale.Event) { e.Seq++ }, func(e *sale.Event) { e.Mark += "x" },
		func(e *sale.Event) { e.Prev += "x" }, func(e *sale.Event) { e.AtMs++ }, func(e *sale.Event) { e.Type = "x" },
		func(e *sale.Event) { e.Sale += "x" }, func(e *sale.Event) { e.Shard++ }, func(e *sale.Event) { e.Reservation += "x" },
		func(e *sale.Event) { e.Customer += "x" }, func(e *sale.Event) { e.Lines = nil }, func(e *sale.Event) { e.Actor += "x" },
		func(e *sale.Event) { e.Ref += "x" }, func(e *sale.Event) { e.Data = "" },
	} {
		e := base
		change(&e)
		h := string(e.Hash(nil))
		require.False(t, seen[h])
		seen[h] = true
	}
	require.Len(t, seen, 16)
}

func TestOutcomesAreListedOnce(t *testing.T) {
	seen := map[sale.Outcome]bool{}
	for _, o := range sale.Outcomes {
		require.False(t, seen[o], o)
		seen[o] = true
	}
}
