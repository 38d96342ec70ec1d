package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/faultproxy"
	"flashgate/ledger"
	"flashgate/loadtest"
	"flashgate/sale"
)

// outage is a world with two gateways, each with its reconciler, that reach Redis and PostgreSQL
// through proxies.
type outage struct {
	*world
	toRedis, toLedger *faultproxy.Proxy
	gateways          [2]*world
	books             ledger.Ledger // PostgreSQL itself, without a proxy
	config            string
	n                 int // reservations made by hand
}

// newOutage starts everything. settings are lines of the gateways' configuration.
func newOutage(t *testing.T, settings string) *outage {
	t.Parallel() // these tests mostly wait
	w := newWorld(t, true)
	w.serve.kill()
	u, err := url.Parse(w.dsn)
	require.NoError(t, err)
	o := &outage{
		world: w, toRedis: faultproxy.Start(t, w.redis.Addr()), toLedger: faultproxy.Start(t, u.Host),
		books: w.ledger(), config: filepath.Join(t.TempDir(), "flashgate.yaml"),
	}
	u.Host = o.toLedger.Addr()
	text := fmt.Sprintf("redis: {url: redis://%s/0}\nledger: %s\n%s", o.toRedis.Addr(), u, settings)
	require.NoError(t, os.WriteFile(o.config, []byte(text), 0o600))
	for i := range o.gateways {
		gateway := *w
		gateway.addr = freeAddr(t)
		o.gateways[i] = &gateway
	}
	o.startGateways()
	return o
}

// startGateways runs both, and waits until both sell.
func (o *outage) startGateways() {
	o.t.Helper()
	for _, g := range o.gateways {
		g.serve = launch(o.t, "serve", "--config", o.config, "--listen", g.addr)
	}
	o.addr, o.serve = o.gateways[0].addr, o.gateways[0].serve
	o.sellWithin(15 * time.Second)
}

// answer is what a gateway said to a call made by hand.
type answer struct {
	status   int
	code     string // of a problem
	wait     int    // Retry-After, in s
	replayed bool
	took     time.Duration
	text     string
}

func (a answer) String() string { return fmt.Sprintf("%d after %v: %s", a.status, a.took, a.text) }

// unavailable tells whether the answer is that of a gateway that cannot ask Redis now.
func (a answer) unavailable() bool {
	return a.status == http.StatusServiceUnavailable && a.code == "unavailable" && a.wait > 0
}

// ask sends a call to a gateway; status 0 when nobody answers.
func (o *outage) ask(g *world, verb, body string) (a answer) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.addr+"/v1/"+verb, strings.NewReader(body))
	require.NoError(o.t, err)
	req.Header.Set("Authorization", "Bearer "+o.key)
	req.Header.Set("Content-Type", "application/json")
	begun := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{text: err.Error()}
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	a = answer{
		status: resp.StatusCode, took: time.Since(begun), text: string(text),
		replayed: resp.Header.Get("Idempotent-Replayed") == "true",
	}
	a.wait, _ = strconv.Atoi(resp.Header.Get("Retry-After"))
	var problem struct{ Code string }
	_ = json.Unmarshal(text, &problem)
	a.code = problem.Code
	return a
}

// newID is one that nobody has used.
func (o *outage) newID() string {
	o.n++
	return fmt.Sprintf("by-hand-%04d", o.n)
}

// hold reserves a unit for a customer of its own.
func (o *outage) hold(g *world, id string) answer {
	o.t.Helper()
	return o.ask(g, "reserve",
		fmt.Sprintf(`{"reservation_id":%q,"sale":"demo","customer":%q,"sku":"SOCKS-M","qty":1}`, id, "c-"+id))
}

func (o *outage) confirm(g *world, id string) answer {
	o.t.Helper()
	return o.ask(g, "confirm", fmt.Sprintf(`{"sale":"demo","reservation_id":%q,"order_id":%q}`, id, "order-"+id))
}

// confirmed requires that a confirmation comes to be durable.
func (o *outage) confirmed(ids ...string) {
	o.t.Helper()
	for i, id := range ids {
		var a answer
		o.until(20*time.Second, "confirmation of "+id+" is durable", func() bool {
			a = o.confirm(o.gateways[i%2], id)
			require.Contains(o.t, []int{200, 202, 503}, a.status, a)
			return a.status == http.StatusOK
		})
	}
}

// buy reserves and confirms so many units.
func (o *outage) buy(n int) (ids []string) {
	o.t.Helper()
	for range n {
		id := o.newID()
		a := o.hold(o.gateways[o.n%2], id)
		require.Equal(o.t, http.StatusCreated, a.status, a)
		ids = append(ids, id)
	}
	o.confirmed(ids...)
	return ids
}

// sellWithin requires that both gateways take a new reservation.
func (o *outage) sellWithin(most time.Duration) {
	o.t.Helper()
	for _, g := range o.gateways {
		id := o.newID()
		g.until(most, "a gateway sells", func() bool { return o.hold(g, id).status == http.StatusCreated })
	}
}

// shop lets a small crowd in at both gateways for about so long, and does what happens meanwhile.
func (o *outage) shop(length time.Duration, meanwhile func()) *loadtest.Recording {
	o.t.Helper()
	c, err := loadtest.NewCrowd(loadtest.Options{
		BaseURL: "http://" + o.gateways[0].addr, Others: []string{"http://" + o.gateways[1].addr}, Token: o.key,
		Sale: o.sale, Shoppers: 400, Duration: length, Patience: 20 * time.Second, Tries: 100,
		MaxRetryAfter: 300 * time.Millisecond, Seed: 7,
	})
	require.NoError(o.t, err)
	type result struct {
		rec *loadtest.Recording
		err error
	}
	done := make(chan result, 1)
	go func() {
		rec, err := c.Run(o.t.Context())
		done <- result{rec, err}
	}()
	meanwhile()
	r := <-done
	require.NoError(o.t, r.err)
	return r.rec
}

// count counts events of a type in the ledger, of one reservation or, with "", of all.
func (o *outage) count(kind sale.EventType, id string) (n int) {
	o.t.Helper()
	var entries []ledger.Entry
	o.until(5*time.Second, "the ledger is read", func() (ok bool) {
		var err error
		entries, err = o.books.Events(o.t.Context(), shardOf("demo"), 0, 100_000)
		return err == nil // A connection from before a restart fails once.
	})
	for i := range entries {
		if e := &entries[i]; e.Type == kind && (id == "" || e.Reservation == id) {
			n++
		}
	}
	return n
}

// intact requires both gateways to sell, the audit's promises, so many rebuilds and nothing buried but
// what was sold on a lost branch.
func (o *outage) intact(rec *loadtest.Recording, rebuilds int) {
	o.t.Helper()
	o.sellWithin(5 * time.Second)
	o.audit(rec)
	require.Equal(o.t, rebuilds, o.count(sale.EventRebuilt, ""), "rebuilds")
	letters, err := o.books.DeadLetters(o.t.Context(), ledger.LetterQuery{Limit: 1000})
	require.NoError(o.t, err)
	for i := range letters {
		require.Equal(o.t, ledger.LetterFork, letters[i].Kind, letters[i].Reason)
		require.Positive(o.t, rebuilds, "without a loss there is no fork")
	}
}

// losing notes that Redis forgets while f runs.
func losing(f func()) func(*loadtest.Recording) {
	began := time.Now()
	f()
	end := time.Now()
	return func(rec *loadtest.Recording) {
		rec.Losses = append(rec.Losses, loadtest.Loss{
			Name: "loss", Began: began.Sub(rec.Started), End: end.Sub(rec.Started),
		})
	}
}
