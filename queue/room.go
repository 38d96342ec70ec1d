package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"flashgate/lua"
	"flashgate/sale"
)

// Room is the waiting room of one sale: what Redis said of it last, and who was heard of here. It is
// safe for concurrent use.
type Room struct {
	o     *Options
	sale  string
	shard *lua.Shard

	current  atomic.Pointer[current]
	view     atomic.Pointer[view]
	made     lua.RoomID             // that this gateway would make
	joinedTo atomic.Pointer[string] // id of the room that somebody joined here last: newer than the view's
	presence *presence
	used     atomic.Int64 // when it was asked for last, in Unix ms
	stop     chan struct{}
	ready    chan struct{} // is closed when there is a view
	fails    atomic.Int64  // ticks that failed

	mu   sync.RWMutex
	news map[string]lua.RoomNews
	// strangers are those whom the room does not have, and when that was found.
	strangers map[string]time.Time

	// For run only.
	meter  meter
	since  int64
	pruned time.Time
}

// current is a sale as it is now.
type current struct {
	version *sale.Version
	room    *sale.WaitingRoom
}

// view is what was read last.
type view struct {
	lua.RoomState
	line      line
	perSecond float64
	near      int64 // order up to which the room is told who is heard of
	at        time.Time
}

func openRoom(saleID string, o *Options) *Room {
	r := &Room{
		o: o, sale: saleID, shard: o.Store.Shard(saleID, 0), made: newRoom(), presence: newPresence(o.HeardMax),
		stop: make(chan struct{}), ready: make(chan struct{}),
		news: map[string]lua.RoomNews{}, strangers: map[string]time.Time{},
	}
	r.use()
	return r
}

func (r *Room) set(v *sale.Version, room *sale.WaitingRoom) {
	if c := r.current.Load(); c == nil || c.version.Version != v.Version || c.version.CreatedAt != v.CreatedAt {
		r.current.Store(&current{version: v, room: room})
	}
}

func (r *Room) use()                { r.used.Store(r.o.Now().UnixMilli()) }
func (r *Room) lastUsed() time.Time { return time.UnixMilli(r.used.Load()) }

// Has tells whether this is the room of that name, as far as is known here.
func (r *Room) Has(id string) bool {
	v := r.view.Load()
	return v == nil || v.Room.ID == "" || v.Room.ID == id
}

// ErrNotReady says that the room could not be read yet.
var ErrNotReady = errors.New("the waiting room was not read yet")

// Joined is what became of somebody who joins.
type Joined struct {
	// Outcome is DONE, or why not: LINE_FULL, NOT_OPEN (the room opens at OpensMs), ENDED, NO_ROOM,
	// RECOVERING, MISSING.
	Outcome sale.Outcome
	Ticket  Ticket
	OpensMs int64
	NowMs   int64
}

// joinTries bounds how often orders are drawn again because the room was another one.
const joinTries = 3

// Join puts up to lua.MaxBatch customers in line, in order, and answers each.
func (r *Room) Join(ctx context.Context, customers []string) ([]Joined, error) {
	r.use()
	of, seed := "", r.made.Seed
	if v := r.view.Load(); v != nil && v.Room.ID != "" {
		of, seed = v.Room.ID, v.Room.Seed
	}
	batch := make([]lua.RoomJoin, len(customers))
	for range joinTries {
		for i, c := range customers {
			batch[i] = lua.RoomJoin{Customer: c, Order: DrawnOrder(seed, c)}
		}
		j, err := r.shard.RoomJoin(ctx, of, r.made, batch)
		if err != nil {
			return nil, err
		}
		if j.Outcome == sale.Again {
			of, seed = j.Room.ID, j.Room.Seed
			continue
		}
		return r.joined(&j, customers), nil
	}
	return nil, fmt.Errorf("%w: it was made anew again and again", ErrNotReady)
}

