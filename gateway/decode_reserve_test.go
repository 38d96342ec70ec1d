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
	`{"sale":"drop","customer":"ada","lines":[{"sku":"A","qty":2}]}`,
	`{"lines" : [ {"qty":2, "location":"x","sku":"A"} , {"sku":"B","qty":1} ] ,"sale":"drop"}`,
	`{"lines":[{"qty":2}]}`, `{"lines":[{"sku":"A"},{"sku":"A"}],"qty":3}`,
	`{}`, `{"qty":01}`, `{"qty":0}`, `{"qty":1.0}`, `{"qty":1e2}`, `{"qty":-1}`, `{"qty":99999999999}`, `{"qty":"1"}`,
	`{"sale":"a","sale":"b"}`, `{"sale":"a\u0062"}`, `{"sale":"é"}`, `{"sale":null}`, `{"sale":""}`, `{"Sale":"a"}`,
	`{"lines":[]}`, `{"lines":[{}]}`, `{"lines":{}}`, `{"lines":null}`, `{"lines":[{"sku":"A","sku":"B"}]}`, `{"lines":[{"sku":""}]}`,
	`{"lines":[{"sku":"A"}],"lines":[{"sku":"A"}]}`, `{"lines":[{"sku":"A"},]}`, `{"lines":[{"sku":"A",}]}`, `{"lines":[{"SKU":"A"}]}`,
	`{"lines":[{"sku":"A"}`, `{"lines":[{"sku":"A"`, `{"lines":[{"qty":0}]}`, `{"lines":["A"]}`, `{"lines":[{"sku":"A"}]]}`, `{"sale":"a"} x`, `{"sale":"a",}`, `{,"sale":"a"}`, `{"sale" "a"}`, `{"sale":"a"`,
	`["sale"]`, ``, `"sale"`, `{"sale":"a""sku":"b"}`, "{\"sale\":\"a\x01\"}", `{"sale":"a"}{}`, `{"qty":1 2}`, `{"sale":"a"]`,
}

// takenBodies of them, the first, are taken by hand.
const takenBodies = 7

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
		require.Equal(t, i < takenBodies, agrees(t, []byte(body)), "%q", body)
	}
	// Bytes changed, left out, doubled and exchanged, at random.
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	taken := 0
	const alphabet = "\"{}:,\\ntu0019eE.-+ \t\x00\x1f\x7f\xc3\xa9aZ[]"
	for range 100_000 {
		body := []byte(reserveBodies[r.IntN(takenBodies)])
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
	for _, form := range []struct{ name, body string }{
		{"short", reserveBodies[0]},
		{"lines", `{"reservation_id":"res-00001","sale":"drop","customer":"ada","lines":[{"sku":"AIR-42","qty":1}]}`},
	} {
		for _, by := range []struct {
			name   string
			decode func([]byte, *ReserveRequest) bool
		}{
			{"by-hand", func(b []byte, to *ReserveRequest) bool { return decodeReserveFast(b, to, fields{}) }},
			{"typed", func(b []byte, to *ReserveRequest) bool { return decodeFast(b, to, fields{}) }},
		} {
			b.Run(form.name+"/"+by.name, func(b *testing.B) {
				b.ReportAllocs()
				body := []byte(form.body)
				for b.Loop() {
					var to ReserveRequest
					if !by.decode(body, &to) {
						b.Fatal("not taken")
					}
				}
			})
		}
	}
}
