package loadtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

// conn is one connection, with the request and the answer of the call that has it.
type conn struct {
	net.Conn
	in     *bufio.Reader
	out    []byte
	answer response
	rare   fasthttp.Response // what plain does not take
	known  words
	used   time.Time // last
}

// response is as much of an answer as a crowd wants to know. body is valid until the next call.
type response struct {
	status     int
	replayed   bool // Idempotent-Replayed: true
	retryAfter int  // seconds; 0 is none
	close      bool // no further call on this connection
	body       []byte
}

const (
	// headMax is the most that an answer may have before its body. Bodies of that size need no memory of their own.
	headMax = 4096
	// bodyMax is the most of a body: a page of a large sale's availability fits.
	bodyMax = 16 << 20
)

var errHeadTooLarge = errors.New(nonsense + "more than 4 KiB of headers")

func newConn(c net.Conn) *conn {
	return &conn{Conn: c, in: bufio.NewReaderSize(c, headMax), out: make([]byte, 0, 512)}
}

// exchange sends what is in out and reads the answer to it.
func (c *conn) exchange(until time.Time) error {
	if err := c.SetDeadline(until); err != nil {
		return err
	}
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	head, err := c.head()
	if err != nil {
		return err
	}
	length, ok := c.answer.plain(head)
	if !ok || len(head)+length > c.in.Size() {
		return c.readRare()
	}
	all, err := c.in.Peek(len(head) + length)
	if err != nil {
		return err
	}
	c.answer.body = all[len(head):]
	_, err = c.in.Discard(len(all)) // What was read stays where it is until the next read.
	return err
}

var headEnd = []byte(crlf + crlf)

// head is everything before the body. It stays unread.
func (c *conn) head() ([]byte, error) {
	for have := 1; ; {
		if _, err := c.in.Peek(have); err != nil {
			if errors.Is(err, bufio.ErrBufferFull) {
				err = errHeadTooLarge
			}
			if errors.Is(err, io.EOF) && have > 1 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		got, err := c.in.Peek(c.in.Buffered())
		if err != nil {
			return nil, err
		}
		if end := bytes.Index(got, headEnd); end >= 0 {
			return got[:end+len(headEnd)], nil
		}
		have = len(got) + 1
	}
}

// readRare reads the answer by the rules for all of HTTP/1.1: bodies in chunks, without a length, large ones.
func (c *conn) readRare() error {
	c.rare.Reset()
	if err := c.rare.ReadLimitBody(c.in, bodyMax); err != nil {
		var broken *net.OpError
		if errors.As(err, &broken) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		return fmt.Errorf("%s%w", nonsense, err)
	}
	h := &c.rare.Header
	c.answer = response{
		status: c.rare.StatusCode(), close: c.rare.ConnectionClose(), body: c.rare.Body(),
		replayed: string(h.Peek("Idempotent-Replayed")) == "true",
	}
	if s, err := strconv.Atoi(string(h.Peek("Retry-After"))); err == nil {
		c.answer.retryAfter = s
	}
	return nil
}

// plain reads the head of an ordinary answer: HTTP/1.1, a body of a length that is said. Anything else is
// left to readRare.
func (r *response) plain(head []byte) (length int, ok bool) {
	const status = "HTTP/1.1 200"
	*r = response{}
	if len(head) < len(status)+2 || string(head[:len(status)-3]) != "HTTP/1.1 " {
		return 0, false
	}
	if r.status, ok = digits3(head[len(status)-3:]); !ok || r.status < 200 || r.status == 204 || r.status == 304 {
		return 0, false
	}
	length = -1
	for _, rest, _ := bytes.Cut(head, headEnd[:2]); len(rest) > 2; {
		var line []byte
		line, rest, _ = bytes.Cut(rest, headEnd[:2])
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			return 0, false
		}
		name, value := line[:colon], bytes.TrimSpace(line[colon+1:])
		switch colon {
		case len("Connection"):
			if bytes.EqualFold(name, []byte("Connection")) && !bytes.EqualFold(value, []byte("keep-alive")) {
				return 0, false
			}
		case len("Retry-After"):
			if bytes.EqualFold(name, []byte("Retry-After")) {
				r.retryAfter, _ = number(value) // 0 for a date
			}
		case len("Content-Length"):
			if bytes.EqualFold(name, []byte("Content-Length")) {
				if length, ok = number(value); !ok {
					return 0, false
				}
			}
		case len("Transfer-Encoding"):
			if bytes.EqualFold(name, []byte("Transfer-Encoding")) {
				return 0, false
			}
		case len("Idempotent-Replayed"):
			if bytes.EqualFold(name, []byte("Idempotent-Replayed")) {
				r.replayed = string(value) == "true"
			}
		}
	}
	return length, length >= 0
}

func digits3(b []byte) (n int, ok bool) {
	n, ok = number(b[:3])
	return n, ok && (b[3] == ' ' || b[3] == '\r')
}

// number reads up to nine digits.
func number(b []byte) (n int, ok bool) {
	if len(b) == 0 || len(b) > 9 {
		return 0, false
	}
	for _, d := range b {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = 10*n + int(d-'0')
	}
	return n, true
}
