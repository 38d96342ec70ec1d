package gateway

import (
	"maps"
	"sync"
	"time"

	"flashgate/lua"
	"flashgate/sale"
)

// edge remembers of which SKUs nothing is available, so that the many who come too late are refused
// without the scripts: see tooLate. It is safe for concurrent use.
//
// What it knows ends, whichever is first, at the next deadline that the script named, when units come back,
// and age after the moment for which it is known. Units that come back are heard of from this gateway's own
// calls and from the announcements of reconcilers, which can be lost. As long as seq stands still nothing has
// come back: then what is known holds at the later moment too.
type edge struct {
	age  time.Duration
	most int // places
	m    *metrics

	mu     sync.RWMutex
	sales  map[string]*scarce
	places int
	swept  time.Time
}

// scarce is what is known of one sale's shard, in one epoch of it.
type scarce struct {
	epoch int64
	// returned is the seq up to which units may have come back: what was seen before may be over.
	returned int64
	// At the moment still the shard was at stillSeq, with nothing after it.
	still    time.Time
	stillSeq int64
	none     map[string]map[string]nothing // by SKU and location; location "" is all of them
}

// nothing is that no unit was available: at seq, at the moment seen, until units may come back by themselves.
type nothing struct {
	seq  int64
	seen time.Time
	due  time.Time // the next deadline of the shard; zero without one
}

func newEdge(o Options, m *metrics) *edge {
	o = o.withDefaults()
	return &edge{age: o.EdgeMemory, most: o.EdgePlaces, m: m, sales: map[string]*scarce{}}
}

// holds tells whether it is still known.
func (n *nothing) holds(s *scarce, age time.Duration, now time.Time) bool {
	seen := n.seen
	if s.stillSeq == n.seq && s.still.After(seen) {
		seen = s.still
	}
	return now.Sub(seen) < age && (n.due.IsZero() || now.Before(n.due))
}

// short appends the lines of which nothing is known to be available; none when the scripts must be asked.
func (e *edge) short(short []lua.Shortage, saleID string, lines []sale.Line) []lua.Shortage {
	e.mu.RLock()
	defer e.mu.RUnlock()
	s := e.sales[saleID]
	if s == nil {
		return short
	}
	now := time.Now()
	for i := range lines {
		if s.lacks(&lines[i], e.age, now) {
			short = append(short, lua.Shortage{Line: lines[i]})
		}
	}
	return short
}

// lacks tells whether short would have named any at the given moment.
func (e *edge) lacks(saleID string, lines []sale.Line, now time.Time) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	s := e.sales[saleID]
	if s == nil {
		return false
	}
	for i := range lines {
		if s.lacks(&lines[i], e.age, now) {
			return true
		}
	}
	return false
}

// lacks tells whether nothing is known to be available of what a line asks for.
func (s *scarce) lacks(l *sale.Line, age time.Duration, now time.Time) bool {
	at := s.none[l.SKU]
	if at == nil {
		return false
	}
	n, known := at[l.Location]
	if known && n.holds(s, age, now) {
		return true
	}
	n, known = at[""]
	return known && n.holds(s, age, now)
}

// learn takes what a script answered to a batch that was sent at the given moment.
func (e *edge) learn(saleID string, sent time.Time, batch []lua.ReserveRequest, answers []lua.Answer) {
	if e.age <= 0 {
		return
	}
	for i := range answers {
		switch answers[i].Outcome {
		case sale.Insufficient:
			e.learnOne(saleID, sent, batch[i].Lines, &answers[i])
		case sale.Missing, sale.Recovering:
			e.forget(saleID)
			return // as all of the batch
		}
	}
}

func (e *edge) learnOne(saleID string, sent time.Time, lines []sale.Line, a *lua.Answer) {
	n := nothing{seq: a.Head.Seq, seen: sent}
	if a.Head.NextDeadlineMs > 0 {
		// The script read its clock after the batch was sent: this is the deadline or before.
		n.due = sent.Add(time.Duration(a.Head.NextDeadlineMs-a.Head.NowMs) * time.Millisecond)
	}
	for _, short := range a.Shortages {
		if short.Available == 0 && alone(short.Line.SKU, lines) {
			e.put(saleID, a.Head.Epoch, sale.Place{SKU: short.Line.SKU, Location: short.Line.Location}, n)
		}
	}
}

// alone tells whether one line only asks for the SKU. Of several, what is short may be what the others leave.
func alone(sku string, lines []sale.Line) bool {
	found := 0
	for i := range lines {
		if lines[i].SKU == sku {
			found++
		}
	}
	return found == 1
}

