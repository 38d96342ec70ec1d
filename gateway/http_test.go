package gateway

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/redistest"
	"flashgate/ledger"
	"flashgate/sale"
)

// sample is a request of a route that a role is let through to.
func (r *route) sample() (path, body string) {
	path = strings.NewReplacer("{sale}", "roles", "{reservation}", "res-0001", "{code}", "overloaded", "{file}", "challenge", "{id}", "7").Replace(r.path)
	sep := "?"
	for _, q := range r.query {
		if q.required {
			path += sep + q.name + "=roles"
		}
	}
	if r.body != nil {
		body = "{}"
	}
	return path, body
}

func TestRolesOfEveryRoute(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("roles", withRoom(nil))
	tokens := map[string]string{}
	for _, role := range Roles {
		k, token, err := NewKey(role, role, time.Now())
		require.NoError(t, err)
		require.NoError(t, r.ledger.CreateKey(t.Context(), k, "test"))
		tokens[role] = token
	}
	for i := range routes {
		route := &routes[i]
		if route.name == "stream" {
			continue // An open stream has no end; its route is the same as that of its sale.
		}
		path, body := route.sample()
		if len(route.roles) == 0 {
			require.Less(t, r.call(route.method, path, body, "Authorization", "").StatusCode, 400, path)
			continue
		}
		require.Contains(t, route.roles, "admin", path)
		for _, bad := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Basic ZGV2", "Bearer " + tokens["ops"] + "x", "Bearer \x7f"} {
			if strings.ContainsRune(bad, 0x7f) {
				continue // The client refuses to send it.
			}
			res := r.call(route.method, path, body, "Authorization", bad)
			res.problem(t, codeUnauthenticated)
			require.Equal(t, "Bearer", res.Header.Get("WWW-Authenticate"))
		}
		for role, token := range tokens {
			res := r.call(route.method, path, body, "Authorization", "Bearer "+token)
			if slices.Contains(route.roles, role) {
				require.NotContains(t, []int{401, 403}, res.StatusCode, "%s %s", role, path)
			} else {
				res.problem(t, codeForbidden)
			}
		}
		require.NotContains(t, []int{401, 403}, r.call(route.method, path, body).StatusCode, "dev key %s", path)
	}
	t.Run("revoked", func(t *testing.T) {
		keys, err := r.ledger.Keys(t.Context())
		require.NoError(t, err)
		require.NoError(t, r.ledger.RevokeKey(t.Context(), keys[0].ID, "test"))
		require.Eventually(t, func() bool {
			res := r.call("GET", "/v1/sales/roles", "", "Authorization", "Bearer "+tokens[keys[0].Role])
			return res.StatusCode == http.StatusUnauthorized
		}, 5*time.Second, 10*time.Millisecond)
	})
}

func TestActorIsTheKey(t *testing.T) {
	r := newRig(t, mini(t), nil)
	k, token, err := NewKey("shop", "storefront", time.Now())
	require.NoError(t, err)
	require.NoError(t, r.ledger.CreateKey(t.Context(), k, "test"))
	r.putSale("actor", nil)
	r.call("POST", "/v1/reserve", `{"reservation_id":"actor-001","sale":"actor","customer":"c","sku":"SOCK","qty":1}`,
		"Authorization", "bearer "+token).want(t, http.StatusCreated)
	require.Eventually(t, func() bool {
		events, err := r.ledger.Events(t.Context(), shardOf("actor"), 0, 10)
		return err == nil && len(events) == 2 && events[1].Actor == "key:shop"
	}, 5*time.Second, 5*time.Millisecond)
}

func shardOf(id string) ledger.Shard { return ledger.Shard{Sale: id} }

