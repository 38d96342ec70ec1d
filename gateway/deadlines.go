package gateway

import (
	"net"
	"sync"
	"time"
)

// lazyListener gives out connections that keep deadlines lazily. The server moves three for every request,
// each a timer of the runtime, and hardly ever waits for one.
type lazyListener struct{ net.Listener }

func (l lazyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lazyConn{Conn: c}, nil
}

// lazyConn sets a deadline only when something is about to be read or written, and only when the one that is
// set would end it too early, or later than a slackPart of its time too late. Unlike that of other connections
// a deadline does not end what waits already: whoever wants that must close it.
type lazyConn struct {
	net.Conn
	read, write deadline
}

// slackPart is the part of its time by which a deadline may come too late.
const slackPart = 8

func (c *lazyConn) Read(b []byte) (int, error) {
	if err := c.read.apply(c.Conn.SetReadDeadline); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *lazyConn) Write(b []byte) (int, error) {
	if err := c.write.apply(c.Conn.SetWriteDeadline); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// SetReadDeadline is for what is read from now on.
func (c *lazyConn) SetReadDeadline(t time.Time) error { return c.read.want(t) }

// SetWriteDeadline is for what is written from now on.
func (c *lazyConn) SetWriteDeadline(t time.Time) error { return c.write.want(t) }

// SetDeadline does both.
func (c *lazyConn) SetDeadline(t time.Time) error {
	_ = c.read.want(t)
	return c.write.want(t)
}

// deadline is what is wanted, and what is set. A stream pushes its own on beside the server.
type deadline struct {
	mu     sync.Mutex
	wanted time.Time
	set    time.Time
	slack  time.Duration // by which set may be later than wanted
}

func (d *deadline) want(t time.Time) error {
	d.mu.Lock()
	d.wanted = t
	d.mu.Unlock()
	return nil
}

func (d *deadline) apply(set func(time.Time) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wanted.IsZero() && d.set.IsZero() {
		return nil
	}
	if late := d.set.Sub(d.wanted); !d.wanted.IsZero() && !d.set.IsZero() && late >= 0 && late <= d.slack {
		return nil
	}
	d.set, d.slack = d.wanted, 0
	if !d.wanted.IsZero() {
		d.slack = max(time.Until(d.wanted), 0) / slackPart
		d.set = d.wanted.Add(d.slack)
	}
	return set(d.set)
}
