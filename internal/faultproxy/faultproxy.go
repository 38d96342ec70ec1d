// Package faultproxy is test support: the proxy of drill/faultproxy for as long as a test lasts.
package faultproxy

import (
	"testing"

	"flashgate/drill/faultproxy"
)

// Proxy forwards connections to one server.
type Proxy = faultproxy.Proxy

// Start listens on a free loopback port until the test ends.
func Start(t testing.TB, upstream string) *Proxy {
	t.Helper()
	p, err := faultproxy.Start(t.Context(), upstream)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}
