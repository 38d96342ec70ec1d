package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/lua"
)

// fakeMarks is a ledger of one shard's marks, and an announcer.
type fakeMarks struct {
	mu         sync.Mutex
	marks      map[int64]string
	head       ledger.Head
	err        error
	beforeHead func() // between the look at the events and the look at the head
	reads      atomic.Int64
	wakes      atomic.Int64
	woken      func(ledger.Shard)
	flying     atomic.Int32
	overlap    atomic.Bool
	delay      time.Duration
	announce   chan lua.Watermark
}

func newFakeMarks() *fakeMarks {
	return &fakeMarks{marks: map[int64]string{}, announce: make(chan lua.Watermark)}
}

func (f *fakeMarks) put(epoch, seq int64, mark string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.marks[seq] = mark
	f.head.Epoch, f.head.Seq = epoch, max(f.head.Seq, seq)
}

func (f *fakeMarks) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeMarks) Marks(_ context.Context, _ ledger.Shard, seqs []int64) (map[int64]string, error) {
	if f.flying.Add(1) > 1 {
		f.overlap.Store(true)
	}
	defer f.flying.Add(-1)
	f.reads.Add(1)
	time.Sleep(f.delay)
	f.mu.Lock()
	defer f.mu.Unlock()
	found := map[int64]string{}
	for _, seq := range seqs {
		if m, ok := f.marks[seq]; ok {
			found[seq] = m
		}
	}
	return found, f.err
}

func (f *fakeMarks) Head(context.Context, ledger.Shard) (ledger.Head, error) {
	if f.beforeHead != nil {
		f.beforeHead()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.head, f.err
}

func (f *fakeMarks) Watermarks(ctx context.Context, tell func(lua.Watermark)) {
	for {
		select {
		case w := <-f.announce:
			tell(w)
		case <-ctx.Done():
			return
		}
	}
}

func (f *fakeMarks) Wake(_ context.Context, saleID string, shard int) error {
	f.wakes.Add(1)
	if f.woken != nil {
		f.woken(ledger.Shard{Sale: saleID, Number: shard})
	}
	return nil
}

// start runs a loop and returns what ends it and waits.
func start(run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { run(ctx); close(done) }()
	return func() { cancel(); <-done }
}

var drop = ledger.Shard{Sale: "drop"}

// durably runs a test in virtual time.
func durably(t *testing.T, o Options, f func(t *testing.T, l *fakeMarks, d *durability)) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeMarks()
		d := newDurability(l, l, o, newMetrics(nil))
		stop := start(d.run)
		defer stop()
		f(t, l, d)
	})
}

func TestDurableWhenTheLedgerHasTheMark(t *testing.T) {
	durably(t, Options{ConfirmPoll: time.Hour}, func(t *testing.T, l *fakeMarks, d *durability) {
		go func() {
			time.Sleep(3 * time.Millisecond)
			l.put(1, 7, "m7")
			l.announce <- lua.Watermark{Sale: "drop", Epoch: 1, Seq: 7}
		}()
		begun := time.Now()
		v, err := d.wait(t.Context(), drop, 1, 7, "m7")
		require.NoError(t, err)
		require.Equal(t, durable, v)
		require.Equal(t, 3*time.Millisecond, time.Since(begun), "as soon as it is announced")
		require.EqualValues(t, 1, l.reads.Load())

		v, _ = d.wait(t.Context(), drop, 1, 7, "m7")
		require.Equal(t, durable, v, "below the watermark it is looked up at once")
		require.Equal(t, 3*time.Millisecond, time.Since(begun))
	})
}

