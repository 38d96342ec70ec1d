package gateway

import (
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// countedConn counts how often a deadline is set, and notes the last.
type countedConn struct {
	net.Conn
	sets int
	last time.Time
}

func (c *countedConn) SetReadDeadline(t time.Time) error {
	c.sets++
	c.last = t
	return c.Conn.SetReadDeadline(t)
}

// Requests that follow each other move the idle deadline each time, and the timer only now and then; whatever
// was wanted last ends a read in time, and at most an eighth too late.
func TestDeadlinesAreSetWhenTheyMatter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		counted := &countedConn{Conn: near}
		c := &lazyConn{Conn: counted}
		one := make([]byte, 1)
		request := func() {
			go func() { _, _ = far.Write([]byte("x")) }()
			_, err := c.Read(one)
			require.NoError(t, err)
		}
		for range 1000 {
			require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
			request()
			require.NoError(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
			time.Sleep(10 * time.Millisecond) // All of the request is there: nothing more is read.
		}
		require.LessOrEqual(t, counted.sets, 3, "ten seconds of requests")

		ends := func(within, of time.Duration) {
			t.Helper()
			began := time.Now()
			_, err := c.Read(one)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.GreaterOrEqual(t, time.Since(began), within)
			require.LessOrEqual(t, time.Since(began), within+of/slackPart)
		}
		// A request that does not come to its end has the short deadline.
		require.NoError(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
		ends(5*time.Second, 5*time.Second)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		ends(20*time.Millisecond, 20*time.Millisecond)
		// And one that trickles is not given more with every byte.
		require.NoError(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
		for range 4 {
			time.Sleep(time.Second)
			request()
		}
		ends(time.Second, 5*time.Second)
		require.NoError(t, c.SetReadDeadline(time.Time{}))
		time.Sleep(time.Hour)
		request()
		require.True(t, counted.last.IsZero())
	})
}
