package lua

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"flashgate/sale"
)

// A batch as it is, against comparing each request with all before it.
func TestRepeatsOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, kinds := rapid.IntRange(1, MaxBatch).Draw(t, "requests"), rapid.IntRange(1, 10_000).Draw(t, "kinds")
		origins := rapid.Bool().Draw(t, "origins")
		of := rapid.IntRange(0, kinds)
		value := func(what string) string {
			if i := of.Draw(t, what); i > 0 {
				return strconv.Itoa(i)
			}
			return ""
		}
		batch := make([]ReserveRequest, n)
		want, repeated := make([]byte, n), false
		for i := range batch {
			r := &batch[i]
			*r = ReserveRequest{ID: "r" + value("id"), Customer: "c" + value("customer"), IP: value("ip"), Device: value("device")}
			want[i] = '0'
			for _, before := range batch[:i] {
				if before.ID == r.ID || before.Customer == r.Customer ||
					origins && (r.IP != "" && before.IP == r.IP || r.Device != "" && before.Device == r.Device) {
					want[i], repeated = '1', true
				}
			}
		}
		if !repeated {
			want = nil
		}
		require.Equal(t, string(want), string(repeatsOf(batch, origins)))
	})
}

// What each request asks for can be told from the arguments, and nothing is sent twice.
func TestAppendAsks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		batch := make([]ReserveRequest, rapid.IntRange(1, MaxBatch).Draw(t, "requests"))
		kinds := rapid.IntRange(1, MaxBatch).Draw(t, "kinds")
		for i := range batch {
			kind := rapid.IntRange(1, kinds).Draw(t, "kind")
			batch[i].Tier, batch[i].Lines = strconv.Itoa(kind%3), []sale.Line{{SKU: "A", Qty: int64(kind)}}
		}
		args, asked := appendAsks([]any{"first"}, batch)
		args = args[1:]
		seen := map[any]bool{}
		for _, a := range args {
			require.False(t, seen[a], a)
			seen[a] = true
		}
		require.Equal(t, len(args) > 1, asked != nil)
		for i, r := range batch {
			at := 0
			if asked != nil {
				at = int(asked[i])
			}
			require.Equal(t, sale.PackLines(r.Lines)+"\n\n"+r.Tier, args[at])
		}
	})
}

func TestReserveTakesFingerprintsOfOneLength(t *testing.T) {
	_, err := new(Shard).Reserve(t.Context(), []ReserveRequest{{Fingerprint: "one"}, {Fingerprint: "other"}})
	require.ErrorContains(t, err, "different lengths")
}
