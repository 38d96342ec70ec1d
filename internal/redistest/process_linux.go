package redistest

import "syscall"

// attributes put a server in its own process group and have the kernel kill it when we end,
// however we end.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
