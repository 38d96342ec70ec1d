//go:build unix

package challenge

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/browser"
)

// pageServer serves the page with the strictest policy, and notes every address asked for.
type pageServer struct {
	*httptest.Server
	mux   *http.ServeMux
	mu    sync.Mutex
	asked []string
}

func newPageServer(t *testing.T) *pageServer {
	t.Helper()
	s := &pageServer{mux: http.NewServeMux()}
	folder, err := fs.Sub(Page, "page")
	require.NoError(t, err)
	s.mux.Handle("GET /challenge/", http.StripPrefix("/challenge/", http.FileServerFS(folder)))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, req.RequestURI+" "+req.Referer())
		s.mu.Unlock()
		w.Header().Set("Content-Security-Policy", PagePolicy)
		s.mux.ServeHTTP(w, req)
	}))
	t.Cleanup(s.Close)
	return s
}

var outcomePattern = regexp.MustCompile(`(?s)id="outcome"[^>]*data-status="(\w+)"[^>]*>([^<]*)<`)

// browse opens an address in Chromium, and returns the status and text of the outcome.
func browse(t *testing.T, address string) (status, text string) {
	t.Helper()
	document := browser.Document(t, address)
	found := outcomePattern.FindStringSubmatch(document)
	require.NotNil(t, found, document)
	return found[1], found[2]
}

// gate is a reserve as the gateway answers it: no clearance and no right answer, no reservation.
type gate struct {
	*rig
	mu         sync.Mutex
	challenged int
	rejected   []error
	cleared    int
	ids        []string
}

func (g *gate) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var body struct {
		ReservationID string `json:"reservation_id"`
		Sale          string `json:"sale"`
		SKU           string `json:"sku"`
		Qty           int    `json:"qty"`
	}
	customer, known := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer token-of-")
	if json.NewDecoder(req.Body).Decode(&body) != nil || !known || body.SKU != "AIR-42" || body.Qty != 2 {
		problem(w, 422, map[string]any{"title": "Invalid", "detail": "not what the address said"})
		return
	}
	if g.Cleared(body.Sale, customer, req.Header.Get("X-Challenge-Clearance")) {
		g.cleared++
	} else if answer := req.Header.Get("X-Challenge-Response"); answer != "" {
		given, err := g.Answer(req.Context(), body.Sale, customer, testIP, answer, nil)
		if err != nil {
			g.rejected = append(g.rejected, err)
			problem(w, 403, map[string]any{"title": "Rejected", "detail": err.Error(), "code": "forbidden"})
			return
		}
		w.Header().Set("X-Challenge-Clearance", given.Text)
	} else {
		g.challenged++
		c, err := g.Ask(body.Sale, customer, nil, 0)
		if err != nil {
			problem(w, 503, map[string]any{"title": "Unavailable", "detail": err.Error()})
			return
		}
		problem(w, 403, map[string]any{"title": "Challenge required", "code": "challenge-required", "challenge": c})
		return
	}
	g.ids = append(g.ids, body.ReservationID)
	w.WriteHeader(http.StatusCreated)
	_, _ = fmt.Fprintf(w, `{"reservation_id":%q,"expires_at":"2026-11-27T10:05:00.000Z"}`, body.ReservationID)
}

func problem(w http.ResponseWriter, status int, members map[string]any) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(members)
}

func newGate(t *testing.T) *gate {
	t.Helper()
	return &gate{rig: newRig(t, func(o *Options) { o.DifficultyBase, o.Now = 16, time.Now })}
}

const pageAddress = "/challenge/?sale=" + testSale + "&sku=AIR-42&qty=2&reservation_id=ord-7f3a0001&auto=1"

// A browser without anything but the page gets past the door, and the token into no address.
func TestBrowserSolves(t *testing.T) {
	s, g := newPageServer(t), newGate(t)
	s.mux.Handle("POST /v1/reserve", g)
	status, text := browse(t, s.URL+pageAddress+"#token=token-of-"+testCustomer)
	require.Equal(t, "201", status, text)
	require.Equal(t, "Reserved: ord-7f3a0001, held until 2026-11-27T10:05:00.000Z", text)
	require.Equal(t, []string{"ord-7f3a0001"}, g.ids)
	require.Equal(t, 1, g.challenged)
	require.Empty(t, g.rejected)
	require.Equal(t, 1, g.once.count())
	for _, address := range s.asked {
		require.NotContains(t, address, "token")
	}
}

// The second reserve of the window sends the clearance of the first.
func TestBrowserKeepsClearance(t *testing.T) {
	s, g := newPageServer(t), newGate(t)
	s.mux.Handle("POST /v1/reserve", g)
	s.page("/twice", `
		const ask = (id) => flashgateChallenge.fetch('/v1/reserve', {
			method: 'POST', headers: { Authorization: 'Bearer token-of-c-1' },
			body: JSON.stringify({ reservation_id: id, sale: 'sneaker-drop', sku: 'AIR-42', qty: 2 }),
		});
		(async () => {
			const first = await ask('ord-1');
			const second = await ask('ord-2');
			done(first.status + ' ' + second.status);
		})();`)
	status, text := browse(t, s.URL+"/twice")
	require.Equal(t, "done", status)
	require.Equal(t, "201 201", text)
	require.Equal(t, []string{"ord-1", "ord-2"}, g.ids)
	require.Equal(t, 1, g.challenged)
	require.Equal(t, 1, g.cleared)
}

