package queue

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// A room was looked after before it knew its sale: once in many runs the gateway died of it.
func TestARoomKnowsItsSaleBeforeAnybodyLooksAfterIt(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	t.Cleanup(func() { _ = rdb.Close() })
	rooms := NewRooms(Options{Store: lua.New(rdb, lua.Options{})})
	started := 0
	rooms.start = func(room *Room) {
		started++
		require.NotNil(t, room.current.Load())
	}
	v := sale.Version{Sale: "drop", Version: 1, CreatedAt: sale.Moment(time.Now().UnixMilli())}
	v.Config.Queue = &sale.Queue{WaitingRoom: &sale.WaitingRoom{Enabled: true, AdmitPerSecond: 1, AdmissionSeconds: 60}}
	require.NotNil(t, rooms.Of(&v))
	require.Equal(t, 1, started)
}
