package pgtest

import "syscall"

// attributes put a server in its own process group and have the kernel shut it down at once
// (SIGQUIT, which takes its children and its shared memory along) when we end, however we end.
func attributes(as *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT, Credential: as}
}
