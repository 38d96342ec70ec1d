package faultproxy

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// echo answers every line with its name and the line.
func echo(t *testing.T, name string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); {
					fmt.Fprintf(c, "%s %s\n", name, in.Text())
				}
			}()
		}
	}()
	return l.Addr().String()
}

type caller struct {
	net.Conn
	in *bufio.Reader
}

func call(t *testing.T, p *Proxy) *caller {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	return &caller{c, bufio.NewReader(c)}
}

func (c *caller) ask(line string) (string, error) {
	fmt.Fprintln(c, line)
	return c.in.ReadString('\n')
}

func TestFaults(t *testing.T) {
	p, err := Start(t.Context(), echo(t, "one"))
	require.NoError(t, err)
	t.Cleanup(p.Close)

	c := call(t, p)
	answer, err := c.ask("a")
	require.NoError(t, err)
	require.Equal(t, "one a\n", answer)

	p.LoseReplies()
	_, err = c.ask("b")
	require.Error(t, err)
	require.EqualValues(t, 1, p.Lost())

	p.Heal()
	c = call(t, p)
	_, err = c.ask("c")
	require.NoError(t, err)
	p.Delay(50 * time.Millisecond)
	began := time.Now()
	_, err = c.ask("d")
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(began), 50*time.Millisecond)
	p.Heal()

	p.MoveTo(echo(t, "two"))
	_, err = c.ask("e")
	require.Error(t, err, "a connection to the old server is cut")
	answer, err = call(t, p).ask("f")
	require.NoError(t, err)
	require.Equal(t, "two f\n", answer)
}

func TestCloseEndsWhatIsOpen(t *testing.T) {
	p, err := Start(t.Context(), echo(t, "one"))
	require.NoError(t, err)
	c := call(t, p)
	_, err = c.ask("a")
	require.NoError(t, err)
	p.Delay(time.Hour)
	fmt.Fprintln(c, "b")
	p.Close()
	_, err = c.in.ReadString('\n')
	require.Error(t, err)
}