func TestMethodsAndPaths(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("roles", nil)
	byPath := map[string][]string{}
	for i := range routes {
		byPath[routes[i].path] = append(byPath[routes[i].path], routes[i].method)
		if routes[i].method == "GET" {
			byPath[routes[i].path] = append(byPath[routes[i].path], "HEAD")
		}
	}
	for i := range routes {
		path, _ := routes[i].sample()
		have := byPath[routes[i].path]
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"} {
			if slices.Contains(have, method) {
				continue
			}
			res := r.call(method, path, "")
			res.problem(t, codeMethodNotAllowed)
			for _, m := range have {
				require.Contains(t, res.Header.Get("Allow"), m)
			}
		}
		res := r.call("OPTIONS", path, "")
		require.Equal(t, http.StatusNoContent, res.StatusCode)
		require.Contains(t, res.Header.Get("Allow"), have[0])
		if slices.Contains(have, "HEAD") {
			head := r.call("HEAD", path, "")
			require.Empty(t, head.text)
			if routes[i].name != "stream" {
				require.Equal(t, r.get(path).StatusCode, head.StatusCode, path)
			}
		}
	}
	for _, path := range []string{
		"/", "/v1", "/v1/", "/v1/reserve/", "/V1/reserve", "/v2/reserve", "/v1//reserve", "/v1/sales/", "/v1/sales/a/b",
		"/v1/admin/sales/x/pause/y", "/%00", "/v1/reserve%00", "/v1/%2e%2e/livez", "/problems/", "/problems/nope",
		"/console",
	} {
		r.get(path).problem(t, codeNotFound)
		r.post(path, "{}").anyProblem(t)
	}
}

func TestRequestID(t *testing.T) {
	r := newRig(t, mini(t), nil)
	require.Equal(t, "trace-1:a.b_C", r.call("GET", "/livez", "", "X-Request-Id", "trace-1:a.b_C").Header.Get("X-Request-Id"))
	seen := map[string]bool{}
	for _, bad := range []string{"", "a b", `"`, "ü", "<script>", strings.Repeat("a", 129)} {
		id := r.call("GET", "/livez", "", "X-Request-Id", bad).Header.Get("X-Request-Id")
		require.Regexp(t, `^[A-Z0-9]+-[a-z0-9]+$`, id)
		require.False(t, seen[id])
		seen[id] = true
	}
}

func TestContentTypeAndSize(t *testing.T) {
	r := newRig(t, mini(t), nil)
	for i := range routes {
		route := &routes[i]
		if route.body == nil {
			continue
		}
		path, _ := route.sample()
		for _, bad := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=latin1", "application/problem+json", "json"} {
			r.call(route.method, path, "{}", "Content-Type", bad).problem(t, codeUnsupportedMediaType)
		}
		r.call(route.method, path, "{}", "Content-Encoding", "gzip").problem(t, codeUnsupportedMediaType)
		for _, good := range []string{"application/json", "Application/JSON; charset=UTF-8", `application/json;charset="utf-8"`, "application/json ; x=y"} {
			require.NotEqual(t, 415, r.call(route.method, path, "{}", "Content-Type", good).StatusCode)
		}
		for _, size := range []int{r.g.opts.BodyMax + 1, r.g.opts.SaleBodyMax + 1, 3 << 20} {
			if route.name == "put-sale" && size <= r.g.opts.SaleBodyMax {
				continue
			}
			r.call(route.method, path, strings.Repeat(" ", size)).problem(t, codeBodyTooLarge)
		}
	}
	r.call("GET", "/livez", "", "X-Big", strings.Repeat("a", 32<<10)).problem(t, codeRequestTooLarge)
	r.get("/v1/sales/"+strings.Repeat("a", 32<<10)).problem(t, codeRequestTooLarge)
	r.get("/v1/sales/"+strings.Repeat("a", 10<<10)).problem(t, codeUnknownSale)
}

