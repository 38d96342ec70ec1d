package servers

import "syscall"

func endWithUs(a *syscall.SysProcAttr, sig syscall.Signal) { a.Pdeathsig = sig }
