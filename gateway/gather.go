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
	mu      sync.Mutex
	waiting map[string]*rounds[Q, A] // there is an entry while a call of the sale is in flight
}

// rounds are the calls to come about one sale, and how many questions wait for them.
type rounds[Q, A any] struct {
	next    []*round[Q, A]
	waiting int
}

// round is the questions of one call and then, once done is closed, its answers, in the same order.
type round[Q, A any] struct {
	questions []Q
	answers   []A
	err       error
	done      chan struct{}
}

// newGatherer makes a gatherer whose calls go through guard, as those of a resolver.
func newGatherer[Q, A any](
	waitMax int, guard func(context.Context, func(context.Context) error) error,
	ask func(ctx context.Context, saleID string, questions []Q) ([]A, error),
) *gatherer[Q, A] {
	return &gatherer[Q, A]{
		max: waitMax, waiting: map[string]*rounds[Q, A]{},
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
	g.mu.Lock()
	of, flying := g.waiting[saleID]
	if !flying {
		of = &rounds[Q, A]{}
		g.waiting[saleID] = of
	}
	if of.waiting >= g.max {
		g.mu.Unlock()
		return a, errOverloaded
	}
	in, place := of.place(q)
	g.mu.Unlock()
	if !flying {
		// The call is for all who wait: it does not end with the first of them.
		g.running.Go(func() { g.run(context.WithoutCancel(ctx), saleID, of) })
	}
	if ctx.Done() == nil {
		<-in.done
	} else {
		select {
		case <-in.done:
		case <-ctx.Done():
			return a, fmt.Errorf("%w: %w", errUnavailable, ctx.Err())
		}
	}
	if in.err != nil {
		return a, in.err
	}
	return in.answers[place], nil
}

// firstRound is how many questions a round has room for at once.
const firstRound = 16

// place puts a question into the last round that has room.
func (r *rounds[Q, A]) place(q Q) (in *round[Q, A], place int) {
	if n := len(r.next); n > 0 && len(r.next[n-1].questions) < lua.MaxBatch {
		in = r.next[n-1]
	} else {
		in = &round[Q, A]{questions: make([]Q, 0, firstRound), done: make(chan struct{})}
		r.next = append(r.next, in)
	}
	in.questions = append(in.questions, q)
	r.waiting++
	return in, len(in.questions) - 1
}

// close returns when nobody waits any more, for an owner that lets no more questions come.
func (g *gatherer[Q, A]) close() { g.running.Wait() }

// run asks for all who wait, until nobody does.
func (g *gatherer[Q, A]) run(ctx context.Context, saleID string, of *rounds[Q, A]) {
	for {
		runtime.Gosched() // As for a lane: those who are about to ask get into this call.
		g.mu.Lock()
		if len(of.next) == 0 {
			delete(g.waiting, saleID)
			g.mu.Unlock()
			return
		}
		now := of.next[0]
		of.next = append(of.next[:0], of.next[1:]...)
		of.waiting -= len(now.questions)
		g.mu.Unlock()
		now.answers, now.err = g.safely(ctx, saleID, now.questions)
		close(now.done)
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
