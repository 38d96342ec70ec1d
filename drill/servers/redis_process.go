//go:build unix

package servers

import (
	"syscall"
	"time"
)

// redisLife is one life of a redis-server.
type redisLife struct{ *Process }

// kill ends the whole group, children that write a snapshot included.
func (l redisLife) kill() {
	if l.Running() {
		_ = syscall.Kill(-l.PID(), syscall.SIGKILL)
		<-l.Ended()
	}
}

func (l redisLife) stop() {
	_ = l.Signal(syscall.SIGCONT)
	_ = l.Signal(syscall.SIGTERM)
	select {
	case <-l.Ended():
	case <-time.After(redisStopTimeout):
		l.kill()
	}
}
