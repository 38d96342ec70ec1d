//go:build unix

package redistest

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const maxLog = 256 << 10 // bytes of a server's output that are kept

// process is one life of a server.
type process struct {
	cmd   *exec.Cmd
	log   head
	ended chan struct{}
}

// launch starts a server in a process group of its own.
func launch(bin string, args []string) (*process, error) {
	p := &process{cmd: exec.Command(bin, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = attributes()
	p.cmd.WaitDelay = time.Second // a forked child of a killed server may hold the pipe
	started := make(chan error)
	go func() {
		// The kernel ends the server when the thread that started it ends, so this goroutine keeps
		// that thread for as long as the server lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
		close(p.ended)
	}()
	return p, <-started
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *process) signal(sig os.Signal) error {
	if !p.running() {
		return os.ErrProcessDone
	}
	return p.cmd.Process.Signal(sig)
}

// kill ends the whole group, children that write a snapshot included.
func (p *process) kill() {
	if p.running() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
	}
}

func (p *process) stop() {
	_ = p.signal(syscall.SIGCONT)
	_ = p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopTimeout):
		p.kill()
	}
}

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
