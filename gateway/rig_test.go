package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/ledger"
	"flashgate/lua"
	"flashgate/sale"
)

// rig is a gateway behind a real port, with a ledger and somebody who drains into it.
type rig struct {
	*testing.T
	store  *lua.Store
	ledger ledger.Ledger
	g      *Gateway
	url    string
	logs   *logs
	spec   *spec
	// Draining off leaves events in Redis, so that nothing becomes durable.
	drainMu  sync.Mutex
	draining bool
	stop     func()
}

// logs keeps what a gateway says at error level or above.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func mini(t *testing.T) *lua.Store {
	t.Helper()
	return connect(t, redistest.Mini(t).Addr())
}

// The description of one version is the same in all tests, and takes a while to read.
var (
	loadOnce sync.Once
	loaded   *spec
)

const devKey = "dev-key"

func newRig(t *testing.T, store *lua.Store, change func(*Deps)) *rig {
	t.Helper()
	r := &rig{T: t, store: store, ledger: testLedger(t), logs: &logs{}, draining: true}
	d := Deps{
		Store: r.store, Ledger: r.ledger,
		Log: slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelError})),
		Options: Options{
			DevKey: devKey, Version: "test", ConfirmPoll: 5 * time.Millisecond, LookupMax: 100_000,
			KeyRefresh: 50 * time.Millisecond, Shutdown: 5 * time.Second,
		},
	}
	if change != nil {
		change(&d)
	}
	r.ledger = d.Ledger
	var err error
	r.g, err = New(d)
	require.NoError(t, err)
	loadOnce.Do(func() { loaded = loadSpec(t, r.g.pages.openapi) })
	r.spec = loaded
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.url = "http://" + l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	var ran error
	work.Go(func() { ran = r.g.Run(ctx, l) })
	work.Go(func() { r.keepBooks(ctx) })
	r.stop = sync.OnceFunc(func() {
		// The server takes a connection that was never used for a busy one, for 5 s.
		http.DefaultClient.CloseIdleConnections()
		cancel()
		work.Wait()
		http.DefaultClient.CloseIdleConnections()
	})
	t.Cleanup(func() {
		r.stop()
		require.NoError(t, ran)
	})
	return r
}

