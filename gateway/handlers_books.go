package gateway

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"github.com/valyala/fasthttp"

	"flashgate/ledger"
	"flashgate/sale"
)

// lettersDefault and lettersMost bound the dead letters of one answer.
const (
	lettersDefault = 100
	lettersMost    = 1000
)

func checkCount(most int64) func(string) string {
	return func(text string) string {
		if n, err := strconv.ParseInt(text, 10, 64); err != nil || n < 0 || n > most || text[0] == '+' {
			return fmt.Sprintf("must be a whole number from 0 to %d", most)
		}
		return ""
	}
}

func checkYesNo(text string) string {
	if text != "true" && text != "false" {
		return "must be true or false"
	}
	return ""
}

// withBooks bounds one order in time, and the orders at a time: folding a large sale takes memory. Who waits
// for it longer than BooksTimeout is told so, and the work is cancelled.
func (g *Gateway) withBooks(order func(context.Context) error) error {
	if g.books == nil {
		return noBooks()
	}
	select {
	case g.ordering <- struct{}{}:
		defer func() { <-g.ordering }()
	default:
		return overloaded("Too many orders to the books are under way; this one was not begun.")
	}
	ctx, cancel := context.WithTimeout(g.base, g.opts.BooksTimeout)
	defer cancel()
	err := order(ctx)
	switch {
	case err == nil, errors.Is(err, ledger.ErrNotFound), errors.Is(err, ledger.ErrSettled), errors.Is(err, ErrNotNow):
		return err
	case ctx.Err() != nil && g.base.Err() == nil:
		return unavailable(fmt.Sprintf("It took longer than %v and was given up; use flashgate reconcile.",
			g.opts.BooksTimeout))
	default:
		return errors.Join(errUnavailable, err)
	}
}

func noBooks() *problem { return unavailable("No books can be asked in this process.") }

