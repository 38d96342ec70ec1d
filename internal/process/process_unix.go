//go:build unix && !linux

package process

import "syscall"

func endWithUs(*syscall.SysProcAttr, syscall.Signal) {}
