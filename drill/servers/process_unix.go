//go:build unix && !linux

package servers

import "syscall"

func endWithUs(*syscall.SysProcAttr, syscall.Signal) {}
