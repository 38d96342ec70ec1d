//go:build unix

package servers

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNoServers guards that what is missing is named with how to get it.
func TestNoServers(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := StartRedis(t.Context(), t.TempDir())
	var missing MissingError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, "redis-server", missing.Program)
	require.Contains(t, missing.Error(), "apt-get install redis-server")
}

// TestStartGivesUp guards that a start can be called off.
func TestStartGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := StartRedis(ctx, t.TempDir())
	require.Error(t, err)
}