// What is not HTTP gets a problem too, or a closed connection, and hurts nobody else.
func TestNotHTTP(t *testing.T) {
	r := newRig(t, mini(t), func(d *Deps) { d.Options.ReadTimeout = 300 * time.Millisecond })
	for _, text := range []string{
		"\x00\x01\x02\r\n\r\n", "GET\r\n\r\n", "POST /v1/reserve HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"POST /v1/reserve HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"POST /v1/reserve HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{",
		"POST /v1/reserve HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
		"GET /livez HTTP/1.1\r\nBad Header\r\n\r\n",
	} {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		require.NoError(t, err)
		_, err = c.Write([]byte(text))
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
		out, _ := io.ReadAll(c)
		require.NoError(t, c.Close())
		if len(out) > 0 {
			res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(out)), nil)
			require.NoError(t, err, "%q", out)
			body, _ := io.ReadAll(res.Body)
			require.NoError(t, res.Body.Close())
			require.Less(t, res.StatusCode, 500, "%q", out)
			reply{res, body}.anyProblem(t)
		}
	}
	r.get("/livez").want(t, http.StatusOK)
}

func TestPanicIsAProblem(t *testing.T) {
	r := newRig(t, mini(t), func(d *Deps) {
		d.Books = struct{ Books }{} // Nothing that works looks like this.
	})
	res := r.get("/v1/admin/reconciler")
	doc := res.problem(t, codeInternal)
	require.NotContains(t, string(res.text), "nil")
	require.Contains(t, r.logs.String(), fmt.Sprint(doc["instance"]))
	r.get("/livez").want(t, http.StatusOK)
}

func TestMachineRoutes(t *testing.T) {
	r := newRig(t, mini(t), nil)
	require.Equal(t, map[string]any{"status": "ok", "version": "test"}, r.get("/livez").want(t, http.StatusOK))
	require.Equal(t, map[string]any{"status": "ok"}, r.get("/readyz").want(t, http.StatusOK))
	require.Contains(t, string(r.get("/metrics").text), "flashgate_http_requests_total")
	for c, info := range problems {
		page := r.get("/problems/" + string(c))
		require.Equal(t, http.StatusOK, page.StatusCode)
		require.Contains(t, string(page.text), info.title)
		require.Equal(t, "text/html; charset=utf-8", page.Header.Get("Content-Type"))
	}
	docs := r.get("/docs")
	require.Equal(t, "text/html; charset=utf-8", docs.Header.Get("Content-Type"))
	for i := range routes {
		require.Contains(t, string(docs.text), routes[i].path)
	}
	require.NotContains(t, string(docs.text), "https://")
}

func TestReadiness(t *testing.T) {
	server := redistest.Start(t)
	l := &awayLedger{}
	r := newRig(t, connect(t, server.Addr()), func(d *Deps) {
		l.Ledger = d.Ledger
		d.Ledger = l
		d.Options.LedgerTimeout = 200 * time.Millisecond
	})
	become := func(status int, want map[string]any) {
		t.Helper()
		require.Eventually(t, func() bool {
			res := r.get("/readyz")
			return res.StatusCode == status && fmt.Sprint(res.want(t, status)) == fmt.Sprint(want)
		}, 10*time.Second, 20*time.Millisecond, "%s", r.get("/readyz").text)
	}
	become(200, map[string]any{"status": "ok"})
	r.putSale("roles", nil)
	l.away.Store(true)
	become(200, map[string]any{"status": "degraded", "missing": []any{"ledger"}})
	r.reserve("roles", "res-00001") // Selling goes on.
	r.get("/v1/admin/sales").problem(t, codeUnavailable)
	r.get("/v1/reservations/res-00001?sale=roles").want(t, http.StatusOK)
	l.away.Store(false)
	server.Stop()
	become(503, map[string]any{"status": "unavailable", "missing": []any{"redis"}})
	r.post("/v1/reserve", `{"reservation_id":"res-00002","sale":"roles","customer":"c","sku":"SOCK","qty":1}`).problem(t, codeUnavailable)
	r.post("/v1/confirm", `{"sale":"roles","reservation_id":"res-00001","order_id":"o"}`).problem(t, codeUnavailable)
	server.Restart()
	become(200, map[string]any{"status": "ok"})
	r.get("/v1/availability?sale=roles").problem(t, codeSaleRecovering)
}