func (r *Room) joined(j *lua.RoomJoined, customers []string) []Joined {
	now := r.o.Now()
	if id := r.joinedTo.Load(); j.Outcome == sale.Done && (id == nil || *id != j.Room.ID) {
		r.joinedTo.Store(&j.Room.ID)
	}
	all := make([]Joined, len(customers))
	for i, c := range customers {
		all[i] = Joined{Outcome: j.Outcome, OpensMs: j.OpensMs, NowMs: j.Head.NowMs}
		if j.Outcome != sale.Done {
			continue
		}
		if all[i].Outcome = j.Each[i].Outcome; all[i].Outcome != sale.Done {
			continue
		}
		t := Ticket{Kind: KindAdmission, Sale: r.sale, Customer: c, Origin: j.Room.ID, Number: j.Each[i].Number}
		all[i].Ticket = t
		r.presence.note(c, orderOf(&t, j.Room.Seed), now)
		r.welcome(&t)
	}
	return all
}

// welcome forgets what is known of a place that somebody had before this one.
func (r *Room) welcome(t *Ticket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.strangers, t.Customer)
	if n, known := r.news[t.Customer]; known && (n.Number != t.Number || n.What != lua.RoomAdmitted) {
		delete(r.news, t.Customer)
	}
}

// Present hears of somebody without a ticket: a stream that is open is a heartbeat too.
func (r *Room) Present(customer string) {
	r.use()
	r.presence.touch(customer, r.o.Now())
}

// orderOf is the order of a ticket of the room with this seed.
func orderOf(t *Ticket, seed string) int64 {
	if t.Number > 0 {
		return lua.RoomLate + t.Number
	}
	return DrawnOrder(seed, t.Customer)
}

// Leave gives a place up. A ticket of a room that is no more is ErrGone.
func (r *Room) Leave(ctx context.Context, t *Ticket) error {
	r.use()
	outcome, was, err := r.shard.RoomLeave(ctx, t.Origin, t.Customer, t.Number)
	switch {
	case err != nil:
		return err
	case outcome == sale.NoRoom:
		return ErrGone
	case outcome != sale.Done:
		return fmt.Errorf("%w: the shard is %s", ErrNotReady, outcome)
	case was:
		r.presence.forget(t.Customer)
		now := int64(r.o.Store.Now())
		r.mu.Lock()
		r.news[t.Customer] = lua.RoomNews{
			Customer: t.Customer, What: lua.RoomLeft, AtMs: now, Number: t.Number, NewsMs: now,
		}
		r.mu.Unlock()
	}
	return nil
}

// run looks after the room until ctx ends or nobody needs it any more.
func (r *Room) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.stop:
			return
		case <-timer.C:
		}
		wait := r.o.Tick
		if err := r.Tick(ctx); err != nil {
			r.fails.Add(1)
			r.o.Log.Debug("waiting room", "sale", r.sale, "error", err)
		} else if v := r.view.Load(); v.InLine+v.PassedOver == 0 && r.o.Now().Sub(r.lastUsed()) > r.o.Idle {
			wait = r.o.Idle
		}
		timer.Reset(wait)
	}
}

const beatMax = 1000 // people of one call

// Tick tells the room who is there, admits whose turn it is, and reads how it stands.
func (r *Room) Tick(ctx context.Context) error {
	c := r.current.Load()
	if err := r.beat(ctx, c); err != nil {
		return err
	}
	now := r.o.Now()
	err := r.o.Guard(ctx, func(ctx context.Context) error {
		_, err := r.shard.RoomAdmit(ctx, r.o.by, r.o.Pace.Percent(now))
		return err
	})
	if err != nil {
		return err
	}
	for more := true; more; {
		if more, err = r.look(ctx, c); err != nil {
			return err
		}
	}
	r.prune(c)
	return nil
}

