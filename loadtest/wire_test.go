package loadtest

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rawServer answers every request with what answer returns, byte by byte as it is, and counts connections.
// After an empty answer, or one that ends in "hang up", the connection ends.
func rawServer(t *testing.T, answer func(path string) []string) (url string, connections *atomic.Int64) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	connections = new(atomic.Int64)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			serving.Go(func() {
				defer func() { _ = c.Close() }()
				in := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if _, err := io.Copy(io.Discard, r.Body); err != nil {
						return
					}
					for _, part := range answer(r.URL.Path) {
						if part == "hang up" {
							return
						}
						if _, err := c.Write([]byte(part)); err != nil {
							return
						}
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return "http://" + l.Addr().String(), connections
}

func crowdClient(t *testing.T, url string, connections int, timeout time.Duration) *client {
	c := newClient([]string{url}, "dev", "drop", connections, timeout)
	t.Cleanup(c.close)
	return c
}

const plainAnswer = "HTTP/1.1 409 Conflict\r\nContent-Length: 12\r\nretry-after: 2\r\n\r\n{\"code\":\"a\"}"

// However a server writes an answer, it is read; and the next call does not read what is left of it.
func TestAnswersOfEveryKindAreRead(t *testing.T) {
	t.Parallel()
	long := `{"code":"a","detail":"` + strings.Repeat("x", 9000) + `"}`
	for name, c := range map[string]struct {
		answer      []string
		connections int64 // for three calls
	}{
		"plain":       {[]string{plainAnswer}, 1},
		"in pieces":   {strings.SplitAfter(plainAnswer, "t"), 1},
		"byte a time": {strings.Split(plainAnswer, ""), 1},
		"in chunks": {[]string{
			"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\nRetry-After: 2\r\n\r\n5\r\n{\"cod\r\n",
			"7\r\ne\":\"a\"}\r\n0\r\n\r\n",
		}, 1},
		"long":           {[]string{fmt.Sprintf("HTTP/1.1 409 Conflict\r\nRetry-After: 2\r\nContent-Length: %d\r\n\r\n%s", len(long), long)}, 1},
		"100 first":      {[]string{"HTTP/1.1 100 Continue\r\n\r\n", plainAnswer}, 1},
		"close":          {[]string{strings.Replace(plainAnswer, "\r\n", "\r\nConnection: close\r\n", 1), "hang up"}, 3},
		"without length": {[]string{"HTTP/1.1 409 Conflict\r\nRetry-After: 2\r\n\r\n{\"code\":\"a\"}", "hang up"}, 3},
		"of 1.0":         {[]string{strings.Replace(plainAnswer, "1.1", "1.0", 1), "hang up"}, 3},
		"and more":       {[]string{plainAnswer + plainAnswer}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			url, connections := rawServer(t, func(string) []string { return c.answer })
			client := crowdClient(t, url, 8, 3*time.Second)
			for range 3 {
				a := Answer{Verb: Reserve, ID: "r"}
				client.do(t.Context(), &a, call{})
				require.Empty(t, a.Gone)
				require.Equal(t, 409, a.Status)
				require.Equal(t, "a", a.Code)
				require.Equal(t, 2*time.Second, a.RetryAfter)
			}
			require.Equal(t, c.connections, connections.Load())
		})
	}
}

// An answer that is none is named, and no later call gets a part of it.
func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer []string
		want   string
	}{
		"not HTTP":        {[]string{"hello\r\n\r\n"}, "answered nonsense"},
		"not JSON":        {[]string{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"}, "answered nonsense"},
		"endless headers": {[]string{"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 9000)}, "answered nonsense"},
		"cut short":       {[]string{plainAnswer[:len(plainAnswer)-3], "hang up"}, "hung up"},
		"cut in the head": {[]string{plainAnswer[:20], "hang up"}, "hung up"},
		"cut in a chunk":  {[]string{"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "hang up"}, "hung up"},
		"nothing":         {[]string{"hang up"}, "hung up"},
		"stops":           {[]string{plainAnswer[:30]}, "did not answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Bool
			url, _ := rawServer(t, func(string) []string {
				if asked.Swap(true) {
					return []string{plainAnswer}
				}
				return c.answer
			})
			client := crowdClient(t, url, 1, 200*time.Millisecond)
			a := Answer{Verb: Reserve, ID: "r"}
			client.do(t.Context(), &a, call{})
			require.Zero(t, a.Status)
			require.Contains(t, failureOf(a.Gone).What, c.want, a.Gone)
			next := Answer{Verb: Reserve, ID: "r"}
			client.do(t.Context(), &next, call{})
			require.Equal(t, 409, next.Status, next.Gone)
		})
	}
}

// Who finds every connection taken waits for one, in order; whoever waits too long is told so, and disturbs
// nobody.
func TestCallsWaitForAConnection(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	url, connections := rawServer(t, func(path string) []string {
		if path == "/v1/confirm" {
			<-release
		}
		return []string{plainAnswer}
	})
	client := crowdClient(t, url, 1, 5*time.Second)
	var all sync.WaitGroup
	ask := func(verb Verb, a *Answer) { *a = Answer{Verb: verb, ID: "r"}; client.do(t.Context(), a, call{}) }
	waiting := func() int {
		w := client.wires[0]
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.line)
	}
	var first Answer
	all.Go(func() { ask(Confirm, &first) })
	require.Eventually(t, func() bool { return connections.Load() == 1 }, 3*time.Second, time.Millisecond)
	_, err := client.wires[0].take(time.Now().Add(20 * time.Millisecond))
	require.ErrorIs(t, err, errNoConnection)
	require.Contains(t, failureOf(err.Error()).What, "no connection was free")
	var others [3]Answer
	for i := range others {
		all.Go(func() { ask(Reserve, &others[i]) })
	}
	require.Eventually(t, func() bool { return waiting() == 4 }, 3*time.Second, time.Millisecond) // with who gave up
	close(release)
	all.Wait()
	require.Equal(t, 409, first.Status)
	for _, a := range others {
		require.Equal(t, 409, a.Status, a.Gone)
	}
	require.EqualValues(t, 1, connections.Load())
}

// A connection that fails leaves its place to the next in line.
func TestALostConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	url, connections := rawServer(t, func(string) []string {
		if calls.Add(1)%2 == 1 {
			return []string{"hang up"}
		}
		return []string{plainAnswer}
	})
	client := crowdClient(t, url, 2, 3*time.Second)
	var answered atomic.Int64
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			a := Answer{Verb: Reserve, ID: "r"}
			if client.do(t.Context(), &a, call{}); a.Status == 409 {
				answered.Add(1)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 20, answered.Load())
	require.GreaterOrEqual(t, connections.Load(), int64(20))
	w := client.wires[0]
	require.LessOrEqual(t, w.open, 2)
	require.Len(t, w.idle, w.open)

	// A server that is gone leaves no place taken.
	gone := crowdClient(t, "http://127.0.0.1:1", 2, time.Second)
	for range 5 {
		a := Answer{Verb: Reserve, ID: "r"}
		gone.do(t.Context(), &a, call{})
		require.Contains(t, failureOf(a.Gone).What, "refused the connection")
	}
	require.Zero(t, gone.wires[0].open)
}

// A connection that nobody used for long is not trusted.
func TestAnOldConnectionIsNotUsed(t *testing.T) {
	t.Parallel()
	url, connections := rawServer(t, func(string) []string { return []string{plainAnswer} })
	client := crowdClient(t, url, 2, 3*time.Second)
	a := Answer{Verb: Reserve, ID: "r"}
	client.do(t.Context(), &a, call{})
	client.wires[0].idle[0].used = time.Now().Add(-idleMax)
	client.do(t.Context(), &a, call{})
	require.Equal(t, 409, a.Status, a.Gone)
	require.EqualValues(t, 2, connections.Load())
	require.Equal(t, 1, client.wires[0].open)
}

func TestATargetWithTLSAndAPath(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/shop/v1/reserve" || r.Header.Get("Authorization") != "Bearer dev" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, `{"state":"held","customer":%q}`, r.Host)
	}))
	defer server.Close()
	client := crowdClient(t, server.URL+"/shop", 1, 3*time.Second)
	a := Answer{Verb: Reserve, ID: "r"}
	client.do(t.Context(), &a, call{})
	require.Contains(t, a.Gone, "certificate", "nobody vouches for it yet")
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	client.wires[0].tls = &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS12}
	for range 3 {
		a = Answer{Verb: Reserve, ID: "r"}
		client.do(t.Context(), &a, call{})
		require.Equal(t, 201, a.Status, a.Gone)
		require.Equal(t, strings.TrimPrefix(server.URL, "https://"), a.Customer)
	}
}

