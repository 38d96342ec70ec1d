package queue

import (
	"context"
	"sync"
	"time"

	"flashgate/sale"
)

// Rooms are the waiting rooms of all sales, as one gateway sees them. It is safe for concurrent use.
type Rooms struct {
	o     Options
	mu    sync.Mutex
	rooms map[string]*Room
	// start looks after one more room; nil before Run and after.
	start   func(*Room)
	running sync.WaitGroup
}

// NewRooms makes an empty one.
func NewRooms(o Options) *Rooms { return &Rooms{o: o.withDefaults(), rooms: map[string]*Room{}} }

// Of is the room of a sale as it is now; nil when the sale has none.
func (r *Rooms) Of(v *sale.Version) *Room {
	setting := v.Config.Room()
	if setting == nil {
		return nil
	}
	r.mu.Lock()
	room := r.rooms[v.Sale]
	if room == nil {
		room = openRoom(v.Sale, &r.o)
		room.set(v, setting) // before anybody looks after it
		r.rooms[v.Sale] = room
		if r.start != nil {
			r.start(room)
		}
	}
	r.mu.Unlock()
	room.set(v, setting)
	return room
}

// All are the rooms that are looked after.
func (r *Rooms) All() []*Room {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*Room, 0, len(r.rooms))
	for _, room := range r.rooms {
		all = append(all, room)
	}
	return all
}

// lookAround is how often Run learns of sales.
const lookAround = time.Second

// Run looks after the rooms of sales until ctx ends: admits people, and learns what happens.
func (r *Rooms) Run(ctx context.Context, sales func() []sale.Version) {
	r.mu.Lock()
	r.start = func(room *Room) { r.running.Go(func() { room.run(ctx) }) }
	for _, room := range r.rooms {
		r.start(room)
	}
	r.mu.Unlock()
	tick := time.NewTicker(lookAround)
	defer tick.Stop()
	for {
		r.follow(sales())
		select {
		case <-ctx.Done():
			r.mu.Lock()
			r.start = nil
			r.mu.Unlock()
			r.running.Wait()
			return
		case <-tick.C:
		}
	}
}

// follow looks after the rooms of sales that have not ended, and no others.
func (r *Rooms) follow(list []sale.Version) {
	now, alive := r.o.Store.Now(), map[string]bool{}
	for i := range list {
		v := &list[i]
		over := sale.PhaseAt(v.Lifecycle, v.Config.OpensAt, v.Config.ClosesAt, now) == sale.PhaseClosed
		if !over && v.Config.Room() != nil && now >= v.Config.OpensRoomAt()-early {
			alive[v.Sale] = true
			r.Of(v)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, room := range r.rooms {
		if !alive[id] && r.o.Now().Sub(room.lastUsed()) > unused {
			close(room.stop)
			delete(r.rooms, id)
		}
	}
}

const (
	early  = sale.Moment(10_000) // ms before a room opens in which it is looked after already
	unused = time.Minute
)
