package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/configs"
	"flashgate/drill/servers"
	"flashgate/internal/pgtest"
	"flashgate/internal/redistest"
	"flashgate/ledger"
	"flashgate/ledger/postgres"
	"flashgate/loadtest"
	"flashgate/sale"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "flashgate-e2e")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "flashgate")
	build := exec.Command("go", "build", "-o", binary, "flashgate/cmd/flashgate")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build of cmd/flashgate failed:", err)
		os.Exit(1)
	}
	// Many callers come back at once, and should find their connections.
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 128
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// world is one Redis, one PostgreSQL, one sale and one server in front of them.
type world struct {
	t     testing.TB
	redis *redistest.Server
	pg    *pgtest.Server
	dsn   string
	addr  string
	key   string
	sale  sale.Config
	serve *program
}

// newWorld sells configs/sales/demo.yaml, with ten thousand times its stock, held ten times as long, when plenty.
func newWorld(t testing.TB, plenty bool) *world {
	w := &world{
		t: t, redis: redistest.Start(t, "--appendonly", "yes"), pg: pgtest.NewServer(t), addr: freeAddr(t),
	}
	w.dsn = w.pg.DSN(w.pg.Database())
	w.key = strings.TrimSpace(w.command("key", "create", "--role", "admin", "--name", "e2e", "--ledger", w.dsn))
	w.start()
	demo, err := configs.SaleFiles.ReadFile("sales/demo.yaml")
	require.NoError(t, err)
	if plenty {
		demo = regexp.MustCompile(`on_hand: (\d+)`).ReplaceAll(demo, []byte("on_hand: ${1}0000"))
		demo = bytes.Replace(demo, []byte("hold_seconds: 60"), []byte("hold_seconds: 600"), 1)
	}
	file := filepath.Join(t.TempDir(), "demo.yaml")
	require.NoError(t, os.WriteFile(file, demo, 0o600))
	w.command("sale", "apply", file, "--ledger", w.dsn)
	w.until(10*time.Second, "the sale is known", func() bool {
		code, _ := w.get("/v1/availability?sale=demo")
		return code == http.StatusOK
	})
	l := w.ledger()
	v, err := l.LatestVersion(t.Context(), "demo")
	require.NoError(t, err)
	w.sale = v.Config
	return w
}

func (w *world) ledger() ledger.Ledger {
	l, err := postgres.Open(w.t.Context(), w.dsn, postgres.Options{})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = l.Close() })
	return l
}

// command runs the program to its end and returns its standard output.
func (w *world) command(args ...string) string {
	w.t.Helper()
	var out, said bytes.Buffer
	cmd := exec.CommandContext(w.t.Context(), binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	require.NoError(w.t, cmd.Run(), said.String())
	return out.String()
}

// start runs serve and waits until it is ready.
func (w *world) start() {
	w.t.Helper()
	w.serve = launch(w.t, "serve", "--redis", w.redis.URL(), "--ledger", w.dsn, "--listen", w.addr)
	w.until(15*time.Second, "serve is ready", func() bool {
		code, _ := w.get("/readyz")
		return code == http.StatusOK
	})
}

func (w *world) get(path string) (int, string) { return w.call(http.MethodGet, path, "") }

// call returns status 0 when nobody answers.
func (w *world) call(method, path, body string) (int, string) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+w.addr+path, strings.NewReader(body))
	require.NoError(w.t, err)
	req.Header.Set("Authorization", "Bearer "+w.key)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

func (w *world) until(most time.Duration, what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	w.t.Fatalf("not within %v: %s\n%s", most, what, w.serve.said())
}

// crowd lets shoppers in, does what happens meanwhile in another goroutine, and returns what the
// shoppers were told.
func (w *world) crowd(meanwhile func(), faults ...loadtest.Fault) *loadtest.Recording {
	w.t.Helper()
	c, err := loadtest.NewCrowd(loadtest.Options{
		BaseURL: "http://" + w.addr, Token: w.key, Sale: w.sale, Shoppers: 1500, Duration: 3 * time.Second,
		Patience: 40 * time.Second, Seed: 7, Faults: faults,
		// One for each: who waits for a confirmation keeps nobody else from asking.
		Connections: 1500,
	})
	require.NoError(w.t, err)
	var wg sync.WaitGroup
	if meanwhile != nil {
		wg.Go(meanwhile)
	}
	rec, err := c.Run(w.t.Context())
	wg.Wait()
	require.NoError(w.t, err)
	return rec
}

// audit requires that no promise was broken, and that the crowd did something.
func (w *world) audit(rec *loadtest.Recording) []loadtest.Verdict {
	w.t.Helper()
	confirmed := 0
	for i := range rec.Answers {
		if a := &rec.Answers[i]; a.Verb == loadtest.Confirm && a.Status == http.StatusOK {
			confirmed++
		}
	}
	require.Greater(w.t, confirmed, 100, "too few confirmations to mean anything")
	verdicts, err := loadtest.Audit{
		BaseURL: "http://" + w.addr, Token: w.key, Recording: rec, Ledger: w.ledger(), Settle: 20 * time.Second,
	}.Run(w.t.Context())
	require.NoError(w.t, err)
	for _, v := range verdicts {
		w.t.Logf("promise %d: %s", v.Promise, v.Checked)
		require.True(w.t, v.Kept, "promise %d is broken: %v\n%s", v.Promise, v.Examples, w.serve.said())
	}
	return verdicts
}

// program is a running flashgate.
type program struct {
	cmd  *exec.Cmd
	log  *logFile
	done chan struct{}
}

// logFile keeps the last of what a process said.
type logFile struct {
	mu sync.Mutex
	b  []byte
}

func (l *logFile) Write(p []byte) (int, error) {
	const most = 16 << 10
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	if len(l.b) > most {
		l.b = l.b[len(l.b)-most:]
	}
	return len(p), nil
}

func (l *logFile) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

func launch(t testing.TB, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.Command(binary, args...), log: &logFile{}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *program) said() string { return p.log.String() }

// kill is kill -9.
func (p *program) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func freeAddr(t testing.TB) string {
	t.Helper()
	port, err := servers.FreePort()
	require.NoError(t, err)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func shardOf(saleID string) ledger.Shard { return ledger.Shard{Sale: saleID} }
