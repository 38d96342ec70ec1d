// Package faultproxy is test support: a TCP proxy in front of a server that can lose replies, so
// that a caller does not learn of a call that had its effect.
package faultproxy

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	chunk       = 32 << 10
	dialTimeout = 5 * time.Second
)

// Proxy forwards connections to one server.
type Proxy struct {
	ctx      context.Context // the test's
	listener net.Listener
	upstream string
	lose     atomic.Bool
	lost     atomic.Int64
	running  sync.WaitGroup
}

// Start listens on a free loopback port until the test ends.
func Start(t testing.TB, upstream string) *Proxy {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal("fault proxy:", err)
	}
	p := &Proxy{ctx: t.Context(), listener: l, upstream: upstream}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.running.Wait()
	})
	return p
}

// Addr is where to connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// LoseReplies passes requests on from now, swallows the reply and cuts the connection.
func (p *Proxy) LoseReplies() { p.lose.Store(true) }

// Heal forwards everything again, on new connections.
func (p *Proxy) Heal() { p.lose.Store(false) }

// Lost counts the replies that were swallowed.
func (p *Proxy) Lost() int64 { return p.lost.Load() }

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.forward(client) })
	}
}

func (p *Proxy) forward(client net.Conn) {
	dial := net.Dialer{Timeout: dialTimeout}
	server, err := dial.DialContext(p.ctx, "tcp", p.upstream)
	if err != nil {
		_ = client.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	b := make([]byte, chunk)
	for {
		n, err := server.Read(b)
		if err != nil {
			break
		}
		if p.lose.Load() {
			p.lost.Add(1)
			break
		}
		if _, err := client.Write(b[:n]); err != nil {
			break
		}
	}
	_ = client.Close()
	_ = server.Close()
	both.Wait()
}