// A refusal that is no challenge is shown, not solved.
func TestBrowserShowsRefusals(t *testing.T) {
	s := newPageServer(t)
	calls := 0
	s.mux.HandleFunc("POST /v1/reserve", func(w http.ResponseWriter, _ *http.Request) {
		calls++
		problem(w, 409, map[string]any{"title": "Not enough stock", "detail": "none is left", "code": "insufficient-stock"})
	})
	status, text := browse(t, s.URL+pageAddress+"#token=x")
	require.Equal(t, "409", status)
	require.Equal(t, "Not enough stock: none is left", text)
	require.Equal(t, 1, calls)
}

// page serves a script of the test's beside challenge.js; it calls done(text) at its end.
func (s *pageServer) page(path, script string) {
	s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<!doctype html><p id="outcome"></p>
			<script src="/challenge/challenge.js"></script><script src="%s.js"></script>`, path)
	})
	s.mux.HandleFunc("GET "+path+".js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = fmt.Fprintf(w, `function done(text) {
			const o = document.getElementById('outcome'); o.textContent = text; o.dataset.status = 'done'; }
			%s`, script)
	})
}

// The script's SHA-256 is Go's, for every length of the beginning around a block and of the rest.
func TestBrowserHashes(t *testing.T) {
	s := newPageServer(t)
	type hashCase struct{ Prefix, Text, Hash string }
	var cases []hashCase
	long := strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyzÄ€", 6)
	for n := range 200 {
		for _, text := range []string{"", "0", "1234567890", "18446744073709551615"} {
			prefix := strings.ToValidUTF8(long[:n], "?")
			sum := sha256.Sum256([]byte(prefix + text))
			cases = append(cases, hashCase{prefix, text, hex.EncodeToString(sum[:])})
		}
	}
	s.mux.HandleFunc("GET /cases", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(cases) })
	s.page("/hashes", `
		(async () => {
			const cases = await (await fetch('/cases')).json();
			const wrong = cases.filter((c) => flashgateChallenge.sha256(c.Prefix, c.Text) !== c.Hash);
			done(cases.length + ' hashed, ' + wrong.length + ' wrong ' + JSON.stringify(wrong.slice(0, 3)));
		})();`)
	status, text := browse(t, s.URL+"/hashes")
	require.Equal(t, "done", status)
	require.Equal(t, fmt.Sprintf("%d hashed, 0 wrong []", len(cases)), text)
}

// The token does not stay in the address, where a history or a copied link would keep it.
func TestBrowserForgetsTheToken(t *testing.T) {
	s := newPageServer(t)
	b, err := fs.ReadFile(Page, "page/index.html")
	require.NoError(t, err)
	s.page("/after", `done(location.href + ' ' + document.querySelector('[name=token]').value);`)
	s.mux.HandleFunc("GET /challenge/with-after.html", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write(bytes.Replace(b, []byte("</head>"), []byte(`<script src="/after.js" defer></script></head>`), 1))
	})
	_, text := browse(t, s.URL+"/challenge/with-after.html?sale=x#token=secret")
	require.Equal(t, s.URL+"/challenge/with-after.html?sale=x secret", text)
}

// What the script says of challenges it cannot solve, and of widgets that the page brings.
func TestBrowserAndOtherProviders(t *testing.T) {
	s := newPageServer(t)
	s.page("/others", `
		(async () => {
			const said = [];
			for (const c of [
				{ provider: 'turnstile', site_key: 'k' },
				{ provider: 'pow', algorithm: 'MD5', difficulty: 1, token: 't' },
				{ provider: 'pow', algorithm: 'SHA-256', difficulty: 99, token: 't' },
			]) {
				try { said.push(await flashgateChallenge.solve(c)); } catch (e) { said.push(e.message); }
			}
			flashgateChallenge.providers.turnstile = async (c) => 'answer-for-' + c.site_key;
			said.push(await flashgateChallenge.solve({ provider: 'turnstile', site_key: 'k' }));
			done(said.join('; '));
		})();`)
	_, text := browse(t, s.URL+"/others")
	require.Equal(t, "this page cannot show a challenge of turnstile; this challenge is of an unknown kind; "+
		"this challenge is of an unknown kind; turnstile answer-for-k", text)
}

// The page names only its own files and holds nothing inline, so that the policy can be strict.
func TestPageIsStrict(t *testing.T) {
	b, err := fs.ReadFile(Page, "page/index.html")
	require.NoError(t, err)
	for _, at := range regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(string(b), -1) {
		u, err := url.Parse(at[1])
		require.NoError(t, err)
		require.False(t, u.IsAbs() || u.Host != "")
		_, err = fs.Stat(Page, "page/"+u.Path)
		require.NoError(t, err, at[1])
	}
	require.NotRegexp(t, `(?i)<style|\sstyle=|\son[a-z]+=|<script>`, string(b))
}
