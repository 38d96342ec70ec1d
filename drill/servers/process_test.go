//go:build unix

package servers

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLaunch(t *testing.T) {
	p, err := Launch(exec.Command("sh", "-c", "echo ready; exec sleep 60"), syscall.SIGKILL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Signal(syscall.SIGKILL) })
	require.True(t, p.Running())
	group, err := syscall.Getpgid(p.PID())
	require.NoError(t, err)
	require.Equal(t, p.PID(), group)
	require.Eventually(t, func() bool { return p.Log() == "ready\n" }, 5*time.Second, time.Millisecond)

	require.NoError(t, p.Signal(syscall.SIGTERM))
	select {
	case <-p.Ended():
	case <-time.After(5 * time.Second):
		require.Fail(t, "SIGTERM does not end it")
	}
	require.False(t, p.Running())
	require.ErrorIs(t, p.Signal(syscall.SIGTERM), os.ErrProcessDone)
	require.ErrorIs(t, syscall.Kill(p.PID(), 0), syscall.ESRCH)
}

func TestLaunchOfNothing(t *testing.T) {
	_, err := Launch(exec.Command(t.TempDir()+"/none"), syscall.SIGKILL)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestHeadKeepsTheFirstBytes(t *testing.T) {
	var h head
	for _, s := range []string{"first", strings.Repeat("x", maxLog), "last"} {
		n, err := h.Write([]byte(s))
		require.NoError(t, err)
		require.Equal(t, len(s), n)
	}
	require.Len(t, h.String(), maxLog)
	require.True(t, strings.HasPrefix(h.String(), "firstx"))
}

// A port is not one that the system gives to a connection before the server has it.
func TestFreePort(t *testing.T) {
	for range 50 {
		port, err := FreePort()
		require.NoError(t, err)
		require.GreaterOrEqual(t, port, firstPort)
		require.Less(t, port, firstPort+ports)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
}
