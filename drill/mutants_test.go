//go:build unix

package drill

import (
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// drilled runs the command that an operator has, for a few rounds of so many faults, and returns the result and
// the exit code.
func drilled(t *testing.T, program, rounds, each, faults string) (*Result, int, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "drill", "--seed", "1", "--rounds", rounds, "--each", each,
		"--faults", faults, "--settle", "10s", "--report", "", "--json")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, 0, err
	}
	res := &Result{}
	if err := json.Unmarshal(out, res); err != nil {
		return nil, 0, errors.Join(err, errors.New(said.String()))
	}
	return res, cmd.ProcessState.ExitCode(), nil
}

// mutants break one rule each. The fault comes at the moment at which that rule decides, and the promise is
// what a customer would lose by it.
var mutants = map[string]struct {
	fault   string
	promise int
}{
	"flashgate_broken_marks":   {"redis-fork", 2},
	"flashgate_broken_durable": {"redis-fork", 5},
	"flashgate_broken_trim":    {"pg-refuse", 3},
	"flashgate_broken_rebuild": {"redis-flush-rebuild", 1},
}

// A drill that cannot fail proves nothing: a program that breaks one rule of recovery is found, by the fault
// for it and under the promise, within three rounds; the program itself passes the same.
func TestAProgramThatBreaksARuleIsFound(t *testing.T) {
	dir := t.TempDir()
	var built errgroup.Group
	built.SetLimit(2)
	for tag := range mutants {
		built.Go(func() error {
			out, err := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-tags", tag,
				"-o", filepath.Join(dir, tag), "flashgate/cmd/flashgate").CombinedOutput()
			if err != nil {
				return errors.Join(err, errors.New(string(out)))
			}
			return nil
		})
	}
	require.NoError(t, built.Wait())
	t.Run("side by side", func(t *testing.T) {
		for tag, m := range mutants {
			t.Run(tag, func(t *testing.T) {
				t.Parallel()
				res, code, err := drilled(t, filepath.Join(dir, tag), "3", "1", m.fault)
				require.NoError(t, err)
				require.Equal(t, 1, code, "%s was not found by %s", tag, m.fault)
				require.False(t, res.Promises[m.promise-1].Kept, "%+v\n%+v", res.Promises, res.Checks)
				t.Logf("in round %d: %v", res.Rounds, res.Promises[m.promise-1].Examples[0])
			})
		}
		t.Run("none", func(t *testing.T) {
			t.Parallel()
			res, code, err := drilled(t, binary, "1", "3", "redis-fork,pg-refuse,redis-flush-rebuild")
			require.NoError(t, err)
			require.Zero(t, code, "%+v\n%+v", res.Promises, res.Checks)
			require.Len(t, res.Faults, 3)
		})
	})
}
