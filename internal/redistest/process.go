//go:build unix

package redistest

import (
	"syscall"
	"time"

	"flashgate/internal/process"
)

// life is one life of a server.
type life struct{ *process.Process }

// kill ends the whole group, children that write a snapshot included.
func (l life) kill() {
	if l.Running() {
		_ = syscall.Kill(-l.PID(), syscall.SIGKILL)
		<-l.Ended()
	}
}

func (l life) stop() {
	_ = l.Signal(syscall.SIGCONT)
	_ = l.Signal(syscall.SIGTERM)
	select {
	case <-l.Ended():
	case <-time.After(stopTimeout):
		l.kill()
	}
}
