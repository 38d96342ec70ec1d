package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

// asked runs a query of one text in the database of the ledger.
func (o *outage) asked(query string) (text string) {
	o.t.Helper()
	require.NoError(o.t, o.pgConn().QueryRow(o.t.Context(), query).Scan(&text))
	return text
}

// pgConn is a new connection to the database of the ledger.
func (o *outage) pgConn() *pgx.Conn {
	o.t.Helper()
	c, err := pgx.Connect(o.t.Context(), o.dsn)
	require.NoError(o.t, err)
	o.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// shardIs tells whether a gateway's reconciler says that the sale's shard is in a state.
func shardIs(g *world, state string) bool {
	_, text := g.get("/metrics")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "flashgate_reconciler_state{") && strings.Contains(line, `sale="demo"`) &&
			strings.Contains(line, `state="`+state+`"`) {
			return strings.HasSuffix(strings.TrimSpace(line), " 1")
		}
	}
	return false
}

// PostgreSQL is slow, then its disk is full, then it is restarted while events are drained: selling goes
// on, a confirmation that is not in the ledger is 202, and in the end everything is there.
func TestLedgerSlowFullAndRestarted(t *testing.T) {
	o := newOutage(t, "confirm: {wait_ms: 500}\n")
	o.growLedger()
	var waiting []string
	rec := o.shop(5*time.Second, func() {
		time.Sleep(500 * time.Millisecond)
		o.toLedger.Delay(150 * time.Millisecond)
		for _, g := range o.gateways {
			id := o.newID()
			a := o.hold(g, id)
			require.Equal(t, http.StatusCreated, a.status, a)
			a = o.confirm(g, id)
			require.Contains(t, []int{http.StatusOK, http.StatusAccepted}, a.status, a)
			waiting = append(waiting, id)
		}
		o.toLedger.Heal()

		free := o.fillDisk()
		o.until(5*time.Second, "a confirmation waits", func() bool {
			id := o.newID()
			a := o.hold(o.gateways[0], id)
			require.Equal(t, http.StatusCreated, a.status, a)
			a = o.confirm(o.gateways[0], id)
			waiting = append(waiting, id)
			return a.status == http.StatusAccepted
		})
		o.until(5*time.Second, "a reconciler says that it fails", func() bool {
			return shardIs(o.gateways[0], "failing") || shardIs(o.gateways[1], "failing")
		})
		free()

		for range 2 {
			time.Sleep(300 * time.Millisecond)
			o.pg.Restart()
		}
	})
	o.confirmed(waiting...)
	for _, id := range waiting {
		require.Equal(t, 1, o.count(sale.EventConfirmed, id), id)
	}
	o.intact(rec, 0)
}

// growLedger makes the ledger's table large with rows that are never committed, and leaves them there.
// Nobody may write to it meanwhile: PostgreSQL would make room for all who wait.
func (o *outage) growLedger() {
	o.t.Helper()
	c := o.pgConn()
	_, err := c.Exec(o.t.Context(), `ALTER SYSTEM SET autovacuum = off`)
	require.NoError(o.t, err)
	o.asked(`SELECT pg_reload_conf()::text`)
	tx, err := c.Begin(o.t.Context())
	require.NoError(o.t, err)
	_, err = tx.Exec(o.t.Context(), `INSERT INTO ledger
		SELECT (jsonb_populate_record(one.l, jsonb_build_object('sale', 'filler', 'seq', n))).*
		FROM (SELECT l FROM ledger l LIMIT 1) one, generate_series(1, 8000) n`)
	require.NoError(o.t, err)
	require.NoError(o.t, tx.Rollback(o.t.Context()))
}

// fillDisk forbids PostgreSQL to extend a file beyond what the ledger's table has now, and returns what ends
// that. The table is large and a segment of the log new, so that it is the table that cannot grow. A server
// that gave up meanwhile is started again, as its operator would.
func (o *outage) fillDisk() (free func()) {
	o.t.Helper()
	o.asked(`SELECT pg_switch_wal()::text`)
	size := o.asked(`SELECT pg_relation_size('ledger')::text`)

	info, err := os.Stat(o.asked(`SHOW data_directory`))
	require.NoError(o.t, err)
	is := info.Sys().(*syscall.Stat_t)
	owner := &syscall.Credential{Uid: is.Uid, Gid: is.Gid, NoSetGroups: true}
	limit := func(pid, bytes string) error {
		// The hard limit stays, so that no right is needed to go back.
		cmd := exec.CommandContext(o.t.Context(), "prlimit", "--pid", pid, "--fsize="+bytes+":")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner}
		return cmd.Run()
	}
	limitAll := func(bytes string) error {
		pid := strconv.Itoa(o.pg.PID())
		if err := limit(pid, bytes); err != nil {
			return fmt.Errorf("prlimit, of util-linux, of the server: %w", err)
		}
		// Whoever it makes from now on has its limit.
		children, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
		for _, id := range strings.Fields(string(children)) {
			_ = limit(id, bytes) // it may have ended
		}
		return err
	}
	require.NoError(o.t, limitAll(size))
	return func() {
		o.t.Logf("%d writes failed", strings.Count(o.pg.Log(), "File too large"))
		// The server may give up at any moment until it has room.
		o.until(30*time.Second, "PostgreSQL has room again", func() bool {
			o.pg.Start()
			return limitAll("unlimited") == nil
		})
	}
}

