//go:build unix && !linux

package pgtest

import "syscall"

// attributes put a server in its own process group. Only Linux can end it together with us, so
// here a test process that is killed leaves its servers behind.
func attributes(as *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: as}
}
