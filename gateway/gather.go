package gateway

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"flashgate/lua"
)

// gatherer makes calls that answer many questions about one sale at a time: while one is in flight,
// the questions of the next one wait together. Unlike a reserver it changes no stock, so that a
// question may be asked again by whoever got no answer. It is safe for concurrent use.
type gatherer[Q, A any] struct {
	ask func(ctx context.Context, saleID string, questions []Q) ([]A, error)
	max int // questions that wait for one sale; more are errOverloaded

	running sync.WaitGroup
	spare   sync.Pool // of questions that were answered
	mu      sync.Mutex
	waiting map[string][]*question[Q, A] // there is an entry while a call of the sale is in flight
}

type question[Q, A any] struct {
	q    Q
	a    A
	err  error
	done chan struct{} // room for one
}

// newGatherer makes a gatherer whose calls go through guard, as those of a resolver.
func newGatherer[Q, A any](
	waitMax int, guard func(context.Context, func(context.Context) error) error,
	ask func(ctx context.Context, saleID string, questions []Q) ([]A, error),
) *gatherer[Q, A] {
	return &gatherer[Q, A]{
		max: waitMax, waiting: map[string][]*question[Q, A]{},
		ask: func(ctx context.Context, saleID string, questions []Q) (answers []A, err error) {
			err = guard(ctx, func(ctx context.Context) (err error) {
				answers, err = ask(ctx, saleID, questions)
				return err
			})
			if err == nil && len(answers) != len(questions) {
				err = fmt.Errorf("%w: %d answers to %d questions", errUnavailable, len(answers), len(questions))
			}
			return answers, err
		},
	}
}

// do asks one question, and waits for its answer or for ctx. The caller makes sure that the sale
// exists.
func (g *gatherer[Q, A]) do(ctx context.Context, saleID string, q Q) (a A, err error) {
	one, spare := g.spare.Get().(*question[Q, A])
	if !spare {
		one = &question[Q, A]{done: make(chan struct{}, 1)}
	}
	one.q = q
	g.mu.Lock()
	others, flying := g.waiting[saleID]
	if len(others) >= g.max {
		g.mu.Unlock()
		return a, errOverloaded
	}
	g.waiting[saleID] = append(others, one)
	g.mu.Unlock()
	if !flying {
		// The call is for all who wait: it does not end with the first of them.
		g.running.Go(func() { g.run(context.WithoutCancel(ctx), saleID) })
	}
	select {
	case <-one.done:
		a, err = one.a, one.err
		*one = question[Q, A]{done: one.done}
		g.spare.Put(one)
		return a, err
	case <-ctx.Done():
		return a, fmt.Errorf("%w: %w", errUnavailable, ctx.Err())
	}
}

// close returns when nobody waits any more, for an owner that lets no more questions come.
func (g *gatherer[Q, A]) close() { g.running.Wait() }

// run asks for all who wait, until nobody does.
func (g *gatherer[Q, A]) run(ctx context.Context, saleID string) {
	for {
		runtime.Gosched() // As for a lane: those who are about to ask get into this call.
		g.mu.Lock()
		all := g.waiting[saleID]
		if len(all) == 0 {
			delete(g.waiting, saleID)
			g.mu.Unlock()
			return
		}
		now := all[:min(len(all), lua.MaxBatch)]
		g.waiting[saleID] = append([]*question[Q, A]{}, all[len(now):]...)
		g.mu.Unlock()
		g.answer(ctx, saleID, now)
	}
}

func (g *gatherer[Q, A]) answer(ctx context.Context, saleID string, list []*question[Q, A]) {
	questions := make([]Q, len(list))
	for i, one := range list {
		questions[i] = one.q
	}
	answers, err := g.safely(ctx, saleID, questions)
	for i, one := range list {
		if one.err = err; err == nil {
			one.a = answers[i]
		}
		one.done <- struct{}{}
	}
}

func (g *gatherer[Q, A]) safely(ctx context.Context, saleID string, questions []Q) (answers []A, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: panic: %v", errUnavailable, p)
		}
	}()
	return g.ask(ctx, saleID, questions)
}
