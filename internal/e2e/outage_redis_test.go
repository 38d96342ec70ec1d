package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/loadtest"
	"flashgate/sale"
)

// Redis starts from an older copy of its data under load: the sale is rebuilt from the ledger, and
// what was sold since the copy is neither lost nor sold again.
func TestRedisRestartedFromAnOlderCopy(t *testing.T) {
	o := newOutage(t, "")
	before := o.buy(3)
	copied := filepath.Join(t.TempDir(), "copy")
	var since []string
	var noted func(*loadtest.Recording)
	rec := o.shop(3*time.Second, func() {
		time.Sleep(800 * time.Millisecond)
		require.NoError(t, os.CopyFS(copied, os.DirFS(o.redis.Dir())))
		since = o.buy(5)
		time.Sleep(500 * time.Millisecond)
		noted = losing(func() {
			o.redis.Kill()
			require.NoError(t, os.RemoveAll(filepath.Join(o.redis.Dir(), "appendonlydir")))
			require.NoError(t, os.CopyFS(o.redis.Dir(), os.DirFS(copied)))
			o.redis.Restart()
			o.until(5*time.Second, "the shard is rebuilt", func() bool { return o.count(sale.EventRebuilt, "") == 1 })
		})
		o.sellWithin(5 * time.Second)
	})
	noted(rec)
	for _, id := range append(before, since...) {
		a := o.confirm(o.gateways[1], id)
		require.Equal(t, http.StatusOK, a.status, a)
		require.True(t, a.replayed, a)
		require.Equal(t, 1, o.count(sale.EventConfirmed, id))
	}
	o.intact(rec, 1)
}

const briefSale = `sale: limited
opens_at: now
closes_at: now+24h
hold_seconds: 5
items: [{sku: A, stock: [{location: main, on_hand: 1}]}]
`

// Redis is full under load and evicts nothing: reserves are refused, confirm, release and expire go on to
// the ledger, and all goes on once there is memory.
func TestRedisFullUnderLoad(t *testing.T) {
	o := newOutage(t, "")
	o.apply(briefSale)
	rdb := o.redis.Client()
	limit := func(bytes string) {
		t.Helper()
		require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory", bytes).Err())
	}
	require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
	ids := []string{o.newID(), o.newID()}
	for i, id := range ids {
		a := o.hold(o.gateways[i], id)
		require.Equal(t, http.StatusCreated, a.status, a)
	}
	rec := o.shop(4*time.Second, func() {
		time.Sleep(300 * time.Millisecond)
		status, _, text := o.reserve("brief-0001", "one")
		require.Equal(t, http.StatusCreated, status, text)
		limit("1")
		for _, g := range o.gateways {
			a := o.hold(g, o.newID())
			require.True(t, a.unavailable(), a)
		}
		o.confirmed(ids[0])
		a := o.ask(o.gateways[1], "release", fmt.Sprintf(`{"sale":"demo","reservation_id":%q}`, ids[1]))
		require.Equal(t, http.StatusOK, a.status, a)
		o.until(10*time.Second, "the hold ends in the ledger", func() bool {
			entries, err := o.books.Events(t.Context(), shardOf("limited"), 0, 10)
			return err == nil && entries[len(entries)-1].Type == sale.EventExpired
		})
		require.Equal(t, 1, o.count(sale.EventReleased, ids[1]))
		limit("0")
		o.sellWithin(5 * time.Second)
		status, _, text = o.reserve("brief-0002", "two")
		require.Equal(t, http.StatusCreated, status, text)
	})
	o.intact(rec, 0)
}

// Redis refuses, hangs or answers late, under load: reserves are answered 503, soon without asking it, and
// the gateways come back by themselves. Nothing was lost, so nothing is rebuilt, and the id of a reserve
// whose outcome was unknown finds what became of it.
func TestRedisRefusesHangsOrIsLate(t *testing.T) {
	o := newOutage(t, "")
	rdb := o.redis.Client()
	replicaOf := func(host, port string) {
		t.Helper()
		require.NoError(t, rdb.Do(t.Context(), "REPLICAOF", host, port).Err())
	}
	loading := refusingRedis(t, "LOADING Redis is loading the dataset in memory")
	faults := []struct {
		name         string
		inject, heal func()
	}{
		{"read-only", func() { replicaOf("127.0.0.1", "1") }, func() { replicaOf("NO", "ONE") }},
		{"loading", func() { o.toRedis.MoveTo(loading) }, func() { o.toRedis.MoveTo(o.redis.Addr()) }},
		{"silent", o.redis.Pause, o.redis.Resume},
		{"late", func() { o.toRedis.Delay(700 * time.Millisecond) }, o.toRedis.Heal},
	}
	var unknown []string
	rec := o.shop(6*time.Second, func() {
		o.toRedis.Delay(100 * time.Millisecond)
		for i, id := range []string{o.newID(), o.newID()} {
			a := o.hold(o.gateways[i], id)
			require.Equal(t, http.StatusCreated, a.status, "slow is not away: %v", a)
			o.confirmed(id)
		}
		o.toRedis.Heal()
		for _, f := range faults {
			f.inject()
			for _, g := range o.gateways {
				var a answer
				o.until(5*time.Second, f.name+": reserve is refused", func() bool {
					id := o.newID()
					unknown = append(unknown, id)
					a = o.hold(g, id)
					return a.status != http.StatusCreated
				})
				require.True(t, a.unavailable(), "%s: %v", f.name, a)
				// The timeout of a call is 500 ms: this one did not ask.
				o.until(10*time.Second, f.name+": the breaker answers", func() bool {
					id := o.newID()
					unknown = append(unknown, id)
					a = o.hold(g, id)
					require.True(t, a.unavailable(), "%s: %v", f.name, a)
					return a.took < 200*time.Millisecond
				})
			}
			f.heal()
			o.sellWithin(5 * time.Second)
		}
	})
	replays := 0
	for i, id := range unknown {
		a := o.hold(o.gateways[i%2], id)
		require.Equal(t, http.StatusCreated, a.status, a)
		if a.replayed {
			replays++
		}
		o.confirmed(id)
		require.Equal(t, 1, o.count(sale.EventHeld, id), id)
	}
	require.Positive(t, replays, "no reserve had an effect whose reply was late")
	o.intact(rec, 0)
}

// refusingRedis listens as a Redis that answers every command with one error.
func refusingRedis(t *testing.T, text string) (addr string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var all sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = c.Close() }()
				for r := bufio.NewReader(c); readCommand(r) == nil; {
					if _, err := fmt.Fprintf(c, "-%s\r\n", text); err != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// readCommand reads past one command: *N, and N times $length with the bytes.
func readCommand(r *bufio.Reader) error {
	number := func() (int64, error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.ParseInt(strings.TrimSpace(line[1:]), 10, 64)
	}
	n, err := number()
	for ; err == nil && n > 0; n-- {
		var length int64
		if length, err = number(); err == nil {
			_, err = io.CopyN(io.Discard, r, length+2)
		}
	}
	return err
}
