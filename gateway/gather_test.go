package gateway

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func unguarded(ctx context.Context, call func(context.Context) error) error { return call(ctx) }

// What waits while a call is in flight goes together in the next one, and everybody gets the answer
// to their own question.
func TestGathererAsksForAllWhoWait(t *testing.T) {
	var calls atomic.Int64
	begun, goOn := make(chan struct{}), make(chan struct{})
	g := newGatherer(1000, unguarded, func(_ context.Context, saleID string, q []int) ([]int, error) {
		if calls.Add(1) == 1 {
			close(begun)
			<-goOn
		}
		require.Equal(t, "s", saleID)
		a := make([]int, len(q))
		for i, n := range q {
			a[i] = 2 * n
		}
		return a, nil
	})
	var work sync.WaitGroup
	ask := func(n int) {
		work.Go(func() {
			a, err := g.do(t.Context(), "s", n)
			require.NoError(t, err)
			require.Equal(t, 2*n, a)
		})
	}
	ask(0)
	<-begun
	for n := range 300 {
		ask(n)
	}
	for {
		g.mu.Lock()
		n := g.waiting["s"].waiting
		g.mu.Unlock()
		if n == 300 {
			break
		}
	}
	close(goOn)
	work.Wait()
	require.EqualValues(t, 3, calls.Load(), "300 questions are two calls of at most 256")
	g.close()
	require.Empty(t, g.waiting)
}

func TestGathererRefusesWhatItCannotAnswer(t *testing.T) {
	broken := errors.New("broken")
	fail := newGatherer(1, unguarded, func(context.Context, string, []int) ([]int, error) { return nil, broken })
	_, err := fail.do(t.Context(), "s", 1)
	require.ErrorIs(t, err, broken)

	short := newGatherer(1, unguarded, func(context.Context, string, []int) ([]int, error) { return nil, nil })
	_, err = short.do(t.Context(), "s", 1)
	require.ErrorIs(t, err, errUnavailable)

	panics := newGatherer(1, unguarded, func(context.Context, string, []int) ([]int, error) { panic("oh") })
	_, err = panics.do(t.Context(), "s", 1)
	require.ErrorIs(t, err, errUnavailable)

	begun, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	full := newGatherer(1, unguarded, func(_ context.Context, _ string, q []int) ([]int, error) {
		once.Do(func() { close(begun) })
		<-goOn
		return q, nil
	})
	var work sync.WaitGroup
	work.Go(func() { _, _ = full.do(context.Background(), "s", 1) })
	<-begun
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = full.do(gone, "s", 2)
	require.ErrorIs(t, err, context.Canceled)
	_, err = full.do(t.Context(), "s", 3)
	require.ErrorIs(t, err, errOverloaded)
	close(goOn)
	work.Wait()
}
