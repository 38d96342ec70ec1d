//go:build unix

package pgtest

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const maxLog = 256 << 10 // bytes of a server's output that are kept

// process is one life of a postmaster.
type process struct {
	cmd   *exec.Cmd
	log   head
	ended chan struct{}
}

// launch starts a postmaster as the given user.
func launch(as *syscall.Credential, dir, bin string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(bin, args...), ended: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = attributes(as)
	p.cmd.WaitDelay = time.Second // a child of a killed postmaster may hold the pipe
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

// kill ends the postmaster and all its children with SIGKILL. The children have sessions of their
// own, so they are looked up while the postmaster is stopped and cannot make more.
func (p *process) kill() {
	if !p.running() {
		return
	}
	pid := p.cmd.Process.Pid
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	family := append(children(pid), pid)
	for _, id := range family {
		_ = syscall.Kill(id, syscall.SIGKILL)
	}
	<-p.ended
	// The next postmaster refuses to start while a child of the last one is still there.
	for deadline := time.Now().Add(stopTimeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if !alive(family) {
			return
		}
	}
}

func alive(pids []int) bool {
	for _, id := range pids {
		if state := processState(id); state != "" && state != "Z" {
			return true
		}
	}
	return false
}

// stop ends the server with its fast shutdown: sessions are cut, everything is written.
func (p *process) stop() {
	if !p.running() {
		return
	}
	p.signalAll(syscall.SIGCONT)
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-p.ended:
	case <-time.After(stopTimeout):
		p.kill()
	}
}

func (p *process) signalAll(sig syscall.Signal) {
	pid := p.cmd.Process.Pid
	_ = syscall.Kill(pid, sig)
	for _, id := range children(pid) {
		_ = syscall.Kill(id, sig)
	}
}

// children lists the direct children of a process; a postmaster's have none of their own.
func children(pid int) []int {
	out, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(pid) + "/children")
	if err == nil {
		return numbers(strings.Fields(string(out)))
	}
	out, err = exec.Command("ps", "-A", "-o", "ppid=,pid=").Output()
	if err != nil {
		return nil
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == strconv.Itoa(pid) {
			found = append(found, f[1])
		}
	}
	return numbers(found)
}

func numbers(texts []string) []int {
	var out []int
	for _, s := range texts {
		if n, err := strconv.Atoi(s); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// processState is the state letter of a process, or "" when there is none.
func processState(pid int) string {
	out, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		if syscall.Kill(pid, 0) != nil {
			return ""
		}
		return "Z" // there, but cannot be looked at: do not wait for it
	}
	return strings.TrimSpace(string(out))[:1]
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