func (e *edge) put(saleID string, epoch int64, at sale.Place, n nothing) {
	e.mu.RLock()
	s := e.sales[saleID]
	same := s != nil && s.epoch == epoch && s.none[at.SKU][at.Location].seq == n.seq &&
		n.seen.Sub(s.none[at.SKU][at.Location].seen) < e.age/8
	e.mu.RUnlock()
	if same {
		return // as the others of the batch have told already
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.places >= e.most {
		e.sweep()
	}
	s = e.in(saleID, epoch)
	if s == nil || n.seq < s.returned {
		return
	}
	old, known := s.none[at.SKU][at.Location]
	if known && (old.seq > n.seq || old.seq == n.seq && old.seen.After(n.seen)) {
		return
	}
	if !known && e.places >= e.most {
		return
	}
	if s.none[at.SKU] == nil {
		s.none[at.SKU] = map[string]nothing{}
	}
	s.none[at.SKU][at.Location] = n
	if !known {
		e.count(1)
	}
}

// in finds or makes what is known of a sale in an epoch, for the holder of mu; nil when the epoch is over, or
// when there is no room.
func (e *edge) in(saleID string, epoch int64) *scarce {
	s := e.sales[saleID]
	switch {
	case s == nil:
		if len(e.sales) >= e.most {
			e.sweep()
		}
		if len(e.sales) >= e.most {
			return nil
		}
		s = &scarce{epoch: epoch, none: map[string]map[string]nothing{}}
		e.sales[saleID] = s
	case epoch > s.epoch:
		e.drop(s)
		*s = scarce{epoch: epoch, none: s.none}
	case epoch < s.epoch:
		return nil
	}
	return s
}

// unchanged notes that the shard's head was this at the given moment: as long as seq stands still, what was
// seen at it holds.
func (e *edge) unchanged(saleID string, asked time.Time, head lua.Head) {
	if e.age <= 0 || head.Outcome != sale.Done {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sales[saleID]
	if s != nil && s.epoch == head.Epoch && (head.Seq > s.stillSeq || head.Seq == s.stillSeq && asked.After(s.still)) {
		s.still, s.stillSeq = asked, head.Seq
	}
}

// returned takes that units of some SKUs, lua.AnySKU for any, may have come back by events up to the head.
// What was seen at it or after it stays.
func (e *edge) returned(saleID string, epoch, seq int64, skus ...string) {
	if e.age <= 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.in(saleID, epoch)
	if s == nil {
		return
	}
	s.returned = max(s.returned, seq)
	for _, sku := range skus {
		if sku == lua.AnySKU {
			for sku := range s.none {
				e.dropSKU(s, sku, seq)
			}
			return
		}
		e.dropSKU(s, sku, seq)
	}
}

// announced takes a watermark, and with it what came back.
func (e *edge) announced(w lua.Watermark) {
	if len(w.Returned) > 0 && w.Shard == 0 {
		e.returned(w.Sale, w.Epoch, w.Seq, w.Returned...)
	}
}

// forget drops all that is known of a sale.
func (e *edge) forget(saleID string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.sales[saleID]; s != nil {
		e.drop(s)
		delete(e.sales, saleID)
	}
}

// drop empties a sale, for the holder of mu.
func (e *edge) drop(s *scarce) {
	for _, at := range s.none {
		e.count(-len(at))
	}
	clear(s.none)
}

// dropSKU drops what was seen of a SKU before seq, for the holder of mu.
func (e *edge) dropSKU(s *scarce, sku string, seq int64) {
	at := s.none[sku]
	before := len(at)
	maps.DeleteFunc(at, func(_ string, n nothing) bool { return n.seq < seq })
	if e.count(len(at) - before); len(at) == 0 {
		delete(s.none, sku)
	}
}

// sweep drops all that is over, for the holder of mu. It looks through everything, so it does so at most
// once in an age.
func (e *edge) sweep() {
	now := time.Now()
	if now.Sub(e.swept) < e.age {
		return
	}
	e.swept = now
	for id, s := range e.sales {
		for sku, at := range s.none {
			before := len(at)
			maps.DeleteFunc(at, func(_ string, n nothing) bool { return !n.holds(s, e.age, now) })
			if e.count(len(at) - before); len(at) == 0 {
				delete(s.none, sku)
			}
		}
		if len(s.none) == 0 {
			delete(e.sales, id)
		}
	}
}

// count notes that there are more places, or fewer, for the holder of mu.
func (e *edge) count(more int) {
	if more != 0 {
		e.places += more
		e.m.edgePlaces.Set(float64(e.places))
	}
}
