package gateway

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"flashgate/drill/servers"
	"flashgate/internal/pgtest"
	"flashgate/internal/redistest"
	"flashgate/ledger"
	"flashgate/ledger/postgres"
	"flashgate/lua"
)

// drainer is the reconciler of a measurement: flashgate reconcile with its defaults, a process of its own, and a
// PostgreSQL that lives as long as the measurement.
type drainer struct {
	b       *testing.B
	redis   *redistest.Server
	rdb     redis.UniversalClient
	pg      *pgtest.Server
	dsn     string
	books   *postgres.Ledger
	shard   *lua.Shard
	process *servers.Process
}

func newDrainer(b *testing.B, r *redistest.Server, rdb redis.UniversalClient) *drainer {
	d := &drainer{b: b, redis: r, rdb: rdb, pg: pgtest.NewServer(b), shard: lua.New(rdb, lua.Options{}).Shard("bench", 0)}
	d.dsn = d.pg.DSN(d.pg.Database())
	var err error
	d.books, err = postgres.Open(b.Context(), d.dsn, postgres.Options{})
	require.NoError(b, err)
	return d
}

// flashgateProgram is built once for all measurements.
var flashgateProgram string

func buildProgram(b *testing.B) {
	flashgateProgram = filepath.Join(b.TempDir(), "flashgate")
	out, err := exec.Command("go", "build", "-o", flashgateProgram, "flashgate/cmd/flashgate").CombinedOutput()
	require.NoError(b, err, string(out))
}

// start returns when the reconciler has made the sale in Redis.
func (d *drainer) start() {
	cmd := exec.Command(flashgateProgram, "reconcile", "--redis", d.redis.URL(), "--ledger", d.dsn)
	cmd.Dir = d.b.TempDir()
	cmd.Env = []string{"FLASHGATE_LOG_LEVEL=warn"} // and none of what the benchmark is told
	var err error
	d.process, err = servers.Launch(cmd, syscall.SIGKILL)
	require.NoError(d.b, err)
	d.until("the sale is in Redis", func(l lua.Look) bool { return l.Open && l.Seq > 0 && l.Watermark == l.Seq })
}

// until looks for at most two minutes.
func (d *drainer) until(what string, ok func(lua.Look) bool) {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end) && d.process.Running(); time.Sleep(5 * time.Millisecond) {
		l, err := d.look()
		require.NoError(d.b, err)
		if ok(l) {
			return
		}
	}
	d.b.Fatalf("the reconciler ended, or not within two minutes: %s\n%s", what, d.process.Log())
}

// look has the oldest event that is not known to be in the ledger.
func (d *drainer) look() (lua.Look, error) {
	l, err := d.shard.Look(d.b.Context(), 1, 0, 1)
	if err != nil || l.Watermark == 0 {
		return l, err
	}
	return d.shard.Look(d.b.Context(), 1, l.Watermark, 1)
}

// drained is how the reconciler kept up with a measurement. waiting are the events that were not known to be in
// the ledger after a third of it, after two, and at its end, lagMs the most that the oldest of them was old,
// drainMs how long after the end the ledger had everything. CPU is in seconds.
type drained struct {
	waiting                     [3]int64
	lagMs, drainMs              float64
	redis, reconciler, postgres float64
}

// watch looks twenty times a second while a measurement lasts. The returned function waits until the ledger has
// everything.
func (d *drainer) watch(lasts time.Duration) (end func() drained) {
	var seen drained
	redisBefore, reconcilerBefore, pgBefore := d.cpu()
	stop, stopped := make(chan struct{}), make(chan error, 1)
	note := func(n int) error {
		l, err := d.look()
		if err == nil && len(l.Events) > 0 {
			e, err := l.Events[0].Parse("", 0)
			if err != nil {
				return err
			}
			seen.lagMs = max(seen.lagMs, float64(l.NowMs-e.AtMs))
		}
		seen.waiting[n] = l.Seq - l.Watermark
		return err
	}
	go func() {
		for begun := time.Now(); ; {
			if err := note(min(int(3*time.Since(begun)/lasts), 2)); err != nil {
				stopped <- err
				return
			}
			select {
			case <-stop:
				stopped <- nil
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() drained {
		close(stop)
		require.NoError(d.b, <-stopped)
		ended := time.Now()
		require.NoError(d.b, note(2))
		d.until("the ledger has everything", func(l lua.Look) bool { return l.Watermark == l.Seq })
		seen.drainMs = float64(time.Since(ended).Microseconds()) / 1000
		head, err := d.books.Head(d.b.Context(), ledger.Shard{Sale: "bench"})
		require.NoError(d.b, err)
		last, err := d.look()
		require.NoError(d.b, err)
		require.Equal(d.b, last.Seq, head.Seq)
		require.Equal(d.b, last.Mark, head.Mark)
		redisAfter, reconcilerAfter, pgAfter := d.cpu()
		seen.redis, seen.reconciler, seen.postgres = redisAfter-redisBefore, reconcilerAfter-reconcilerBefore, pgAfter-pgBefore
		return seen
	}
}

func (d *drainer) cpu() (inRedis, inReconciler, inPostgres float64) {
	return redistest.CPU(d.b, d.rdb), servers.CPU(d.process.PID()), d.pg.CPU()
}

// end leaves nothing that would work beside the next measurement.
func (d *drainer) end() {
	require.NoError(d.b, d.process.Signal(syscall.SIGTERM))
	select {
	case <-d.process.Ended():
	case <-time.After(30 * time.Second):
		_ = d.process.Signal(syscall.SIGKILL)
		<-d.process.Ended()
		d.b.Fatalf("the reconciler did not end:\n%s", d.process.Log())
	}
	require.NoError(d.b, d.books.Close())
	d.pg.Stop()
}

// report says how the ledger kept up in the measurement that counts.
func (d drained) report(b *testing.B) {
	b.ReportMetric(float64(d.waiting[0]), "waiting-1/3")
	b.ReportMetric(float64(d.waiting[1]), "waiting-2/3")
	b.ReportMetric(float64(d.waiting[2]), "waiting-end")
	b.ReportMetric(d.lagMs, "lag-max-ms")
	b.ReportMetric(d.drainMs, "drained-after-ms")
}
