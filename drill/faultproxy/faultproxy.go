// Package faultproxy is a TCP proxy in front of a server that does what networks and failovers do:
// it loses replies, so that a caller does not learn of a call that had its effect, delays them, and
// moves to another server, cutting what was open.
package faultproxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	chunk       = 32 << 10
	dialTimeout = 5 * time.Second
)

// Proxy forwards connections to one server at a time.
type Proxy struct {
	//nolint:containedctx // that of whoever started it bounds every connection
	ctx      context.Context
	stop     context.CancelFunc
	listener net.Listener
	lose     atomic.Bool
	lost     atomic.Int64
	delay    atomic.Int64 // ns
	running  sync.WaitGroup

	mu       sync.Mutex
	upstream string
	open     map[net.Conn]bool // both ends of every connection
	closed   bool
}

// Start listens on a free loopback port until Close.
func Start(ctx context.Context, upstream string) (*Proxy, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("fault proxy: %w", err)
	}
	p := &Proxy{listener: l, upstream: upstream, open: map[net.Conn]bool{}}
	p.ctx, p.stop = context.WithCancel(ctx)
	p.running.Go(p.accept)
	return p, nil
}

// Close cuts every connection and ends the proxy.
func (p *Proxy) Close() {
	p.stop()
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Cut()
	p.running.Wait()
}

// Addr is where to connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// LoseReplies passes requests on from now, swallows the reply and cuts the connection.
func (p *Proxy) LoseReplies() { p.lose.Store(true) }

// Delay makes every reply come so much later from now.
func (p *Proxy) Delay(d time.Duration) { p.delay.Store(int64(d)) }

// Heal forwards everything again at once, on new connections where one was cut.
func (p *Proxy) Heal() {
	p.lose.Store(false)
	p.delay.Store(0)
}

// Lost counts the replies that were swallowed.
func (p *Proxy) Lost() int64 { return p.lost.Load() }

// MoveTo makes another server the one behind the proxy, and cuts what is open to the last.
func (p *Proxy) MoveTo(upstream string) {
	p.mu.Lock()
	p.upstream = upstream
	p.mu.Unlock()
	p.Cut()
}

// Cut ends every open connection.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close()
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.forward(client) })
	}
}

// target is the server of now.
func (p *Proxy) target() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.upstream
}

// keep remembers a connection to the target of now; false when that is another one by now.
func (p *Proxy) keep(target string, client, server net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.upstream != target {
		return false
	}
	p.open[client], p.open[server] = true, true
	return true
}

func (p *Proxy) forward(client net.Conn) {
	defer client.Close()
	dial, target := net.Dialer{Timeout: dialTimeout}, p.target()
	server, err := dial.DialContext(p.ctx, "tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.keep(target, client, server) {
		return
	}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, client)
		delete(p.open, server)
	}()
	var both sync.WaitGroup
	defer both.Wait()
	both.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	p.reply(server, client)
	_ = client.Close()
}

// reply forwards what the server says.
func (p *Proxy) reply(server, client net.Conn) {
	b := make([]byte, chunk)
	for {
		n, err := server.Read(b)
		if err != nil {
			return
		}
		if p.lose.Load() {
			p.lost.Add(1)
			return
		}
		if d := time.Duration(p.delay.Load()); d > 0 {
			late := time.NewTimer(d)
			select {
			case <-late.C:
			case <-p.ctx.Done():
				late.Stop()
				return
			}
		}
		if _, err := client.Write(b[:n]); err != nil {
			return
		}
	}
}