func (g *Gateway) booksStatus(r *request) error {
	if g.books == nil {
		return noBooks()
	}
	out := BooksStatus{}
	err := g.fromLedger(func(ctx context.Context) (err error) {
		out.Shards, err = g.books.Status(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if out.Shards == nil {
		out.Shards = []ShardStatus{}
	}
	return r.json(fasthttp.StatusOK, out)
}

func (g *Gateway) verifySale(r *request) error {
	return g.orderSale(r, "verify", func(ctx context.Context, id string) (out any, err error) {
		return g.books.Verify(ctx, id)
	})
}

func (g *Gateway) rebuildSale(r *request) error {
	return g.orderSale(r, "rebuild", func(ctx context.Context, id string) (out any, err error) {
		return g.books.Rebuild(ctx, id, r.actor())
	})
}

// orderSale asks the books for something about the sale that the path names.
func (g *Gateway) orderSale(r *request, verb string, order func(context.Context, string) (any, error)) error {
	id := r.param("sale")
	if _, err := g.known(id); err != nil {
		return err
	}
	var out any
	err := g.withBooks(func(ctx context.Context) (err error) {
		out, err = order(ctx, id)
		return err
	})
	g.log.Info(verb, "request_id", string(r.id), "sale", id, "actor", r.actor(), "done", err == nil)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return refuse(codeUnknownSale, "The books have no sale %s yet.", id)
	case errors.Is(err, ErrNotNow):
		return refuse(codeInvalidRequest, "%s", err.Error())
	case err != nil:
		return err
	}
	return r.json(fasthttp.StatusOK, out)
}

func (g *Gateway) listLetters(r *request) error {
	number := func(name string, d int64) int64 {
		n, err := strconv.ParseInt(r.query[name], 10, 64) // Checked with the query.
		if err != nil {
			return d
		}
		return n
	}
	q := ledger.LetterQuery{
		Sale: r.query["sale"], OpenOnly: r.query["all"] != "true", After: number("after", 0),
		Limit: int(max(number("limit", lettersDefault), 1)),
	}
	var all []ledger.DeadLetter
	err := g.fromLedger(func(ctx context.Context) (err error) {
		all, err = g.ledger.DeadLetters(ctx, q)
		return err
	})
	if err != nil {
		return err
	}
	out := LetterList{DeadLetters: make([]Letter, len(all))}
	for i := range all {
		d := &all[i]
		out.DeadLetters[i] = Letter{
			ID: d.ID, At: timeText(d.At.UnixMilli()), Sale: d.Shard.Sale, Shard: d.Shard.Number, Epoch: d.Epoch,
			Seq: d.Seq, Kind: string(d.Kind), State: string(d.State), Reason: d.Reason,
			Event:     base64.StdEncoding.EncodeToString(d.Event),
			SettledAt: optionalTime(d.SettledAt), Actor: d.Actor, Resolution: d.Resolution,
		}
	}
	return r.json(fasthttp.StatusOK, out)
}

func (g *Gateway) replayLetter(r *request) error {
	return g.settleLetter(r, ledger.LetterReplayed, func(ctx context.Context, id int64) error {
		return g.books.Replay(ctx, id, r.actor())
	})
}

func (g *Gateway) resolveLetter(r *request) error {
	var body ReasonRequest
	if err := r.decode(g, &body); err != nil {
		return err
	}
	return g.settleLetter(r, ledger.LetterResolved, func(ctx context.Context, id int64) error {
		return g.books.Resolve(ctx, id, r.actor(), body.Reason)
	})
}

// settleLetter ends a dead letter in one way; ended so before, the call is a replay.
func (g *Gateway) settleLetter(r *request, state ledger.LetterState, order func(context.Context, int64) error) error {
	text := r.param("id")
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 || strconv.FormatInt(id, 10) != text {
		return refuse(codeNotFound, "No dead letter has the id %s.", printable(text))
	}
	err = g.withBooks(func(ctx context.Context) error { return order(ctx, id) })
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return refuse(codeNotFound, "There is no dead letter %d.", id)
	case errors.Is(err, ErrNotNow):
		return refuse(codeInvalidRequest, "%s", err.Error())
	case errors.Is(err, ledger.ErrSettled):
		was, err := g.letterState(id)
		if err != nil {
			return err
		}
		if was != state {
			return refuse(codeInvalidRequest, "The dead letter is %s already.", was)
		}
		r.replayed()
	case err != nil:
		return err
	default:
		g.log.Info("dead letter settled", "request_id", string(r.id), "id", id, "state", state, "actor", r.actor())
	}
	return r.json(fasthttp.StatusOK, Settled{ID: id, State: string(state)})
}

func (g *Gateway) letterState(id int64) (state ledger.LetterState, err error) {
	err = g.fromLedger(func(ctx context.Context) error {
		all, err := g.ledger.DeadLetters(ctx, ledger.LetterQuery{ID: id, Limit: 1})
		if err == nil && len(all) == 1 {
			state = all[0].State
		}
		return err
	})
	return state, err
}

// The codes of orders to the books.
var (
	orderCodes  = []code{codeUnknownSale, codeInvalidRequest, codeUnavailable, codeOverloaded}
	letterCodes = []code{codeNotFound, codeInvalidRequest, codeUnavailable, codeOverloaded}
)

// bookRoutes are those of operators.
var bookRoutes = []route{
	{
		method: "GET", path: "/v1/admin/reconciler", name: "get-reconciler", tag: "operations", roles: toReview,
		summary: "Where the books of every sale stand",
		doc:     "Watermark, lag and last verification of every shard, whichever process drains it.",
		answers: []answer{{status: 200, doc: "Every shard.", body: BooksStatus{}}},
		codes:   []code{codeUnavailable, codeOverloaded},
		handle:  (*Gateway).booksStatus,
	},
	{
		method: "POST", path: adminSales + "/{sale}/verify", name: "verify-sale", tag: "operations", roles: toCount,
		summary: "Compare Redis with the ledger",
		doc:     "Value by value, while traffic runs, and the hash chain of the ledger. Changes nothing.",
		answers: []answer{{status: 200, doc: "What was found.", body: Verification{}}},
		codes:   orderCodes,
		handle:  (*Gateway).verifySale,
	},
	{
		method: "POST", path: adminSales + "/{sale}/rebuild", name: "rebuild-sale", tag: "operations", roles: toCount,
		summary: "Make a sale's data in Redis anew from the ledger",
		doc: "The sale answers 503 meanwhile, and live holds end later. Given up half way it is finished by a " +
			"running reconciler.",
		answers: []answer{{status: 200, doc: "The sale is open again.", body: Rebuilt{}}},
		codes:   orderCodes,
		handle:  (*Gateway).rebuildSale,
	},
	{
		method: "GET", path: "/v1/admin/dead-letters", name: "list-dead-letters", tag: "operations", roles: toCount,
		summary: "List events that could not become part of the books",
		query: []param{
			{"sale", "Of this sale alone.", false, sale.CheckSaleID},
			{"all", "true: those that are settled too.", false, checkYesNo},
			{"after", "Only with an id above this one.", false, checkCount(1 << 62)},
			{"limit", fmt.Sprintf("At most so many; default %d.", lettersDefault), false, checkCount(lettersMost)},
		},
		answers: []answer{{status: 200, doc: "Ordered by id.", body: LetterList{}}},
		codes:   []code{codeUnavailable},
		handle:  (*Gateway).listLetters,
	},
	{
		method: "POST", path: "/v1/admin/dead-letters/{id}/replay", name: "replay-dead-letter", tag: "operations",
		roles:   toCount,
		summary: "Bring the effect of a dead letter into the books",
		doc:     "As an event of its own, if the books allow it now; the sale is rebuilt.",
		replays: true,
		answers: []answer{{status: 200, doc: "It is in the books.", body: Settled{}}},
		codes:   letterCodes,
		handle:  (*Gateway).replayLetter,
	},
	{
		method: "POST", path: "/v1/admin/dead-letters/{id}/resolve", name: "resolve-dead-letter", tag: "operations",
		roles:   toCount,
		summary: "Go on without a dead letter",
		doc:     "The last open one of a sale has the sale rebuilt.",
		body:    ReasonRequest{}, replays: true,
		answers: []answer{{status: 200, doc: "It is settled.", body: Settled{}}},
		codes:   letterCodes,
		handle:  (*Gateway).resolveLetter,
	},
}
