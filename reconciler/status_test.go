package reconciler

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Status says what a worker would, from a process that drains nothing.
func TestStatus(t *testing.T) {
	r := newRig(t, ownRedis(t))
	r.put(config())
	outside := r.make("outside")
	status := func() ShardStatus {
		t.Helper()
		all, err := outside.Status(t.Context())
		require.NoError(t, err)
		require.Len(t, all, 1)
		require.Equal(t, "drop", all[0].Sale)
		return all[0]
	}
	stop := r.start("creator")
	r.settled()
	stop()
	require.Equal(t, StatusOpen, status().State)
	require.Nil(t, status().Verified)

	r.hold()
	r.hold()
	require.Eventually(t, func() bool { return status().LagSeconds > 0.02 }, 5*time.Second, 5*time.Millisecond,
		"the oldest event grows older, whatever happens after it")
	at := status()
	require.Equal(t, StatusDraining, at.State)
	require.EqualValues(t, 2, at.LagEvents)
	require.Equal(t, at.Seq+2, at.RedisSeq)
	r.drainAll()
	at = status()
	require.Equal(t, StatusOpen, at.State)
	require.Zero(t, at.LagEvents)
	require.Zero(t, at.LagSeconds)

	good, err := outside.Verify(t.Context(), "drop")
	require.NoError(t, err)
	require.True(t, good.Good())
	require.Equal(t, &Verified{AtMs: good.AtMs, State: VerifiedOpen, Seq: good.Seq, GoodAtMs: good.AtMs}, status().Verified)
	require.NoError(t, r.rdb.HSet(r.ctx, "fg:{drop:0}:1:customers", "forged", "AIR=5").Err())
	bad, err := outside.Verify(t.Context(), "drop")
	require.NoError(t, err)
	require.False(t, bad.Good())
	v := status().Verified
	require.Equal(t, bad.AtMs, v.AtMs)
	require.Equal(t, 1, v.Differences)
	require.Equal(t, good.AtMs, v.GoodAtMs, "the last good one stays")

	_, err = r.gate.Close(r.ctx, "", "by hand")
	require.NoError(t, err)
	at = status()
	require.Equal(t, StatusRecovering, at.State)
	require.Equal(t, reasonClosed, at.Reason)
	require.Contains(t, at.Detail, "by hand")
	require.NoError(t, r.rdb.FlushDB(r.ctx).Err())
	require.Equal(t, reasonMissing, status().Reason)
}