// The reconciler is asked to hurry once until it has come on, however many wait, and again for those who came too
// late for it.
func TestTheReconcilerIsAskedOnceUntilItHasComeOn(t *testing.T) {
	durably(t, Options{ConfirmPoll: time.Hour, ConfirmWait: time.Minute}, func(t *testing.T, l *fakeMarks, d *durability) {
		var named ledger.Shard
		l.woken = func(shard ledger.Shard) { named = shard }
		var all sync.WaitGroup
		wait := func(seq int64) {
			all.Go(func() {
				v, err := d.wait(t.Context(), drop, 1, seq, fmt.Sprint("m", seq))
				require.NoError(t, err)
				require.Equal(t, durable, v)
			})
			synctest.Wait()
		}
		reached := func(seq int64) {
			l.put(1, seq, fmt.Sprint("m", seq))
			l.announce <- lua.Watermark{Sale: "drop", Epoch: 1, Seq: seq}
			synctest.Wait()
		}
		wait(1)
		require.EqualValues(t, 1, l.wakes.Load())
		require.Equal(t, drop, named)
		wait(2)
		require.EqualValues(t, 1, l.wakes.Load(), "it is on its way")
		reached(1)
		require.EqualValues(t, 2, l.wakes.Load(), "it came before the second")
		reached(2)
		all.Wait()
		require.EqualValues(t, 2, l.wakes.Load(), "nobody waits")
		wait(2)
		require.EqualValues(t, 2, l.wakes.Load(), "the ledger has it")
		wait(3)
		require.EqualValues(t, 3, l.wakes.Load())
		reached(3)
		all.Wait()
	})
}

func TestDurableThoughTheAnnouncementIsLost(t *testing.T) {
	durably(t, Options{}, func(t *testing.T, l *fakeMarks, d *durability) {
		go func() { time.Sleep(120 * time.Millisecond); l.put(1, 7, "m7") }()
		begun := time.Now()
		v, _ := d.wait(t.Context(), drop, 1, 7, "m7")
		require.Equal(t, durable, v)
		require.Equal(t, 150*time.Millisecond, time.Since(begun), "the third poll")
	})
}

func TestAnnouncementIsOnlyAHint(t *testing.T) {
	durably(t, Options{ConfirmWait: time.Second}, func(t *testing.T, l *fakeMarks, d *durability) {
		go func() { l.announce <- lua.Watermark{Sale: "drop", Epoch: 1, Seq: 99} }()
		v, err := d.wait(t.Context(), drop, 1, 7, "m7")
		require.NoError(t, err)
		require.Equal(t, pending, v)
	})
}

func TestLostWhenTheLedgerWentOnWithoutIt(t *testing.T) {
	durably(t, Options{}, func(t *testing.T, l *fakeMarks, d *durability) {
		l.put(1, 7, "other")
		v, _ := d.wait(t.Context(), drop, 1, 7, "m7")
		require.Equal(t, lost, v, "another mark at that seq")
		v, _ = d.wait(t.Context(), drop, 1, 8, "m8")
		require.Equal(t, pending, v, "the epoch goes on")
		l.put(2, 8, "rebuilt")
		v, _ = d.wait(t.Context(), drop, 1, 9, "m9")
		require.Equal(t, lost, v, "the epoch is over")
	})
}

// Guards against a false "lost": the event and the next epoch are committed between the look at
// the events and the look at the head.
func TestNotLostWhenItCameBetweenTheLooks(t *testing.T) {
	durably(t, Options{}, func(t *testing.T, l *fakeMarks, d *durability) {
		l.beforeHead = func() { l.put(1, 7, "m7"); l.put(2, 8, "rebuilt") }
		v, _ := d.wait(t.Context(), drop, 1, 7, "m7")
		require.Equal(t, durable, v)
	})
}

func TestPendingWhenTimeIsOver(t *testing.T) {
	durably(t, Options{ConfirmWait: time.Second}, func(t *testing.T, l *fakeMarks, d *durability) {
		begun := time.Now()
		v, err := d.wait(t.Context(), drop, 1, 7, "m7")
		require.NoError(t, err)
		require.Equal(t, pending, v)
		require.Equal(t, time.Second, time.Since(begun))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		v, _ = d.wait(ctx, drop, 1, 7, "m7")
		require.Equal(t, pending, v, "or the caller's time")
		require.Empty(t, d.shards[drop].waiters)
	})
}