// What a mapping fills in cannot end the line or the request that it stands in.
func TestAMappedCallIsOneRequest(t *testing.T) {
	t.Parallel()
	var got *http.Request
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	defer server.Close()
	m := &Mapping{Peer: "p", Reserve: MappedCall{
		Method: "GET", Path: "/book/{sku} HTTP/1.1\r\nX: y", Success: []int{200},
		Headers: map[string]string{"Host": "shop.example", "X-Key": "{id}", "Content-Type": "text/plain"}, Body: "{qty}",
	}}
	p := newPeer(m, &Options{BaseURL: server.URL, Sale: testSale(), Connections: 1, Timeout: 3 * time.Second})
	defer p.close()
	a := Answer{Verb: Reserve, ID: "r1"}
	p.do(t.Context(), &a, call{})
	require.Equal(t, 201, a.Status, a.Gone)
	require.Equal(t, "/book/ HTTP/1.1\r\nX: y", got.URL.Path)
	require.Equal(t, "shop.example", got.Host)
	require.Equal(t, []string{"r1"}, got.Header["X-Key"])
	require.Equal(t, []string{"text/plain"}, got.Header["Content-Type"])
	m.Reserve.Headers = map[string]string{"X": "a\r\nb", "connection": "close"}
	require.Len(t, m.Validate(), 2)
}