// keepBooks is the least reconciler: it applies versions and drains, and judges nothing.
func (r *rig) keepBooks(ctx context.Context) {
	for ctx.Err() == nil {
		pending, err := r.ledger.PendingVersions(ctx)
		for i := range pending {
			r.apply(ctx, &pending[i])
		}
		if shards, err2 := r.ledger.Shards(ctx); err == nil && err2 == nil {
			r.drainAll(ctx, shards)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// drain turns draining on or off. A round that has begun ends before drain returns: what happens
// after drain(false) stays in Redis.
func (r *rig) drain(on bool) {
	r.drainMu.Lock()
	defer r.drainMu.Unlock()
	r.draining = on
}

func (r *rig) drainAll(ctx context.Context, shards []ledger.Shard) {
	r.drainMu.Lock()
	defer r.drainMu.Unlock()
	if !r.draining {
		return
	}
	for _, s := range shards {
		r.drainShard(ctx, s)
	}
}

func (r *rig) apply(ctx context.Context, v *sale.Version) {
	all, err := r.ledger.Versions(ctx, v.Sale)
	if err != nil {
		return
	}
	var base *sale.Version
	for i := range all {
		if all[i].Status == sale.VersionApplied {
			base = &all[i]
		}
	}
	a, err := r.store.Shard(v.Sale, 0).Apply(ctx, base, *v)
	if err != nil {
		return
	}
	refusal := map[sale.Outcome]string{
		sale.FieldLocked:  "field-locked: /opens_at cannot change once the sale has opened",
		sale.Insufficient: "insufficient-stock: too little",
	}[a.Outcome]
	if refusal == "" {
		return
	}
	if tx, err := r.ledger.Begin(ctx, ledger.Shard{Sale: v.Sale}); err == nil {
		_ = tx.RejectVersion(ctx, v.Version, refusal)
		_ = tx.Commit(ctx)
		tx.Rollback()
	}
}

func (r *rig) drainShard(ctx context.Context, id ledger.Shard) {
	tx, err := r.ledger.Begin(ctx, id)
	if err != nil {
		return
	}
	defer tx.Rollback()
	head, shard := tx.Head(), r.store.Shard(id.Sale, id.Number)
	look, err := shard.Look(ctx, max(head.Epoch, 1), head.Seq, 1000)
	if err != nil || len(look.Events) == 0 {
		return
	}
	events := make([]sale.Event, len(look.Events))
	for i, raw := range look.Events {
		if events[i], err = raw.Parse(id.Sale, id.Number); err != nil {
			r.Errorf("parse: %v", err)
			return
		}
	}
	if err := tx.Append(ctx, events); err != nil {
		return
	}
	if err := tx.Commit(ctx); err != nil {
		return
	}
	last := &events[len(events)-1]
	var returned []string
	for i := range events {
		if e := &events[i]; e.Type != sale.EventHeld && e.Type != sale.EventConfirmed {
			for _, l := range e.Lines {
				returned = append(returned, l.SKU)
			}
		}
	}
	_, _ = shard.Trim(ctx, last.Epoch, last.Seq, last.Mark, 100, returned...)
}

// reply is an answer over HTTP.
type reply struct {
	*http.Response
	text []byte
}

// call sends a request as the dev key; headers are name, value in turn. An empty value removes.
func (r *rig) call(method, path, body string, headers ...string) reply {
	r.Helper()
	out, err := r.try(method, path, body, headers...)
	require.NoError(r, err)
	return out
}

func (r *rig) try(method, path, body string, headers ...string) (reply, error) {
	var content io.Reader
	if body != "" || method == "POST" || method == "PUT" {
		content = strings.NewReader(body)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, content)
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Authorization", "Bearer "+devKey)
	if content != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
		} else {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	out := reply{res, text}
	if err == nil && method != http.MethodHead {
		// Every answer of every test is held to the published description.
		if wrong := r.spec.check(req, out); wrong != nil {
			r.Errorf("%v", wrong)
		}
	}
	return out, err
}

func (r *rig) get(path string) reply        { r.Helper(); return r.call("GET", path, "") }
func (r *rig) post(path, body string) reply { r.Helper(); return r.call("POST", path, body) }
func (r *rig) postf(path, f string, a ...any) reply {
	r.Helper()
	return r.call("POST", path, fmt.Sprintf(f, a...))
}

// want checks the status, and returns the members of the answer.
func (p reply) want(t testing.TB, status int) map[string]any {
	t.Helper()
	require.Equal(t, status, p.StatusCode, "%s", p.text)
	var out map[string]any
	require.NoError(t, json.Unmarshal(p.text, &out), "%s", p.text)
	return out
}

// problem checks that the answer is the problem document of a code.
func (p reply) problem(t testing.TB, c code) map[string]any {
	t.Helper()
	doc := p.anyProblem(t)
	require.Equal(t, string(c), doc["code"], "%s", p.text)
	return doc
}

// anyProblem checks the form of a problem document.
func (p reply) anyProblem(t testing.TB) map[string]any {
	t.Helper()
	require.Equal(t, "application/problem+json", p.Header.Get("Content-Type"), "%d %s", p.StatusCode, p.text)
	var doc map[string]any
	require.NoError(t, json.Unmarshal(p.text, &doc), "%s", p.text)
	info, known := problems[code(fmt.Sprint(doc["code"]))]
	require.True(t, known, "%s", p.text)
	require.Equal(t, info.status, p.StatusCode, "%s", p.text)
	require.EqualValues(t, info.status, doc["status"])
	require.Equal(t, info.title, doc["title"])
	require.Equal(t, fmt.Sprintf("/problems/%s", doc["code"]), doc["type"])
	require.NotEmpty(t, doc["detail"])
	require.NotEmpty(t, doc["instance"])
	require.Equal(t, p.Header.Get("X-Request-Id"), doc["instance"])
	require.Equal(t, "no-store", p.Header.Get("Cache-Control"))
	if p.StatusCode == http.StatusServiceUnavailable {
		require.NotEmpty(t, p.Header.Get("Retry-After"))
	}
	return doc
}

// pointers are those of a problem's errors.
func pointers(doc map[string]any) []string {
	var out []string
	list, _ := doc["errors"].([]any)
	for _, e := range list {
		out = append(out, fmt.Sprint(e.(map[string]any)["pointer"]))
	}
	return out
}

// saleJSON is a sale that is open; change edits it.
func saleJSON(id string, change func(*sale.Config)) string {
	now := sale.Moment(time.Now().UnixMilli())
	c := sale.Config{
		Sale: id, Title: "Test", OpensAt: now - 60_000, ClosesAt: now + 3_600_000, HoldSeconds: 300, MaxExtensions: 1,
		Items: []sale.Item{
			{SKU: "AIR-42", Title: "Air", CapPerCustomer: 4, LowAt: 2, Stock: []sale.Stock{
				{Location: "berlin", OnHand: 10, Safety: 1}, {Location: "leipzig", OnHand: 5},
			}},
			{SKU: "SOCK", Stock: []sale.Stock{{Location: "main", OnHand: 100}}},
		},
	}
	if change != nil {
		change(&c)
	}
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// putSale creates a sale and waits until it sells.
func (r *rig) putSale(id string, change func(*sale.Config)) {
	r.Helper()
	res := r.call("PUT", "/v1/admin/sales/"+id, saleJSON(id, change))
	if res.StatusCode != http.StatusAccepted { // not applied within a test's short ConfirmWait
		res.want(r, http.StatusCreated)
		return
	}
	r.until("the sale is applied", func() bool {
		v, err := r.ledger.LatestVersion(r.Context(), id)
		return err == nil && v.Status == sale.VersionApplied
	})
}

// reserve takes one unit of AIR-42 in berlin for customer c-1.
func (r *rig) reserve(saleID, id string) map[string]any {
	r.Helper()
	return r.postf("/v1/reserve", `{"reservation_id":%q,"sale":%q,"customer":"c-1","sku":"AIR-42","qty":1,"location":"berlin"}`,
		id, saleID).want(r, http.StatusCreated)
}

// level is what availability says of a place.
func (r *rig) level(saleID, sku, location string) Numbers {
	r.Helper()
	res := r.get(fmt.Sprintf("/v1/availability?sale=%s&sku=%s&location=%s", saleID, sku, location))
	require.Equal(r, http.StatusOK, res.StatusCode, "%s", res.text)
	var a Availability
	require.NoError(r, json.Unmarshal(res.text, &a))
	n := a.Items[0].Locations[0].StockNumbers
	return Numbers{*n.OnHand, *n.Safety, *n.Held, *n.Sold, *n.Reserved, *n.Available}
}