func TestLedgerAwayKeepsWaiting(t *testing.T) {
	durably(t, Options{ConfirmWait: time.Second}, func(t *testing.T, l *fakeMarks, d *durability) {
		away := errors.New("connection refused")
		l.fail(away)
		_, err := d.has(t.Context(), drop, 7, "m7")
		require.ErrorIs(t, err, errUnavailable)
		require.ErrorIs(t, err, away)
		v, err := d.wait(t.Context(), drop, 1, 7, "m7")
		require.NoError(t, err)
		require.Equal(t, pending, v)
		require.LessOrEqual(t, l.reads.Load(), int64(8), "asked by the poll only, and not while the breaker is open")
		_, err = d.has(t.Context(), drop, 7, "m7")
		require.ErrorIs(t, err, errUnavailable)
		go func() { time.Sleep(300 * time.Millisecond); l.put(1, 7, "m7"); l.fail(nil) }()
		v, _ = d.wait(t.Context(), drop, 1, 7, "m7")
		require.Equal(t, durable, v)
	})
}

func TestHasDoesNotWait(t *testing.T) {
	durably(t, Options{}, func(t *testing.T, l *fakeMarks, d *durability) {
		begun := time.Now()
		l.put(2, 7, "m7")
		for mark, want := range map[string]bool{"m7": true, "other": false} {
			got, err := d.has(t.Context(), drop, 7, mark)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		got, err := d.has(t.Context(), drop, 8, "m8")
		require.NoError(t, err)
		require.False(t, got)
		require.Zero(t, time.Since(begun))
	})
}

func TestWaitersShareReads(t *testing.T) {
	durably(t, Options{}, func(t *testing.T, l *fakeMarks, d *durability) {
		l.delay = 2 * time.Millisecond
		const confirms = 64 * 50
		var wg sync.WaitGroup
		var next atomic.Int64
		stop := start(func(ctx context.Context) { // A reconciler that commits every 5 ms.
			for ctx.Err() == nil {
				time.Sleep(5 * time.Millisecond)
				seq := next.Load()
				for s := max(seq-100, 1); s <= seq; s++ {
					l.put(1, s, fmt.Sprint("m", s))
				}
				if seq > 0 {
					l.announce <- lua.Watermark{Sale: "drop", Epoch: 1, Seq: seq}
				}
			}
		})
		for range 64 {
			wg.Go(func() {
				for range confirms / 64 {
					seq := next.Add(1)
					v, err := d.wait(t.Context(), drop, 1, seq, fmt.Sprint("m", seq))
					assert.NoError(t, err)
					assert.Equal(t, durable, v)
				}
			})
		}
		wg.Wait()
		stop()
		require.False(t, l.overlap.Load(), "one read at a time")
		require.Less(t, l.reads.Load(), int64(confirms/20))
		t.Logf("%d confirms, %d reads", confirms, l.reads.Load())
	})
}

func TestTooManyWaitersArePending(t *testing.T) {
	durably(t, Options{ConfirmMax: 1}, func(t *testing.T, l *fakeMarks, d *durability) {
		go func() { _, _ = d.wait(t.Context(), drop, 1, 7, "m7") }()
		synctest.Wait()
		begun := time.Now()
		v, err := d.wait(t.Context(), drop, 1, 7, "m7")
		require.NoError(t, err)
		require.Equal(t, pending, v)
		require.Zero(t, time.Since(begun))
	})
}

func TestEndLeavesNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeMarks()
		d := newDurability(l, l, Options{ConfirmWait: time.Hour}, newMetrics(nil))
		stop := start(d.run)
		var wg sync.WaitGroup
		begun := time.Now()
		wg.Go(func() {
			v, err := d.wait(t.Context(), drop, 1, 7, "m7")
			assert.NoError(t, err)
			assert.Equal(t, pending, v)
		})
		synctest.Wait()
		stop()
		wg.Wait()
		_, err := d.has(t.Context(), drop, 7, "m7")
		require.ErrorIs(t, err, errClosed)
		require.Zero(t, time.Since(begun))
	})
}

func TestShardsWithoutWaitersAreForgotten(t *testing.T) {
	durably(t, Options{}, func(t *testing.T, l *fakeMarks, d *durability) {
		for i := range 3 * shardsMemory {
			d.announced(lua.Watermark{Sale: fmt.Sprint("s", i), Epoch: 1, Seq: 1})
		}
		require.LessOrEqual(t, len(d.shards), shardsMemory)
	})
}