func (r *Room) beat(ctx context.Context, c *current) error {
	v := r.view.Load()
	if v == nil || v.Room.ID == "" {
		return nil
	}
	now := r.o.Now()
	due := r.presence.due(v.near, time.Duration(c.room.GraceSeconds)*time.Second, now)
	for len(due) > 0 {
		part := due[:min(len(due), beatMax)]
		due = due[len(part):]
		err := r.o.Guard(ctx, func(ctx context.Context) error {
			strangers, err := r.shard.RoomBeat(ctx, v.Room.ID, part)
			r.note(strangers, now)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Room) note(strangers []string, now time.Time) {
	if len(strangers) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, customer := range strangers {
		if len(r.strangers) < r.o.NewsMax {
			r.strangers[customer] = now
		}
	}
}

// look reads the room. more tells that there is more news than was read.
func (r *Room) look(ctx context.Context, c *current) (more bool, err error) {
	length := int64(0)
	if v := r.view.Load(); v != nil {
		length = v.InLine
	}
	ranks := ranksFor(length)
	var s lua.RoomState
	err = r.o.Guard(ctx, func(ctx context.Context) (err error) {
		s, err = r.shard.RoomLook(ctx, r.since, r.o.NewsPage, ranks)
		return err
	})
	if err != nil {
		return false, err
	}
	if s.Outcome != sale.Done {
		return false, fmt.Errorf("%w: the shard is %s", ErrNotReady, s.Outcome)
	}
	v := &view{RoomState: s, at: r.o.Now(), line: newLine(&s, ranks)}
	old := r.view.Load()
	if old != nil && old.Room.ID != s.Room.ID {
		r.begin()
		old = nil
	}
	open := sale.PhaseAt(c.version.Lifecycle, c.version.Config.OpensAt, c.version.Config.ClosesAt,
		sale.Moment(s.Head.NowMs)) == sale.PhaseOpen
	r.meter.note(&s.RoomCounts, c.room.AdmitPerSecond, open && c.room.Mode != sale.RoomPaused, v.at)
	v.perSecond = r.meter.perSecond(&s.RoomCounts)
	v.near = v.line.orderAt(c.room.AdmitPerSecond * (c.room.GraceSeconds + nearSeconds))
	r.learn(s.News)
	for _, n := range s.News {
		r.since = max(r.since, n.NewsMs)
	}
	r.since = min(r.since, s.Head.NowMs) // When the clock stepped back, news come with lesser times.
	if r.view.Swap(v) == nil {
		close(r.ready)
	}
	return int64(len(s.News)) >= r.o.NewsPage && (old == nil || s.News[0].NewsMs < r.since), nil
}

// nearSeconds beside the grace are how long before their turn the room hears of people: as room.lua
// says.
const nearSeconds = 5

// begin forgets a room that is no more.
func (r *Room) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.news)
	clear(r.strangers)
	r.meter, r.since = meter{}, 0
}

func (r *Room) learn(news []lua.RoomNews) {
	if len(news) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range news {
		if have, known := r.news[n.Customer]; !known || have.NewsMs <= n.NewsMs {
			r.news[n.Customer] = n
			if n.What != lua.RoomWaits {
				r.presence.forget(n.Customer)
			}
		}
	}
}

const (
	pruneEvery = 10 * time.Second
	keepNews   = 2 * time.Minute // after an admission would have ended: as room.lua says
)

// prune forgets what Redis has forgotten.
func (r *Room) prune(c *current) {
	now := r.o.Now()
	if now.Sub(r.pruned) < pruneEvery {
		return
	}
	r.pruned = now
	before := int64(r.o.Store.Now()) - c.room.AdmissionSeconds*1000 - keepNews.Milliseconds()
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.news, func(_ string, n lua.RoomNews) bool { return n.NewsMs < before })
	for customer := range r.news {
		if len(r.news) <= r.o.NewsMax {
			break
		}
		delete(r.news, customer)
	}
	maps.DeleteFunc(r.strangers, func(_ string, at time.Time) bool { return now.Sub(at) > keepNews })
}
