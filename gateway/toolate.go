package gateway

import (
	"context"
	"time"

	"flashgate/lua"
	"flashgate/sale"
)

// tooLate refuses a reserve from memory, when nothing is available of what it asks for; nil when the scripts
// must be asked. Who holds something is never refused: the ids of all who wait are looked up in one read
// first. The refusal writes nothing to Redis, and counts in this gateway's shield alone.
func (g *Gateway) tooLate(r *request, v *sale.Version, try *attempt, id string, lines []sale.Line) error {
	if !g.edge.lacks(v.Sale, lines, r.started) || !g.remembers(v) {
		return nil
	}
	known, err := g.limiter.known.do(untilAnswered, v.Sale, id)
	if err != nil {
		g.limiter.leave(r, try, nil, err)
		return err
	}
	if known {
		return nil
	}
	// The look took a while, or showed that units came back.
	short := g.edge.short(r.reserve.short[:0], v.Sale, lines)
	if len(short) == 0 {
		return nil
	}
	r.reserve.short = short
	if err := g.limiter.alone(r, try); err != nil {
		return err
	}
	g.metrics.fromMemory.get(v.Sale).Inc()
	return g.short(r, v, short)
}

// untilAnswered waits for an answer that comes by itself: every call is bounded in time, and the gateway ends
// after the last of them.
var untilAnswered = context.Background()

// remembers tells whether memory may answer for a sale. Who could be put in line goes to the scripts, and
// outside of its hours a sale has more to say than what is left.
func (g *Gateway) remembers(v *sale.Version) bool {
	if q := v.Config.Queue; q != nil {
		if q.Waitlist != nil && q.Waitlist.Enabled || q.WaitingRoom != nil && q.WaitingRoom.Enabled {
			return false
		}
	}
	return sale.PhaseAt(v.Lifecycle, v.Config.OpensAt, v.Config.ClosesAt, g.store.Now()) == sale.PhaseOpen
}

// short refuses a reserve for what is short, without the numbers that are not told to whoever asks.
func (g *Gateway) short(r *request, v *sale.Version, short []lua.Shortage) error {
	if !seesNumbers(r, v) {
		for i := range short {
			short[i].Available = hiddenNumber
		}
	}
	return r.shortage(short)
}

// findKnown tells of each id whether it is known: then a reserve is a replay, and free. What it sees of
// the shard keeps the edge's memory alive, or ends it.
func findKnown(store *lua.Store, e *edge) func(context.Context, string, []string) ([]bool, error) {
	return func(ctx context.Context, saleID string, ids []string) ([]bool, error) {
		asked := time.Now()
		known, head, err := store.Shard(saleID, 0).Known(ctx, ids...)
		if err == nil && head.Outcome != sale.Done {
			for i := range known {
				known[i] = true // Where the shard is closed the script says so.
			}
		}
		e.unchanged(saleID, asked, head)
		return known, err
	}
}

// watchedShard is a shard of whose answers the edge learns.
type watchedShard struct {
	*lua.Shard
	edge *edge
}

func (e *edge) watch(store *lua.Store, saleID string) watchedShard {
	return watchedShard{store.Shard(saleID, 0), e}
}

func (s watchedShard) Reserve(ctx context.Context, batch []lua.ReserveRequest) ([]lua.Answer, error) {
	sent := time.Now()
	answers, err := s.Shard.Reserve(ctx, batch)
	if err == nil {
		s.edge.learn(s.Sale, sent, batch, answers)
	}
	return answers, err
}

func (s watchedShard) Expire(ctx context.Context, limit int) (lua.Expiry, error) {
	done, err := s.Shard.Expire(ctx, limit)
	if err == nil && done.Expired > 0 {
		s.edge.returned(s.Sale, done.Head.Epoch, done.Head.Seq, lua.AnySKU)
	}
	return done, err
}

// noteReturn tells the edge what a call of this gateway gave back.
func (e *edge) noteReturn(saleID string, a *lua.Answer) {
	switch a.Outcome {
	case sale.Released, sale.Cancelled:
		skus := make([]string, len(a.Reservation.Lines))
		for i, l := range a.Reservation.Lines {
			skus[i] = l.SKU
		}
		e.returned(saleID, a.Head.Epoch, a.Head.Seq, skus...)
	case sale.Reduced: // Its lines are what is left.
		e.returned(saleID, a.Head.Epoch, a.Head.Seq, lua.AnySKU)
	}
}

// heard hears announcements for two.
type heard struct {
	announcer
	also func(lua.Watermark)
}

func (h heard) Watermarks(ctx context.Context, f func(lua.Watermark)) {
	h.announcer.Watermarks(ctx, func(w lua.Watermark) {
		h.also(w)
		f(w)
	})
}
