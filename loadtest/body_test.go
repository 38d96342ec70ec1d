package loadtest

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

// Written by hand, a body is what encoding/json writes, whatever is in it.
func TestBodiesAreThoseOfEncodingJSON(t *testing.T) {
	hostile := []string{"", "a", `"`, `\`, "<&>", "\x00\n\t", "ü", "\u2028", "\xff", "{}", "\x7f"}
	for _, text := range hostile {
		for _, c := range []call{
			{},
			{Sale: text, ReservationID: text, Customer: text, OrderID: text, Reason: text, Tier: text, Admission: text},
			{Lines: []sale.Line{{SKU: text, Qty: -1, Location: text}, {SKU: "B", Qty: 1 << 40}}, Extension: 3, Restock: true},
		} {
			want, err := json.Marshal(c)
			require.NoError(t, err)
			require.Equal(t, string(want), string(c.appendTo(nil)))
		}
	}
}

// What the reader takes means the same to encoding/json; what that does not take, it does not either.
func FuzzReply(f *testing.F) {
	for _, seed := range []string{
		`{"reservation_id":"a","sale":"drop","customer":"c","state":"held","lines":[{"sku":"A","qty":1,"location":"berlin"}],` +
			`"held_at":"2026-01-02T03:04:05.678Z","expires_at":"2026-01-02T03:06:05.678Z","expires_in_ms":120000}`,
		`{"type":"/problems/insufficient-stock","title":"t","status":409,"code":"insufficient-stock","waitlist":false,` +
			`"lines":[{"sku":"A","requested":2,"available":0},{"sku":"B","requested":2,"available":0}],"retry_after_ms":250}`,
		`{"ticket":"t","state":"waiting","poll_after_ms":1500,"admission":null}`, `{"durable":true,"order_id":"o"}`,
		` { "lines" : [ ] , "code" : "a" } ` + "\n", `{}`, `{"items":[{"sku":"A"}],"state":"open"}`, `{"code":"\u0041"}`,
		`{"CODE":"a"}`, `{"retry_after_ms":-1}`, `{"retry_after_ms":1.5}`, `{"retry_after_ms":01}`, `{"code":1}`, `{"code":"a"`,
		`{"code":"a"}}`, `{"code":"a",}`, `{"lines":[{}],"lines":[{"sku":"A"}]}`, `<html>`, ``, `null`, `[]`, `"a"`, `{"a":tru}`,
		`{"lines":[{"sku":"A","qty":1}`, `{"durable":truefalse}`, `{"x":1e5}`, `{"x":12345678901234567890}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var got, want reply
		var known words
		wrong := json.Unmarshal(body, &want)
		err := got.read(body, &known)
		require.Equal(t, wrong == nil, err == nil, "%v, %v", err, wrong)
		if err == nil {
			require.Equal(t, want, got)
		}
	})
}