// Shutdown lets what is in flight finish.
func TestShutdownFinishesWhatIsInFlight(t *testing.T) {
	r := newRig(t, mini(t), func(d *Deps) { d.Options.ConfirmWait = 600 * time.Millisecond })
	r.putSale("roles", nil)
	r.reserve("roles", "res-00001")
	r.drain(false)
	stream := openStream(t, r, "roles", "")
	got := make(chan reply, 1)
	go func() {
		res, err := r.try("POST", "/v1/confirm", `{"sale":"roles","reservation_id":"res-00001","order_id":"o"}`)
		if err == nil {
			got <- res
		}
		close(got)
	}()
	time.Sleep(100 * time.Millisecond)
	r.stop()
	res, ok := <-got
	require.True(t, ok)
	require.Equal(t, http.StatusAccepted, res.StatusCode)
	stream.rest(t)
	_, err := r.try("GET", "/livez", "")
	require.Error(t, err)
}

// sse reads a stream.
type sse struct {
	lines  *bufio.Scanner
	body   io.ReadCloser
	header http.Header
}

func openStream(t *testing.T, r *rig, id, last string) *sse {
	t.Helper()
	return openStreamAs(t, r, id, last, devKey)
}

func openStreamAs(t *testing.T, r *rig, id, last, token string) *sse {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/v1/sales/"+id+"/stream", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
	return &sse{bufio.NewScanner(res.Body), res.Body, res.Header}
}

// next reads to the end of an event and returns its fields; a comment is under "".
func (s *sse) next(t *testing.T) map[string]string {
	t.Helper()
	fields := map[string]string{}
	for s.lines.Scan() {
		if s.lines.Text() == "" {
			return fields
		}
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		if name == "" || strings.HasPrefix(s.lines.Text(), ":") {
			name = ""
		}
		fields[name] = value
	}
	t.Fatal("the stream ended")
	return nil
}

func (s *sse) stock(t *testing.T) map[string]string {
	t.Helper()
	for {
		if e := s.next(t); e["event"] == "stock" {
			return e
		}
	}
}

// rest reads on to the end, which must come.
func (s *sse) rest(t *testing.T) {
	t.Helper()
	for s.lines.Scan() {
	}
	require.NoError(t, s.lines.Err())
}

func TestStream(t *testing.T) {
	r := newRig(t, mini(t), func(d *Deps) {
		d.Options.StreamEvery = 5 * time.Millisecond
		d.Options.StreamHeartbeat = 20 * time.Millisecond
		d.Options.WriteTimeout = 100 * time.Millisecond
		d.Options.StreamsMax = 3
	})
	r.putSale("stream", nil)
	a := openStream(t, r, "stream", "")
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))
	first := a.stock(t)
	require.Regexp(t, `^1-\d+$`, first["id"])
	require.Contains(t, first["data"], `"available":9`)
	b := openStream(t, r, "stream", first["id"])
	// Longer than the write timeout: heartbeats push it on.
	for until := time.Now().Add(300 * time.Millisecond); time.Now().Before(until); {
		require.NotEqual(t, "stock", b.next(t)["event"])
	}
	r.reserve("stream", "stream-01")
	for _, s := range []*sse{a, b} {
		e := s.stock(t)
		require.NotEqual(t, first["id"], e["id"])
		require.Contains(t, e["data"], `"available":8`)
	}
	r.post("/v1/admin/sales/stream/pause", `{"reason":"x"}`).want(t, http.StatusOK)
	require.Contains(t, a.stock(t)["data"], `"state":"paused"`)

	c := openStream(t, r, "stream", "1-1")
	c.stock(t)
	r.get("/v1/sales/stream/stream").problem(t, codeOverloaded)
	require.NoError(t, c.body.Close())
	require.Eventually(t, func() bool {
		r.g.streams.mu.Lock()
		defer r.g.streams.mu.Unlock()
		return r.g.streams.open == 2
	}, 5*time.Second, 10*time.Millisecond)
	r.get("/v1/sales/nope/stream").problem(t, codeUnknownSale)
	_ = sale.Live
}
