//go:build unix

package pgtest

import "flashgate/drill/servers"

// CPU is the CPU time that the server and the sessions it has now have used, in seconds; see servers.CPU.
func (s *Server) CPU() float64 { return servers.CPU(s.PID()) }
