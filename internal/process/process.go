//go:build unix

// Package process is test support: a free port for what a test starts itself.
package process

import "flashgate/drill/servers"

// FreePort finds a loopback port that nobody listens on. Another process may take it before the
// server does.
func FreePort() (int, error) { return servers.FreePort() }
