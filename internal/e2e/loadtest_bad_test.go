package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/loadtest"
)

// badTarget takes a sale and shows its stock, as a Flashgate does, and then does something else with reserves.
func badTarget(t *testing.T, reserve http.HandlerFunc) string {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/admin/sales/{sale}", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{}`))
	})
	mux.HandleFunc("GET /v1/availability", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"state":"open","items":[{"sku":"A","status":"available","on_hand":50,"available":50}]}`))
	})
	mux.HandleFunc("GET /v1/reservations/{id}", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"code":"unknown-reservation"}`))
	})
	mux.HandleFunc("POST /v1/reserve", reserve)
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

const badScenario = `# a small one
scenario: bad
sale: # as configs/sales
  sale: bad
  opens_at: now
  closes_at: now+1h
  hold_seconds: 10
  items:
    - {sku: A, stock: [{location: main, on_hand: 50}]}
arrivals:
  - {seconds: 1, from: 40, to: 40}
shoppers: {buyers: 1}
bounds: {timeout_ms: 300, tries: 2, patience_seconds: 4}
`

// loaded runs a load with the built program and returns its exit code, what it said, and the result it saved.
func loaded(t *testing.T, shell, url string, more ...string) (code int, said string, r loadtest.Result) {
	t.Helper()
	dir := t.TempDir()
	scenario, save := filepath.Join(dir, "bad.yaml"), filepath.Join(dir, "bad.json")
	require.NoError(t, os.WriteFile(scenario, []byte(strings.TrimPrefix(badScenario, "\n")), 0o600))
	args := append([]string{
		"loadtest", scenario, "--url", url, "--save", save, "--report", filepath.Join(dir, "bad.html"), "--settle", "1s",
	}, more...)
	cmd := exec.CommandContext(t.Context(), binary, args...)
	if shell != "" {
		cmd = exec.CommandContext(t.Context(), "sh", append([]string{"-c", shell + `; exec "$0" "$@"`, binary}, args...)...)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		require.NoError(t, err)
	}
	if raw, err := os.ReadFile(save); err == nil {
		require.NoError(t, json.Unmarshal(raw, &r))
		require.FileExists(t, filepath.Join(dir, "bad.html"))
	}
	return code, out.String(), r
}

// Whatever a target does once the crowd is there, the program names it, ends in time, and reports what it has.
func TestALoadOnATargetThatMisbehaves(t *testing.T) {
	t.Parallel()
	hold := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"code":"unavailable"}`))
	}
	for name, c := range map[string]struct {
		reserve     http.HandlerFunc
		shell, says string
		code        int
	}{
		"nonsense": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>hello")) }, "", "answered nonsense", 2},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "", "the target hung up", 2},
		"sleeps":   {func(http.ResponseWriter, *http.Request) { time.Sleep(time.Second) }, "", "did not answer in time", 2},
		"no files": {func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(250 * time.Millisecond) // so that connections are needed
			hold(w, r)
		}, "ulimit -n 14", "ran out of ports or open files", 0},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			code, said, r := loaded(t, c.shell, badTarget(t, c.reserve))
			require.Equal(t, c.code, code, said)
			require.Contains(t, said, c.says)
			require.Equal(t, 40, r.Shoppers)
			require.NotEmpty(t, r.Failures, said)
			require.Less(t, time.Since(begun), 30*time.Second)
		})
	}
}

// A target that is not what it should be is named before anybody is let in.
func TestALoadThatCannotBegin(t *testing.T) {
	t.Parallel()
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections, says nothing
	require.NoError(t, err)
	defer func() { _ = silent.Close() }()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<html>welcome"))
	}))
	defer page.Close()
	for url, says := range map[string]string{
		"http://" + freeAddr(t):             "the target refused the connection: is it running",
		"http://" + silent.Addr().String():  "the target did not answer in time",
		page.URL:                            "the target answered nonsense: is this a Flashgate?",
		"http://does-not-exist.invalid:123": "the target's name is not known: check the host",
	} {
		code, said, r := loaded(t, "", url, "--i-own-this-target")
		require.Equal(t, 2, code, said)
		require.Contains(t, said, says)
		require.Zero(t, r.Calls)
	}
}

// A target that dies in the middle leaves a report of what there was, and an audit that says why it is none.
func TestATargetThatDiesUnderLoad(t *testing.T) {
	t.Parallel()
	var server atomic.Pointer[httptest.Server]
	var calls atomic.Int64
	url := badTarget(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) > 10 {
			if s := server.Swap(nil); s != nil {
				go func() { s.CloseClientConnections(); s.Close() }()
			}
		}
		w.WriteHeader(http.StatusConflict)
		_, _ = w.Write([]byte(`{"code":"cap-exceeded"}`))
	})
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { forward(w, r, url) }))
	defer target.Close()
	server.Store(target)
	code, said, r := loaded(t, "", target.URL)
	require.Equal(t, 2, code, said)
	require.Contains(t, said, "the target refused the connection")
	require.Contains(t, said, "the audit could not be made")
	require.Positive(t, r.Answered())
	require.Greater(t, r.Calls, r.Answered())
	require.False(t, r.Kept)
}

// forward passes a request on to another server.
func forward(w http.ResponseWriter, r *http.Request, to string) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, to+r.URL.RequestURI(), r.Body)
	if err == nil {
		var resp *http.Response
		if resp, err = http.DefaultClient.Do(req); err == nil {
			defer func() { _ = resp.Body.Close() }()
			w.WriteHeader(resp.StatusCode)
			var body bytes.Buffer
			_, err = body.ReadFrom(resp.Body)
			_, _ = w.Write(body.Bytes())
		}
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}
