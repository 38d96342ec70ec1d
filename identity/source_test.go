package identity

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fetched believes the JWKS at a path or URL, read at a fast pace.
func fetched(t *testing.T, jwks string, change func(*Options)) *Verifier {
	t.Helper()
	o := options()
	o.JWKS, o.Refresh, o.RefreshLeast = jwks, 10*time.Millisecond, 10*time.Millisecond
	if change != nil {
		change(&o)
	}
	v, err := New(o)
	require.NoError(t, err)
	return v
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 10*time.Second, time.Millisecond)
}

func TestFileReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	v := fetched(t, path, nil)
	running(t, v)
	_, err := v.Verify(edToken(t, "old"))
	require.ErrorIs(t, err, ErrUnavailable, "there is no file yet")
	replace := func(jwks string) {
		require.NoError(t, os.WriteFile(path+".new", []byte(jwks), 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
	replace(jwksOf(t, jwk(t, "old", edKey(), nil)))
	eventually(t, v.Ready)
	accepted(t, v, edToken(t, "old"))
	replace(jwksOf(t, jwk(t, "new", otherEd(), nil)))
	eventually(t, func() bool { _, err := v.Verify(edToken(t, "old")); return err != nil })
	accepted(t, v, edToken(t, "new"))
	require.NoError(t, os.Remove(path))
	accepted(t, v, edToken(t, "new"))
}

func TestFileThatIsNone(t *testing.T) {
	dir := t.TempDir()
	pipe, big := filepath.Join(dir, "pipe"), filepath.Join(dir, "big")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	require.NoError(t, os.WriteFile(big, []byte(strings.Repeat(" ", 101)), 0o600))
	for _, path := range []string{dir, pipe, "/dev/zero", big, filepath.Join(dir, "none")} {
		_, err := fileSource{path, 100}.read(t.Context())
		require.Error(t, err, path)
	}
	b, err := fileSource{big, 101}.read(t.Context())
	require.NoError(t, err)
	require.Len(t, b, 101)
}

func TestURL(t *testing.T) {
	var answer atomic.Pointer[http.HandlerFunc]
	handle := func(h http.HandlerFunc) { answer.Store(&h) }
	give := func(jwks string) {
		handle(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(jwks)) })
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*answer.Load())(w, r) }))
	defer server.Close()
	give(jwksOf(t, jwk(t, "old", edKey(), nil)))
	v := fetched(t, server.URL+"/jwks", nil)
	running(t, v)
	eventually(t, v.Ready)
	accepted(t, v, edToken(t, "old"))
	for _, h := range []http.HandlerFunc{
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("garbage")) },
		func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) },
	} {
		var asked atomic.Int64
		handle(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); h(w, r) })
		eventually(t, func() bool { return asked.Load() >= 2 })
		accepted(t, v, edToken(t, "old"))
	}
	give(jwksOf(t, jwk(t, "new", otherEd(), nil)))
	eventually(t, func() bool { _, err := v.Verify(edToken(t, "new")); return err == nil })
	refused(t, v, edToken(t, "old"), ReasonUnknownKey)
}

func TestURLRefused(t *testing.T) {
	good := jwksOf(t, jwk(t, "old", edKey(), nil))
	released := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(good)) })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-released:
		}
	})
	mux.HandleFunc("/drip", func(w http.ResponseWriter, r *http.Request) { // never ends, and is never silent for long
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte(" ")); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			time.Sleep(time.Millisecond)
		}
	})
	mux.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) {
		chunk := bytes.Repeat([]byte(" "), 64<<10)
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(path, []byte(good), 0o600))
	mux.HandleFunc("/to-file", redirect("file://"+path))
	mux.HandleFunc("/to-ftp", redirect("ftp://127.0.0.1/x"))
	mux.HandleFunc("/loop", redirect("/loop"))
	mux.HandleFunc("/moved", redirect("/good"))
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(released)

	read := func(url string) error {
		v := fetched(t, url, func(o *Options) { o.RefreshTimeout = 200 * time.Millisecond })
		return v.rotation.read(t.Context())
	}
	for path, want := range map[string]string{
		"/slow": "deadline", "/drip": "deadline", "/huge": "more than 1048576 bytes", "/none": "status 404",
		"/to-file": "cannot be trusted", "/to-ftp": "cannot be trusted", "/loop": "more than 3 times",
	} {
		require.ErrorContains(t, read(server.URL+path), want, path)
	}
	require.NoError(t, read(server.URL+"/good"))
	require.NoError(t, read(server.URL+"/moved"))

	// Never from a connection that proves who answers to one that does not.
	secure := httptest.NewTLSServer(redirect(server.URL + "/good"))
	defer secure.Close()
	v := fetched(t, secure.URL, nil)
	s, _ := v.rotation.source.(*urlSource)
	require.ErrorContains(t, v.rotation.read(t.Context()), "certificate")
	s.client.Transport = secure.Client().Transport
	require.ErrorContains(t, v.rotation.read(t.Context()), "cannot be trusted")
}

func TestPasswordOfURLIsNotLogged(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "flashgate" || password != "hunter2" || r.FormValue("key") != "hunter3" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = w.Write([]byte(jwksOf(t, jwk(t, "old", edKey(), nil))))
	}))
	var log bytes.Buffer
	url := strings.Replace(server.URL, "http://", "http://flashgate:hunter2@", 1) + "/jwks?key=hunter3"
	v := fetched(t, url, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	err := v.rotation.read(t.Context())
	require.NoError(t, err, "the password is used")
	server.Close()
	err = v.rotation.read(t.Context())
	require.Error(t, err)
	v.rotation.say(err)
	require.Contains(t, log.String(), "/jwks")
	require.NotContains(t, log.String(), "hunter")
	require.NotContains(t, err.Error(), "hunter")

	log.Reset()
	fetched(t, "http://flashgate:hunter2@shop.example/jwks", func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	require.Contains(t, log.String(), "plain http")
	require.NotContains(t, log.String(), "hunter")
}
