//go:build unix

package servers

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	maxLog     = 256 << 10 // bytes of a server's output that are kept
	readyEvery = 5 * time.Millisecond
)

// Process is one life of a server.
type Process struct {
	cmd   *exec.Cmd
	log   head
	ended chan struct{}
}

// Launch starts a server in a process group of its own. When we end, however we end, the kernel
// sends it the signal orphaned; only Linux can, so elsewhere a process that is killed leaves its
// servers behind.
func Launch(cmd *exec.Cmd, orphaned syscall.Signal) (*Process, error) {
	p := &Process{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	endWithUs(cmd.SysProcAttr, orphaned)
	cmd.WaitDelay = time.Second // a child of a killed server may hold the pipe
	started := make(chan error)
	go func() {
		// The kernel ends the server when the thread that started it ends, so this goroutine keeps
		// that thread for as long as the server lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// PID is the server's process id, and that of its group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the server has ended and is waited for.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Running says whether the server has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Signal sends the server, without its children, a signal; os.ErrProcessDone when it has ended.
func (p *Process) Signal(sig os.Signal) error {
	if !p.Running() {
		return os.ErrProcessDone
	}
	return p.cmd.Process.Signal(sig)
}

// Await asks until the server is ready, and kills it when it is not in time, or ctx ends.
func (p *Process) Await(
	ctx context.Context, most time.Duration, kill func(), ready func(context.Context) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	name := filepath.Base(p.cmd.Path)
	pause := time.NewTicker(readyEvery)
	defer pause.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended at start:\n%s", name, p.Log())
		case <-ctx.Done():
			kill()
			return fmt.Errorf("%s does not answer: %w\n%s", name, err, p.Log())
		case <-pause.C:
		}
	}
}

// Log is what the server has printed: the first 256 KiB.
func (p *Process) Log() string { return p.log.String() }

// head keeps the first maxLog bytes written to it: enough to say why a server did not start.
type head struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *head) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(p[:min(len(p), maxLog-l.b.Len())])
	return len(p), nil
}

func (l *head) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const (
	// The ports that FreePort picks from are below those that systems give to connections as they come: one of
	// those may be the near end of somebody's connection before the server listens on it.
	firstPort, ports = 20_000, 12_000
	portAttempts     = 100
)

// FreePort finds a loopback port that nobody listens on. Another process may take it before the
// server does.
func FreePort() (port int, err error) {
	for range portAttempts {
		port = firstPort + rand.IntN(ports)
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, failed := net.Listen("tcp", addr) //nolint:noctx // closed at once
		if failed == nil {
			_ = l.Close()
			return port, nil
		}
		err = failed
	}
	return 0, fmt.Errorf("no free port from %d to %d: %w", firstPort, firstPort+ports-1, err)
}
