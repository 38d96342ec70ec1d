//go:build unix

package servers

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// postmaster is one life of a postmaster.
type postmaster struct{ *Process }

// kill ends the postmaster and all its children with SIGKILL. The children have sessions of their
// own, so they are looked up while the postmaster is stopped and cannot make more.
func (p postmaster) kill() {
	if !p.Running() {
		return
	}
	pid := p.PID()
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	family := append(children(pid), pid)
	for _, id := range family {
		_ = syscall.Kill(id, syscall.SIGKILL)
	}
	<-p.Ended()
	// The next postmaster refuses to start while a child of the last one is still there.
	for deadline := time.Now().Add(postgresStopTimeout); time.Now().Before(deadline) && alive(family); {
		<-time.After(time.Millisecond)
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
func (p postmaster) stop() {
	if !p.Running() {
		return
	}
	p.signalAll(syscall.SIGCONT)
	_ = p.Signal(syscall.SIGINT)
	select {
	case <-p.Ended():
	case <-time.After(postgresStopTimeout):
		p.kill()
	}
}

func (p postmaster) signalAll(sig syscall.Signal) {
	pid := p.PID()
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
	out, err = exec.CommandContext(context.Background(), "ps", "-A", "-o", "ppid=,pid=").Output()
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
	//nolint:gosec // a number
	out, err := exec.CommandContext(context.Background(), "ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		if syscall.Kill(pid, 0) != nil {
			return ""
		}
		return "Z" // there, but cannot be looked at: do not wait for it
	}
	return strings.TrimSpace(string(out))[:1]
}
