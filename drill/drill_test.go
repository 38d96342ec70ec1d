//go:build unix

package drill

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/drill/servers"
	"flashgate/ledger"
	"flashgate/loadtest"
	"flashgate/sale"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "flashgate-drill-test")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "flashgate")
	build := exec.Command("go", "build", "-o", binary, "flashgate/cmd/flashgate")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build of cmd/flashgate failed:", err)
		_ = os.RemoveAll(dir)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// alone gives the drill a temporary folder of its own, and requires at the end that nothing is left
// of it: no process, no file.
func alone(t *testing.T) {
	t.Helper()
	// The folder of the test is closed to who runs PostgreSQL.
	dir, err := os.MkdirTemp("", "flashgate-drill-alone") //nolint:usetesting // see above
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		defer func() { _ = os.RemoveAll(dir) }()
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left, "files are left")
		require.Empty(t, children(t), "processes are left")
	})
}

// children are the processes that this one started, and all in whose command line its folder is.
func children(t *testing.T) (found []string) {
	t.Helper()
	out, err := exec.Command("ps", "-A", "-o", "ppid=,pid=,args=").Output()
	require.NoError(t, err)
	us := strconv.Itoa(os.Getpid())
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		ours := len(f) > 2 && f[0] == us || strings.Contains(line, os.Getenv("TMPDIR"))
		if ours && f[2] != "ps" && f[1] != us && !strings.HasPrefix(f[2], "[") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// Two rounds in which every fault strikes: nothing breaks, and the program says what it did.
func TestEveryFaultAndNothingBreaks(t *testing.T) {
	alone(t)
	seed, err := strconv.ParseUint(os.Getenv("FLASHGATE_TEST_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano() % 1_000_000)
	}
	t.Log("FLASHGATE_TEST_SEED:", seed)
	res, err := Run(t.Context(), Options{
		Binary: binary, Seed: seed, Rounds: 2, PerRound: 7, Duration: 6 * time.Second, Shoppers: 200,
		Progress: func(line string) { t.Log(line) },
	})
	require.NoError(t, err)
	var text, page strings.Builder
	require.NoError(t, res.WriteText(&text))
	require.NoError(t, res.WriteReport(&page))
	t.Log(text.String())
	require.True(t, res.Kept, "%v", res.Logs)
	for _, name := range FaultNames() {
		row := res.row(name)
		require.Positive(t, row.Times, name)
		require.Zero(t, row.Oversold, name)
		require.Zero(t, row.Leaked, name)
		require.Contains(t, page.String(), name)
	}
	require.Contains(t, page.String(), "<svg")
	require.NotContains(t, page.String(), "://", "the report needs something else than itself")
	for _, v := range res.Promises[:6] {
		require.True(t, v.Tried, v.Title)
	}
	for _, round := range res.Round {
		require.Greater(t, round.Calls, 500)
	}
}

// damaged is a ledger of which somebody changed the crowd's chain, and made it look right.
type damaged struct {
	loadtest.Chain
	sale   string
	change func([]ledger.Entry) []ledger.Entry
}

func (d damaged) Events(ctx context.Context, s ledger.Shard, after int64, limit int) ([]ledger.Entry, error) {
	if s.Sale != d.sale {
		return d.Chain.Events(ctx, s, after, limit)
	}
	all, err := readAll(ctx, d.Chain, s.Sale)
	if err != nil {
		return nil, err
	}
	all = d.change(all)
	before := ledger.Entry{}
	for i := range all {
		e := &all[i]
		e.Seq, e.Prev, e.Mark = before.Seq+1, before.Mark, strconv.Itoa(i)
		e.Hash = e.Event.Hash(before.Hash)
		before = *e
	}
	all = all[min(int(after), len(all)):]
	return all[:min(limit, len(all))], nil
}

// An audit that cannot fail proves nothing: it keeps quiet about what is right, and names each damage
// under the promise that it breaks.
func TestTheAuditNoticesDamage(t *testing.T) {
	alone(t)
	o := Options{Binary: binary, Seed: 1, Rounds: 1, Shoppers: 150, Duration: 1500 * time.Millisecond}
	require.NoError(t, o.setDefaults())
	w, err := newWorld(t.Context(), &o)
	require.NoError(t, err)
	defer w.close()
	r := w.newRound(0, nil)
	require.NoError(t, r.run(t.Context()))
	require.NoError(t, r.rest(t.Context()))
	found, err := r.audit(t.Context(), w.ledger)
	require.NoError(t, err)
	require.True(t, found.kept(), "%+v %+v", found.verdicts, found.checks)

	o.Settle = 300 * time.Millisecond
	confirmed := func(all []ledger.Entry) int {
		for i := range all {
			if all[i].Type == sale.EventConfirmed {
				return i
			}
		}
		return -1
	}
	without := func(id string, all []ledger.Entry) (rest []ledger.Entry) {
		for i := range all {
			if all[i].Reservation != id {
				rest = append(rest, all[i])
			}
		}
		return rest
	}
	for name, c := range map[string]struct {
		promise int
		change  func(all []ledger.Entry) []ledger.Entry
	}{
		"a unit confirmed twice": {2, func(all []ledger.Entry) []ledger.Entry {
			return append(all, all[confirmed(all)])
		}},
		"a confirmation that was 200 and is gone": {5, func(all []ledger.Entry) []ledger.Entry {
			n := confirmed(all)
			return append(all[:n:n], all[n+1:]...)
		}},
		"a hold that is gone, though nothing was lost": {3, func(all []ledger.Entry) []ledger.Entry {
			for i := range all {
				if all[i].Type == sale.EventReleased {
					return without(all[i].Reservation, all)
				}
			}
			return all
		}},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := r.audit(t.Context(), damaged{w.ledger, r.crowd.config.Sale, c.change})
			require.NoError(t, err)
			require.False(t, found.verdicts[c.promise-1].Kept, "%+v", found.verdicts)
			require.False(t, found.kept())
		})
	}
	t.Run("a unit without an admission", func(t *testing.T) {
		answers := r.room.rec.Answers
		i := slices.IndexFunc(answers, func(a loadtest.Answer) bool {
			return a.Verb == loadtest.Reserve && a.Kind == loadtest.Bot
		})
		require.NotEqual(t, -1, i, "no bot came")
		require.Equal(t, wordKept, r.roomCheck().Word)
		was := answers[i].Status
		answers[i].Status = 201
		require.Equal(t, wordBroken, r.roomCheck().Word)
		answers[i].Status = was
	})
	t.Run("somebody who waits for plenty", func(t *testing.T) {
		n, err := r.waiting(t.Context(), w.ledger)
		require.NoError(t, err)
		require.Zero(t, n)
		n, err = r.waiting(t.Context(), damaged{w.ledger, r.list.config.Sale, func(all []ledger.Entry) []ledger.Entry {
			e := all[len(all)-1]
			e.Type, e.Reservation, e.Customer, e.Data = sale.EventWaitlisted, "forgotten", "c", `{"fp":"f"}`
			e.Lines = []sale.Line{{SKU: "LIKED", Qty: 1}}
			return append(all, e)
		}})
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
	})
	for name, damage := range map[string]string{
		"sold twice in a projection": `UPDATE stock_levels SET sold = sold + 1 WHERE sku = 'PLENTY'`,
		"confirmed in a projection":  `UPDATE reservations SET state = 'confirmed' WHERE state = 'expired'`,
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, w.pg.Exec(t.Context(), "t1", damage))
			found, err := r.verify(t.Context())
			require.NoError(t, err)
			require.Equal(t, wordBroken, found.Word)
			require.NotEmpty(t, found.Examples)
		})
	}
	t.Run("units that stay held", func(t *testing.T) {
		require.NoError(t, w.pg.Exec(t.Context(), "t1", `UPDATE stock_levels SET held = held + 2 WHERE sku = 'PLENTY'`))
		require.NoError(t, r.rest(t.Context()))
		require.Equal(t, wordBroken, r.restCheck().Word)
		require.Positive(t, r.leaked)
	})
}

// Whatever ends the drill, nothing is left behind.
func TestNothingIsLeftBehind(t *testing.T) {
	t.Run("Ctrl-C", func(t *testing.T) {
		alone(t)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := Run(ctx, Options{Binary: binary, Seed: 1, Progress: func(line string) {
			if strings.HasPrefix(line, "round 1") {
				require.Greater(t, len(children(t)), 5)
				time.AfterFunc(time.Second, cancel)
			}
		}})
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("panic", func(t *testing.T) {
		alone(t)
		require.Panics(t, func() {
			_, _ = Run(t.Context(), Options{Binary: binary, Seed: 1, Progress: func(line string) {
				if strings.HasPrefix(line, "round 1") {
					panic("test")
				}
			}})
		})
	})
	t.Run("another program", func(t *testing.T) {
		alone(t)
		_, err := Run(t.Context(), Options{Binary: "/bin/false", Seed: 1})
		require.ErrorContains(t, err, "flashgate key")
	})
}

func TestAMissingServerIsNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Run(t.Context(), Options{Binary: binary})
	require.ErrorAs(t, err, new(servers.MissingError))
}
