package loadtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

// bookings is a peer with an API of its own; each field is a way to break its word.
type bookings struct {
	oversell, forgetIDs, ignoreCap, forgetOrders, reuseIDs bool

	mu    sync.Mutex
	left  int
	units map[string]int
	made  map[string]string // request by id
	paid  map[string]bool
}

func (b *bookings) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := strings.TrimPrefix(r.URL.Path, "/book/")
	switch {
	case r.Method == http.MethodGet && !b.paid[id]:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodGet:
		w.WriteHeader(http.StatusOK)
	case strings.HasPrefix(r.URL.Path, "/pay/"):
		b.paid[strings.TrimPrefix(r.URL.Path, "/pay/")] = !b.forgetOrders
		w.WriteHeader(http.StatusOK)
	default:
		var ask struct {
			User string
			N    int
		}
		_ = json.NewDecoder(r.Body).Decode(&ask)
		request := fmt.Sprintf("%s %d", ask.User, ask.N)
		was, known := b.made[id]
		switch {
		case known && was == request && !b.forgetIDs:
			w.WriteHeader(http.StatusOK)
		case known && was != request && !b.reuseIDs:
			w.WriteHeader(http.StatusUnprocessableEntity)
		case b.units[ask.User]+ask.N > 1 && !b.ignoreCap && !known:
			w.WriteHeader(http.StatusForbidden)
		case b.left < ask.N && !b.oversell:
			w.WriteHeader(http.StatusConflict)
		default:
			b.left -= ask.N
			b.units[ask.User] += ask.N
			b.made[id] = request
			w.WriteHeader(http.StatusCreated)
		}
	}
}

// A peer is judged by its answers: an honest one breaks nothing, and each lie is found under its name.
func TestAPeerIsAuditedByItsAnswers(t *testing.T) {
	t.Parallel()
	verdicts := func(t *testing.T, b *bookings, change func(*Mapping)) []Verdict {
		t.Helper()
		b.left, b.units, b.made, b.paid = 40, map[string]int{}, map[string]string{}, map[string]bool{}
		server := httptest.NewServer(b)
		defer server.Close()
		o := options(&shop{Server: server, config: testSale()})
		o.Sale.Items = o.Sale.Items[:1]
		o.Mix, o.StockTries = Mix{Buyers: 5, DoubleClickers: 3, Hoarders: 1, IDReusers: 2}, 1
		o.Schedule = Schedule{{Seconds: 0.3, From: 300, To: 300}}
		o.Peer = &Mapping{
			Peer: "booking", Stock: map[string]int64{"A": 40}, CapPerCustomer: 1,
			Reserve: MappedCall{
				Method: "POST", Path: "/book/{id}", Body: `{"user":"{customer}","n":{qty}}`, Success: []int{200, 201},
				Replay: []int{200}, SoldOut: []int{409},
			},
			Confirm: &MappedCall{Method: "POST", Path: "/pay/{id}", Success: []int{200}},
			Read:    &MappedCall{Method: "GET", Path: "/book/{id}", Success: []int{200}},
		}
		if change != nil {
			change(o.Peer)
		}
		require.Empty(t, o.Peer.Validate())
		v, err := PeerAudit{BaseURL: server.URL, Mapping: o.Peer, Recording: runCrowd(t, o)}.Run(t.Context())
		require.NoError(t, err)
		require.Len(t, v, 4)
		return v
	}
	for _, v := range verdicts(t, &bookings{}, nil) {
		require.True(t, v.Kept, "%s: %s", v.Title, v.text())
		require.True(t, v.Tried, v.Title)
	}
	for name, c := range map[string]struct {
		peer *bookings
		at   int
		says string
	}{
		"oversell":         {&bookings{oversell: true}, 0, "units of A were sold to shoppers, there were 40"},
		"an id twice":      {&bookings{forgetIDs: true}, 1, "times as new"},
		"an id for others": {&bookings{reuseIDs: true, ignoreCap: true}, 1, "was accepted for"},
		"no cap":           {&bookings{ignoreCap: true}, 2, "the cap is 1"},
		"lost orders":      {&bookings{forgetOrders: true}, 3, "is answered peer-404"},
	} {
		t.Run(name, func(t *testing.T) {
			v := verdicts(t, c.peer, nil)[c.at]
			require.False(t, v.Kept)
			require.Contains(t, v.text(), c.says)
		})
	}
	// What the mapping does not say is not judged.
	for _, v := range verdicts(t, &bookings{oversell: true, ignoreCap: true, forgetOrders: true}, func(m *Mapping) {
		m.Stock, m.CapPerCustomer, m.Read, m.Reserve.Replay = nil, 0, nil, nil
	}) {
		require.True(t, v.Kept, "%s: %s", v.Title, v.text())
		require.False(t, v.Tried, v.Title)
	}
}

func TestAWrongMappingIsNamed(t *testing.T) {
	m := Mapping{
		Peer: "x", Reserve: MappedCall{Method: "POST", Path: "/b", Success: []int{201}, Replay: []int{200}},
		Read: &MappedCall{Method: "LOOK", Path: "/b", Success: []int{200}}, CapPerCustomer: -1,
		Stock: map[string]int64{"A": -1},
	}
	var said []string
	for _, e := range m.Validate() {
		said = append(said, e.Pointer)
	}
	require.Equal(t, []string{"/cap_per_customer", "/read/method", "/reserve/replay", "/stock/A"}, said)
}

// An audit of a peer that is gone ends in time and says so.
func TestAPeerThatIsGoneIsAudited(t *testing.T) {
	t.Parallel()
	m := &Mapping{
		Peer: "gone", Reserve: MappedCall{Method: "POST", Path: "/b", Success: []int{201}},
		Read: &MappedCall{Method: "GET", Path: "/b", Success: []int{200}},
	}
	rec := &Recording{Sale: testSale(), Answers: []Answer{{
		Verb: Reserve, ID: "one", Status: 201, Lines: []sale.Line{{SKU: "A", Qty: 1}},
	}}}
	begun := time.Now()
	v, err := PeerAudit{BaseURL: "http://127.0.0.1:1", Mapping: m, Recording: rec}.Run(t.Context())
	require.NoError(t, err)
	require.False(t, v[3].Kept)
	require.Contains(t, v[3].text(), "one was accepted, and is answered with nothing")
	require.Less(t, time.Since(begun), 10*time.Second)
}
