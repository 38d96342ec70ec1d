package gateway

import (
	"math/rand/v2"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
)

var reserveBodies = []string{
	`{"reservation_id":"res-00001","sale":"drop","customer":"ada","sku":"AIR-42","qty":1}`,
	" {\n\t\"reservation_id\" : \"res-00001\" ,\r\n\"sale\":\"drop\", \"customer\":\"a d a\",\"sku\":\"A\",\"qty\": 1000 ,\"location\":\"berlin\"} ",
	`{"sale":"drop","customer":"ada","sku":"A","qty":2,"device":"d","client_ip":"192.0.2.1","tier":"vip","admission":"x.y"}`,
	`{}`, `{"qty":01}`, `{"qty":0}`, `{"qty":1.0}`, `{"qty":1e2}`, `{"qty":-1}`, `{"qty":99999999999}`, `{"qty":"1"}`,
	`{"sale":"a","sale":"b"}`, `{"sale":"a\u0062"}`, `{"sale":"é"}`, `{"sale":null}`, `{"sale":""}`, `{"Sale":"a"}`,
	`{"lines":[{"sku":"A","qty":1}]}`, `{"sale":"a"} x`, `{"sale":"a",}`, `{,"sale":"a"}`, `{"sale" "a"}`, `{"sale":"a"`,
	`["sale"]`, ``, `"sale"`, `{"sale":"a""sku":"b"}`, "{\"sale\":\"a\x01\"}", `{"sale":"a"}{}`, `{"qty":1 2}`, `{"sale":"a"]`,
}

// agrees fails when the hand-made reader takes what the typed decoder takes otherwise, or not at all.
func agrees(t *testing.T, body []byte) (taken bool) {
	var fast, typed ReserveRequest
	if !readReserve(body, &fast) {
		return false
	}
	require.NoError(t, json.Unmarshal(body, &typed, strictJSON), "%q", body)
	require.Equal(t, typed, fast, "%q", body)
	return true
}

func TestReadReserveAgreesWithTheTypedDecoder(t *testing.T) {
	for i, body := range reserveBodies {
		require.Equal(t, i < 3, agrees(t, []byte(body)), "%q", body)
	}
	// Bytes changed, left out, doubled and exchanged, at random.
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	taken := 0
	const alphabet = "\"{}:,\\ntu0019eE.-+ \t\x00\x1f\x7f\xc3\xa9aZ[]"
	for range 100_000 {
		body := []byte(reserveBodies[r.IntN(3)])
		for range 1 + r.IntN(3) {
			at := r.IntN(len(body))
			switch r.IntN(4) {
			case 0:
				body[at] = alphabet[r.IntN(len(alphabet))]
			case 1:
				body = append(body[:at], body[at+1:]...)
			case 2:
				body = append(body[:at+1], body[at:]...)
			default:
				other := r.IntN(len(body))
				body[at], body[other] = body[other], body[at]
			}
		}
		if agrees(t, body) {
			taken++
		}
	}
	require.Positive(t, taken)
}

func FuzzReadReserve(f *testing.F) {
	for _, body := range reserveBodies {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) { agrees(t, body) })
}

func BenchmarkReadReserve(b *testing.B) {
	body := []byte(reserveBodies[0])
	b.Run("by-hand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var to ReserveRequest
			if !decodeReserveFast(body, &to, fields{}) {
				b.Fatal("not taken")
			}
		}
	})
	b.Run("typed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var to ReserveRequest
			if !decodeFast(body, &to, fields{}) {
				b.Fatal("not taken")
			}
		}
	})
}