// PostgreSQL starts from an older copy of its data. What the stream's tail still has refills the ledger;
// where it does not the shard is frozen and says so, nothing is confirmed, and the right data ends that.
func TestLedgerLosesItsTail(t *testing.T) {
	o := newOutage(t, "confirm: {wait_ms: 300}\nreconcile: {tail_events: 30}\n")
	first := o.buy(5)
	data := o.asked(`SHOW data_directory`)
	put := func(from, to string) {
		t.Helper()
		require.NoError(t, os.RemoveAll(to))
		out, err := exec.CommandContext(t.Context(), "cp", "-Rp", from, to).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	older := data + "-older"
	t.Cleanup(func() { _ = os.RemoveAll(older) })
	o.pg.Stop()
	put(data, older)
	o.pg.Start()

	lost := o.buy(5)
	o.pg.Kill()
	put(older, data)
	o.pg.Start()
	o.confirmed(append(first, lost...)...)
	for _, id := range lost {
		require.Equal(t, 1, o.count(sale.EventConfirmed, id), "refilled from the stream's tail")
	}
	require.Zero(t, o.count(sale.EventRebuilt, ""))

	lost = o.buy(18)
	o.pg.Stop()
	newer := data + "-newer"
	t.Cleanup(func() { _ = os.RemoveAll(newer) })
	put(data, newer)
	put(older, data)
	o.pg.Start()
	var now []string
	for _, g := range o.gateways {
		id := o.newID()
		a := o.hold(g, id)
		require.Equal(t, http.StatusCreated, a.status, a)
		now = append(now, id)
	}
	o.until(10*time.Second, "the shard is frozen", func() bool {
		return shardIs(o.gateways[0], "frozen") || shardIs(o.gateways[1], "frozen")
	})
	for i, g := range o.gateways {
		for _, id := range []string{now[i], lost[i]} {
			a := o.confirm(g, id)
			require.Equal(t, http.StatusAccepted, a.status, "not in the ledger, so not confirmed: %v", a)
		}
	}

	o.pg.Stop()
	put(newer, data)
	o.pg.Start()
	o.confirmed(append(lost, now...)...)
	require.Zero(t, o.count(sale.EventRebuilt, ""))
	o.sellWithin(5 * time.Second)
	require.Contains(t, o.command("reconcile", "verify", "--sale", "demo", "--config", o.config), "demo")

	// Now the tail is gone for good, and an operator lets what Redis knows go on.
	o.pg.Stop()
	put(older, data)
	o.pg.Start()
	more := o.newID()
	a := o.hold(o.gateways[0], more)
	require.Equal(t, http.StatusCreated, a.status, a)
	o.until(10*time.Second, "the shard is frozen again", func() bool {
		return shardIs(o.gateways[0], "frozen") || shardIs(o.gateways[1], "frozen")
	})
	require.Contains(t, o.command("reconcile", "adopt", "--sale", "demo", "--dry-run", "--config", o.config), more)
	o.command("reconcile", "adopt", "--sale", "demo", "--keep", "redis", "--reason", "the tail is gone", "--config", o.config)
	o.confirmed(append(append(first, lost...), more)...)
	for _, id := range append(lost, more) {
		require.Equal(t, 1, o.count(sale.EventConfirmed, id), id)
	}
	require.Positive(t, o.count(sale.EventRebuilt, ""))
	o.sellWithin(5 * time.Second)
	require.Contains(t, o.command("reconcile", "verify", "--sale", "demo", "--config", o.config), "demo")
}

// Redis, PostgreSQL and both gateways are killed together under load and started again: with an append-only
// file nothing is lost at all.
func TestEverythingKilledAtOnce(t *testing.T) {
	o := newOutage(t, "")
	var sold []string
	rec := o.shop(3*time.Second, func() {
		time.Sleep(700 * time.Millisecond)
		sold = o.buy(5)
		var all sync.WaitGroup
		begun := time.Now()
		for _, kill := range []func(){
			o.redis.Kill, o.pg.Kill, o.gateways[0].serve.kill, o.gateways[1].serve.kill,
		} {
			all.Go(kill)
		}
		all.Wait()
		t.Logf("all gone within %v", time.Since(begun))
		o.redis.Restart()
		o.pg.Start()
		o.startGateways()
	})
	o.confirmed(sold...)
	for _, id := range sold {
		require.Equal(t, 1, o.count(sale.EventConfirmed, id))
	}
	o.intact(rec, 0)
}
