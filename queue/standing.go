package queue

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"flashgate/lua"
	"flashgate/sale"
)

// State is where a ticket stands.
type State string

// The states of a ticket of the waiting room.
const (
	Waiting  State = "waiting"
	Unlikely State = "unlikely" // waiting, and what is left will probably be gone before
	Admitted State = "admitted"
	Left     State = "left"    // in line no more: they left, or have reserved
	Expired  State = "expired" // the admission has ended, the sale has, or the line does not know them
)

// ErrGone says that a ticket is of a room that is no more.
var ErrGone = errors.New("the waiting room of this ticket is no more")

// Standing is what is said of a ticket.
type Standing struct {
	State State
	// Ahead are about those before; Low and High the seconds until the turn. They are negative when not
	// known.
	Ahead, Low, High int64
	// PollAfter is when to ask again; 0 when there is nothing more to hear.
	PollAfter time.Duration
	// Admission of those who are admitted.
	Admission *Admission
}

// readyWait bounds the wait for the first look at a room.
const readyWait = 2 * time.Second

// Stand says where a ticket stands, from memory; asking is the heartbeat of whoever waits. ErrGone, or
// ErrNotReady.
func (r *Room) Stand(ctx context.Context, t *Ticket) (Standing, error) {
	r.use()
	v, err := r.seen(ctx)
	if err != nil {
		return Standing{}, err
	}
	c, now := r.current.Load(), r.o.Store.Now()
	stands := Standing{Ahead: -1, Low: -1, High: -1}
	if v.Room.ID != t.Origin {
		// A room that was just made is not in the view yet.
		if id := r.joinedTo.Load(); v.Room.ID != "" && (id == nil || *id != t.Origin) {
			return Standing{}, ErrGone
		}
		stands.State, stands.PollAfter = Waiting, pollLeast
		return stands, nil
	}
	phase := sale.PhaseAt(c.version.Lifecycle, c.version.Config.OpensAt, c.version.Config.ClosesAt, now)
	r.mu.RLock()
	news, happened := r.news[t.Customer]
	_, stranger := r.strangers[t.Customer]
	r.mu.RUnlock()
	switch {
	case phase == sale.PhaseClosed:
		stands.State = Expired
	case happened && news.Number != t.Number, happened && (news.What == lua.RoomLeft || news.What == lua.RoomUsed):
		stands.State = Left
	case happened && news.What == lua.RoomAdmitted:
		a := &Admission{
			Sale: t.Sale, Customer: t.Customer, Origin: t.Origin, Number: t.Number, AdmittedMs: news.AtMs,
			ExpiresMs: news.AtMs + c.room.AdmissionSeconds*1000,
		}
		if stands.State = Expired; int64(now) < a.ExpiresMs {
			stands.State, stands.Admission, stands.Ahead = Admitted, a, 0
		}
	case stranger:
		stands.State = Expired
	default:
		order := orderOf(t, v.Room.Seed)
		r.presence.note(t.Customer, order, r.o.Now())
		r.wait(&stands, v, c, order, phase, now)
	}
	return stands, nil
}

// Draw is what may be told of a room's draw.
type Draw struct {
	Origin     string // of tickets
	Commitment string
	Seed       string // "" until the sale has opened
	Drawn      int64
	Head       int64 // order of the first in line, when that was drawn; else negative
}

// Stats are numbers of a room for those who run it.
type Stats struct {
	Sale     string
	Counts   lua.RoomCounts
	Age      time.Duration // of the counts
	Failures int64         // looks that failed
}

// Stats reads them from memory; false while the room was not read yet.
func (r *Room) Stats() (Stats, bool) {
	v := r.view.Load()
	if v == nil {
		return Stats{}, false
	}
	return Stats{Sale: r.sale, Counts: v.RoomCounts, Age: r.o.Now().Sub(v.at), Failures: r.fails.Load()}, true
}

// seedAfter the opening, in ms, the seed is published: no gateway's clock is that wrong about the time
// of Redis.
const seedAfter = 1000

// Draw reads it from memory; ErrNotReady.
func (r *Room) Draw(ctx context.Context) (Draw, error) {
	v, err := r.seen(ctx)
	if err != nil {
		return Draw{}, err
	}
	d := Draw{Origin: v.Room.ID, Commitment: v.Room.Commit, Drawn: v.Drawn, Head: -1}
	if r.o.Store.Now() >= r.current.Load().version.Config.OpensAt+seedAfter {
		d.Seed = v.Room.Seed
	}
	if v.DrawnInLine > 0 && len(v.Orders) > 0 {
		d.Head = v.Orders[0]
	}
	return d, nil
}

// seen is the last view; it waits a little for the first.
func (r *Room) seen(ctx context.Context) (*view, error) {
	if v := r.view.Load(); v != nil {
		return v, nil
	}
	wait := time.NewTimer(readyWait)
	defer wait.Stop()
	select {
	case <-r.ready:
		return r.view.Load(), nil
	case <-wait.C:
	case <-ctx.Done():
	}
	return nil, ErrNotReady
}

// wait says what can be known of somebody in line.
func (r *Room) wait(s *Standing, v *view, c *current, order int64, phase sale.Phase, now sale.Moment) {
	s.State = Waiting
	poll := time.Duration(c.room.PollSeconds) * time.Second
	if phase == sale.PhaseScheduled {
		// The draw is at the opening: somebody will be first, and somebody last.
		left := int64(c.version.Config.OpensAt-now)/1000 + 1
		s.Low, s.High = left, left+v.Drawn/max(c.room.AdmitPerSecond, 1)+1
		s.PollAfter = spread(min(poll, time.Duration(left)*time.Second+pollLeast))
		return
	}
	s.Ahead = v.line.ahead(order)
	could := (v.Free+v.Held)*c.room.OverAdmissionPercent/100 - v.Inside
	if v.Free >= 0 && s.Ahead >= could {
		s.State = Unlikely
	}
	stopped := phase != sale.PhaseOpen || c.room.Mode == sale.RoomPaused
	if v.perSecond > 0 && s.State == Waiting && !stopped {
		s.Low, s.High = eta(s.Ahead, v.perSecond)
		poll = min(poll, max(time.Duration(s.Low)*time.Second/pollShare, pollLeast))
	}
	s.PollAfter = spread(poll)
}

const (
	pollLeast = 2 * time.Second // for those who are next
	pollShare = 4               // of the time until the turn
)

// spread takes up to a quarter off, so that those who came together do not come back together.
func spread(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}
