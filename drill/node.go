//go:build unix

package drill

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"flashgate/drill/servers"
)

const nodeReady = 30 * time.Second

// node is a process of the program, with a supervisor that starts it again when it ends by itself, as
// it does when Redis or the ledger is away at its start.
type node struct {
	name string
	args []string
	env  []string
	bin  string
	addr string // of its HTTP port; "" has none

	mu     sync.Mutex
	proc   *servers.Process
	wanted bool
	log    strings.Builder // of past lives
	watch  sync.WaitGroup
}

// restartAfter is the pause of the supervisor.
const restartAfter = 100 * time.Millisecond

// newGateway is not started yet.
func (w *world) newGateway(n int) (*node, error) {
	port, err := servers.FreePort()
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	return &node{
		name: fmt.Sprintf("gateway %d", n+1), bin: w.opts.Binary, addr: addr, env: w.env(w.gate.Addr()),
		args: []string{"serve", "--reconcile=false", "--listen", addr},
	}, nil
}

// newReconciler is not started yet.
func (w *world) newReconciler(n int) *node {
	return &node{
		name: fmt.Sprintf("reconciler %d", n+1), bin: w.opts.Binary, env: w.env(w.books.Addr()),
		args: []string{"reconcile"},
	}
}

// env is the configuration of every process: ours alone, with times short enough for a round.
func (w *world) env(redisAddr string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "FLASHGATE_") {
			env = append(env, v)
		}
	}
	return append(env,
		"FLASHGATE_REDIS_URL=redis://"+redisAddr+"/0", "FLASHGATE_LEDGER="+w.dsn,
		"FLASHGATE_LOG_LEVEL=warn",
		fmt.Sprintf("FLASHGATE_RECONCILE_RECOVERY_GRACE_MS=%d", recoveryGrace.Milliseconds()),
		fmt.Sprintf("FLASHGATE_RECONCILE_MAX_CLOCK_STEP_MS=%d", maxClockStep.Milliseconds()),
		fmt.Sprintf("FLASHGATE_RECONCILE_TAIL_EVENTS=%d", tailEvents),
	)
}

// start runs the process, and waits until it is ready to serve.
func (n *node) start(ctx context.Context) error {
	n.mu.Lock()
	n.wanted = true
	err := n.launch()
	n.mu.Unlock()
	if err != nil {
		return err
	}
	n.watch.Go(n.supervise)
	ctx, cancel := context.WithTimeout(ctx, nodeReady)
	defer cancel()
	for {
		err := n.ready(ctx)
		if err == nil {
			return nil
		}
		if !sleep(ctx, pollEvery) {
			n.kill()
			return fmt.Errorf("%s does not answer: %w\n%s", n.name, err, n.said())
		}
	}
}

// launch begins a life; the caller holds the lock.
func (n *node) launch() error {
	//nolint:gosec,noctx // our own program, which kill ends; it must outlive the fault that restarts it
	cmd := exec.Command(n.bin, n.args...)
	cmd.Env = n.env
	proc, err := servers.Launch(cmd, syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	n.proc = proc
	return nil
}

// supervise starts the process again until kill.
func (n *node) supervise() {
	for {
		n.mu.Lock()
		proc := n.proc
		n.mu.Unlock()
		<-proc.Ended()
		n.mu.Lock()
		n.keep(proc.Log())
		n.mu.Unlock()
		if !n.again() {
			return
		}
	}
}

// again waits a moment and begins another life; false when none is wanted or possible.
func (n *node) again() bool {
	<-time.After(restartAfter)
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.wanted && n.launch() == nil
}

// keep remembers the end of what a life has printed, and of all before.
func (n *node) keep(text string) {
	all := n.log.String() + text
	n.log.Reset()
	n.log.WriteString(all[max(0, len(all)-logMax):])
}

func (n *node) ready(ctx context.Context) error {
	if n.addr == "" {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addr+"/livez", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// kill is kill -9, and no supervisor.
func (n *node) kill() {
	n.mu.Lock()
	n.wanted = false
	if n.proc != nil {
		_ = n.proc.Signal(syscall.SIGKILL)
	}
	n.mu.Unlock()
	n.watch.Wait()
}

// said is the end of what all lives have printed.
func (n *node) said() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	text := n.log.String()
	if n.proc != nil && n.proc.Running() {
		text += n.proc.Log()
	}
	return text[max(0, len(text)-logMax):]
}

// crashed tells whether a life ended in a way that no program should.
func (n *node) crashed() bool {
	text := n.said()
	return strings.Contains(text, "panic: ") || strings.Contains(text, "fatal error: ")
}
