package loadtest

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"sync"
	"time"
)

// wire is what calls of one host go over: kept connections of HTTP/1.1, one call at a time on each. It is a
// client of its own because the load often has the same processors as its target: a general one takes
// two to three times as much of them for a call. It never sends anything twice.
type wire struct {
	addr   string // host and port
	host   string // as in the URL
	prefix string // of every path
	tls    *tls.Config
	max    int

	mu   sync.Mutex
	idle []*conn // the last one used is taken first
	open int     // with those that are being dialled
	line []*inLine
}

// inLine is a call that waits for a connection. It gets one, or nil: then it may dial.
type inLine struct {
	got  chan *conn // room for one
	gone bool       // gave up; for the holder of mu
}

// errNoConnection is said after the timeout: shoppers wait for a connection as they would for a slow server, and
// it is part of the latency that they see.
var errNoConnection = errors.New("no free connections, all were taken by other calls until the timeout")

// idleMax is how long a connection may be unused and still be trusted.
const idleMax = 30 * time.Second

func newWire(base string, connections int) (*wire, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	w := &wire{addr: u.Host, host: u.Host, prefix: u.EscapedPath(), max: connections}
	port := "80"
	if u.Scheme == "https" {
		port, w.tls = "443", &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	}
	if u.Port() == "" {
		w.addr = net.JoinHostPort(u.Hostname(), port)
	}
	return w, nil
}

// take is a connection for one call that must end at a time.
func (w *wire) take(until time.Time) (*conn, error) {
	w.mu.Lock()
	if c := w.unused(); c != nil {
		w.mu.Unlock()
		return c, nil
	}
	if w.open < w.max {
		w.open++
		w.mu.Unlock()
		return w.dial(until)
	}
	me := &inLine{got: make(chan *conn, 1)}
	w.line = append(w.line, me)
	w.mu.Unlock()
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case c := <-me.got:
		return w.orDial(c, until)
	case <-t.C:
	}
	w.mu.Lock()
	me.gone = true
	w.mu.Unlock()
	select {
	case c := <-me.got: // just now, and too late
		w.pass(c)
	default:
	}
	return nil, errNoConnection
}

// unused is the connection that was used last, for the holder of mu. Of those that nobody used for long the server
// may have tired.
func (w *wire) unused() *conn {
	n := len(w.idle)
	if n == 0 {
		return nil
	}
	c := w.idle[n-1]
	w.idle[n-1], w.idle = nil, w.idle[:n-1]
	if time.Since(c.used) < idleMax {
		return c
	}
	for _, old := range append(w.idle, c) { // All are older.
		_ = old.Close()
		w.open--
	}
	w.idle = w.idle[:0]
	return nil
}

func (w *wire) orDial(c *conn, until time.Time) (*conn, error) {
	if c != nil {
		return c, nil
	}
	return w.dial(until)
}

// dial opens a connection, which is counted as open already.
func (w *wire) dial(until time.Time) (*conn, error) {
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", w.addr)
	if err == nil && w.tls != nil {
		over := tls.Client(c, w.tls)
		if err = over.HandshakeContext(ctx); err != nil {
			_ = c.Close()
		}
		c = over
	}
	if err != nil {
		w.pass(nil)
		return nil, err
	}
	return newConn(c), nil
}

// pass lets the next in line have a connection, or with nil the right to open one.
func (w *wire) pass(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.line) > 0 {
		next := w.line[0]
		w.line[0], w.line = nil, w.line[1:]
		if !next.gone {
			next.got <- c
			return
		}
	}
	if c == nil {
		w.open--
		return
	}
	w.idle = append(w.idle, c)
}

// close ends the connections that nobody uses.
func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.idle {
		_ = c.Close()
		w.open--
	}
	w.idle = nil
}

// ask sends what is in c.out and reads the answer into c.answer. After an error the connection is gone; without one
// the caller gives it back.
func (w *wire) ask(c *conn, until time.Time) error {
	if err := c.exchange(until); err != nil {
		_ = c.Close()
		w.pass(nil)
		return err
	}
	return nil
}

// give takes a connection back once its answer was read.
func (w *wire) give(c *conn) {
	if c.answer.close || c.in.Buffered() > 0 { // What was not asked for would be read as the next answer.
		_ = c.Close()
		w.pass(nil)
		return
	}
	c.used = time.Now()
	w.pass(c)
}
