package queue

import (
	"hash/maphash"
	"sync"
	"time"

	"flashgate/lua"
)

// presence remembers who was heard of at this gateway. Only those whose turn is near are told to the
// room, so that what the room is told does not grow with those who wait.
type presence struct {
	seed   maphash.Seed
	parts  [presenceParts]presencePart
	most   int // in each part
	rescan time.Time
}

type presencePart struct {
	mu    sync.Mutex
	heard map[string]heard
	fresh []string // heard of since they were told last
}

type heard struct {
	order    int64
	at, told time.Time
}

const (
	presenceParts = 16
	rescanEvery   = time.Second
)

func newPresence(most int) *presence {
	p := &presence{seed: maphash.MakeSeed(), most: max(most/presenceParts, 1)}
	for i := range p.parts {
		p.parts[i].heard = map[string]heard{}
	}
	return p
}

// note hears of somebody. When too many are remembered, new ones are not: they may be passed over, and
// are next when there is room.
func (p *presence) note(customer string, order int64, now time.Time) {
	part := &p.parts[maphash.String(p.seed, customer)%presenceParts]
	part.mu.Lock()
	defer part.mu.Unlock()
	h, known := part.heard[customer]
	if !known && len(part.heard) >= p.most {
		return
	}
	if !known || !h.told.Before(h.at) {
		part.fresh = append(part.fresh, customer)
	}
	h.order, h.at = order, now
	part.heard[customer] = h
}

// touch hears of somebody whose order may not be known here: then the room is asked whether they are
// near.
func (p *presence) touch(customer string, now time.Time) {
	part := &p.parts[maphash.String(p.seed, customer)%presenceParts]
	part.mu.Lock()
	order := part.heard[customer].order
	part.mu.Unlock()
	p.note(customer, order, now)
}

// due are those to tell the room of: heard of since they were told last, within the grace, and not
// behind an order. Every second it looks at all, for those who have come near since they were heard of;
// who is silent is forgotten.
func (p *presence) due(near int64, grace time.Duration, now time.Time) (due []lua.RoomHeard) {
	all := now.Sub(p.rescan) >= rescanEvery
	if all {
		p.rescan = now
	}
	for i := range p.parts {
		part := &p.parts[i]
		part.mu.Lock()
		tell := func(customer string, h heard) {
			if h.order <= near && h.told.Before(h.at) && now.Sub(h.at) <= grace {
				due = append(due, lua.RoomHeard{Customer: customer, AgoMs: now.Sub(h.at).Milliseconds()})
				h.told = now
				part.heard[customer] = h
			}
		}
		if all {
			for customer, h := range part.heard {
				if now.Sub(h.at) > 2*grace {
					delete(part.heard, customer)
					continue
				}
				tell(customer, h)
			}
		} else {
			for _, customer := range part.fresh {
				tell(customer, part.heard[customer])
			}
		}
		part.fresh = part.fresh[:0]
		part.mu.Unlock()
	}
	return due
}

// forget drops somebody who waits no more.
func (p *presence) forget(customer string) {
	part := &p.parts[maphash.String(p.seed, customer)%presenceParts]
	part.mu.Lock()
	defer part.mu.Unlock()
	delete(part.heard, customer)
}
