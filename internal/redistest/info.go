//go:build unix

package redistest

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// CPU is the CPU time that the main thread of a Redis has used, in seconds.
func CPU(t testing.TB, rdb redis.UniversalClient) float64 {
	t.Helper()
	return number(t, rdb, "cpu", "used_cpu_sys_main_thread") + number(t, rdb, "cpu", "used_cpu_user_main_thread")
}

// Memory is what the data and the server itself take, in bytes.
func Memory(t testing.TB, rdb redis.UniversalClient) int64 {
	t.Helper()
	return int64(number(t, rdb, "memory", "used_memory"))
}

// number is one field of INFO.
func number(t testing.TB, rdb redis.UniversalClient, section, field string) float64 {
	t.Helper()
	info, err := rdb.Info(context.Background(), section).Result()
	if err != nil {
		t.Fatalf("redistest: info %s: %v", section, err)
	}
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil {
				t.Fatalf("redistest: %s of info: %v", field, err)
			}
			return n
		}
	}
	t.Fatalf("redistest: info has no %s", field)
	return 0
}
