package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/loadtest"
)

// A Redis that stands still for two seconds in the middle of an open load is seen in the report, and costs
// nobody anything but time.
func TestAFreezeOfRedisIsSeenInTheReport(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "freeze.html")
	cmd := exec.CommandContext(t.Context(), binary, "loadtest", "freeze", "--self", "--json", "--scale", "0.3",
		"--report", page)
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
	var r loadtest.Result
	require.NoError(t, json.Unmarshal(out, &r))
	require.True(t, r.Kept)
	require.Len(t, r.Freezes, 1)
	from, to := r.Freezes[0].AtMs/1000, r.Freezes[0].EndMs/1000
	require.GreaterOrEqual(t, to-from, int64(2))

	// Meanwhile callers were told to come again, or waited.
	troubled := func(s loadtest.Second) bool { return s.Unavailable+s.Unanswered > 0 || s.Max > 400 }
	seen := 0
	for _, s := range r.BySecond {
		if int64(s.At) >= from && int64(s.At) <= to && troubled(s) {
			seen++
		}
	}
	require.GreaterOrEqual(t, seen, 2, "%+v", r.BySecond)
	require.Positive(t, r.Freezes[0].Unserved)
	f := r.Freezes[0]
	t.Logf("not served: %d, the last %d ms after the end; recovered %d ms after it, all served %d ms after it",
		f.Unserved, f.BackMs, f.RecoveredMs, f.ClearedMs)
	require.GreaterOrEqual(t, f.ClearedMs, int64(0), "what was wanted while it lasted was served in the end")
	html, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Regexp(t, `Redis frozen from [\d.]+ s to [\d.]+ s: \d+ calls were not served`, string(html))
	require.Regexp(t, `It did not recover|Recovered \d+ ms after its end`, string(html))
	require.Contains(t, string(html), `class="strike"`)

	// In the end everybody had what they came for.
	bought := 0
	for _, k := range r.Kinds {
		require.Equal(t, k.Shoppers, k.Confirmed, "%s", k.Kind)
		bought += k.Confirmed
	}
	require.Equal(t, r.Shoppers, bought)
	last := r.BySecond[len(r.BySecond)-1]
	require.Zero(t, last.Unavailable+last.Unanswered, "%+v", last)
}
