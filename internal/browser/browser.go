//go:build unix

// Package browser opens pages in a real Chromium, for tests.
package browser

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/drill/servers"
)

// Document opens an address in headless Chromium, lets its scripts run for up to 50 s of their time,
// and returns the document that they left. The test fails when there is no Chromium, or when it does
// not end within 60 s.
func Document(t testing.TB, address string) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	require.NoError(t, err, "pages are tested in Chromium: apt-get install chromium")
	//nolint:gosec,noctx // killed below; the program is found on the machine, the address is a test's own
	cmd := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--no-proxy-server", "--user-data-dir="+t.TempDir(), "--virtual-time-budget=50000", "--dump-dom", address)
	p, err := servers.Launch(cmd, syscall.SIGKILL)
	require.NoError(t, err)
	defer func() {
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL) // what is left of its group
		<-p.Ended()
		// Until the last of them has gone they write to the folder that is removed next.
		for end := time.Now().Add(time.Second); syscall.Kill(-p.PID(), 0) == nil && time.Now().Before(end); {
			<-time.After(5 * time.Millisecond)
		}
	}()
	select {
	case <-p.Ended():
	case <-time.After(60 * time.Second):
		require.FailNow(t, "Chromium did not end within 60 s", p.Log())
	}
	return p.Log()
}
