package gateway

import (
	"bufio"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"flashgate/lua"
	"flashgate/sale"
)

// streams tells listeners of stock as it changes. One goroutine per sale with listeners reads Redis
// for all of them.
type streams struct {
	g    *Gateway
	done chan struct{} // closed when all streams must end

	mu     sync.Mutex
	feeds  map[string]*feed
	open   int
	closed bool
	work   sync.WaitGroup
}

// feed is what the listeners of one sale share. Its fields are guarded by streams.mu.
type feed struct {
	listeners map[*listener]struct{}
	last      *stockEvent
}

// listener is one stream. news has room for one event: a slow listener gets the newest, not all.
type listener struct{ news chan *stockEvent }

// stockEvent is one stock event, written for the wire once for all listeners.
type stockEvent struct {
	id   string
	is   stockState
	text [2][]byte // without numbers, and with them
}

// stockState is what must change for an event to be sent.
type stockState struct {
	epoch, seq, version int64
	phase               sale.Phase
}

func newStreams(g *Gateway) *streams {
	return &streams{g: g, done: make(chan struct{}), feeds: map[string]*feed{}}
}

// join adds a listener to a sale's feed, which begins with the first.
func (s *streams) join(saleID string) (*listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if s.open >= s.g.opts.StreamsMax {
		return nil, overloaded("Too many streams are open.")
	}
	l := &listener{news: make(chan *stockEvent, 1)}
	f := s.feeds[saleID]
	if f == nil {
		f = &feed{listeners: map[*listener]struct{}{}}
		s.feeds[saleID] = f
		s.work.Go(func() { s.follow(saleID, f) })
	}
	f.listeners[l] = struct{}{}
	if f.last != nil {
		l.news <- f.last
	}
	s.open++
	s.g.metrics.streams.Set(float64(s.open))
	return l, nil
}

func (s *streams) leave(saleID string, l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.feeds[saleID].listeners, l)
	s.open--
	s.g.metrics.streams.Set(float64(s.open))
}

// follow reads a sale every StreamEvery while it has listeners.
func (s *streams) follow(saleID string, f *feed) {
	tick := time.NewTicker(s.g.opts.StreamEvery)
	defer tick.Stop()
	for {
		if event := s.look(saleID, f); event != nil {
			s.tell(f, event)
		}
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		idle := len(f.listeners) == 0
		if idle {
			delete(s.feeds, saleID)
		}
		s.mu.Unlock()
		if idle {
			return
		}
	}
}

// look returns the event to send, or nil when nothing changed or the sale cannot be read now: then
// the stream is silent but for its heartbeats.
func (s *streams) look(saleID string, f *feed) (event *stockEvent) {
	defer func() {
		if cause := recover(); cause != nil {
			s.g.log.Error("panic", "stream", saleID, "cause", fmt.Sprint(cause))
		}
	}()
	v, err := s.g.catalog.sale(s.g.base, saleID)
	if err != nil {
		return nil
	}
	a, err := s.g.stock(saleID, allSKUs)
	if err != nil {
		return nil
	}
	is := stateOf(&a)
	s.mu.Lock()
	last := f.last
	s.mu.Unlock()
	if last != nil && last.is == is {
		return nil
	}
	return newStockEvent(v, &a, is)
}

func stateOf(a *lua.Availability) stockState {
	return stockState{a.Head.Epoch, a.Head.Seq, a.Version, a.Phase()}
}

func newStockEvent(v *sale.Version, a *lua.Availability, is stockState) *stockEvent {
	e := &stockEvent{id: fmt.Sprintf("%d-%d", is.epoch, is.seq), is: is}
	for i, numbers := range []bool{false, true} {
		data, err := json.Marshal(availabilityOf(v, a, stockView{numbers: numbers}))
		if err != nil {
			panic(err) // One of our own types: it encodes.
		}
		e.text[i] = fmt.Appendf(nil, "event: stock\nid: %s\ndata: %s\n\n", e.id, data)
	}
	return e
}

func (s *streams) tell(f *feed, e *stockEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.last = e
	for l := range f.listeners {
		select {
		case <-l.news: // It did not get the one before yet, and need not.
		default:
		}
		l.news <- e
	}
}

// close ends all streams and waits for those who read for them.
func (s *streams) close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	s.mu.Unlock()
	s.work.Wait()
}

func (g *Gateway) stream(r *request) error {
	v, err := g.saleInPath(r)
	if err != nil {
		return err
	}
	if len(r.who.Locations) > 0 {
		return refuse(codeForbidden, "The stream tells of all locations, and this key is limited to some: "+
			"read GET /v1/availability.")
	}
	if err := g.limit(r, v, sale.LimitReads, costOfStream); err != nil {
		return err
	}
	// What cannot be read at all is better said now than by silence.
	if _, err := g.stock(v.Sale, v.Config.Items[0].SKU); err != nil {
		return err
	}
	r.ctx.Response.Header.SetContentType("text/event-stream")
	r.setHeader("X-Accel-Buffering", "no")
	if r.ctx.IsHead() {
		return nil
	}
	l, err := g.streams.join(v.Sale)
	if err != nil {
		return err
	}
	w := &streamWriter{
		streams: g.streams, sale: v.Sale, listener: l, conn: r.ctx.Conn(),
		seen: r.header("Last-Event-ID"), beat: g.opts.StreamHeartbeat,
	}
	if room := v.Config.Room(); room != nil && r.byToken() {
		w.customer = r.owner()
		w.beat = min(w.beat, time.Duration(room.GraceSeconds)*time.Second/2)
	}
	if viewOf(r, v, "").numbers {
		w.text = 1
	}
	r.ctx.SetBodyStreamWriter(w.write)
	r.ctx.Response.ImmediateHeaderFlush = true
	return nil
}

// streamWriter writes one stream.
type streamWriter struct {
	streams  *streams
	sale     string
	listener *listener
	conn     net.Conn
	seen     string // the id that the client has; it is not sent first
	text     int    // which of an event's texts
	beat     time.Duration
	customer string // who waits in the sale's waiting room, perhaps, and is there as long as this runs; "" for none
}

// write runs until the client is gone or the gateway ends. There is no sign of a client that hung
// up but the failed flush, so something is sent at least every heartbeat.
func (s *streamWriter) write(w *bufio.Writer) {
	defer s.streams.leave(s.sale, s.listener)
	beat := time.NewTicker(s.beat)
	defer beat.Stop()
	text := []byte("retry: 2000\n\n")
	for {
		if len(text) > 0 {
			if !s.flush(w, text) {
				return
			}
			s.streams.g.room.present(s.sale, s.customer)
		}
		text = nil
		select {
		case <-s.streams.done:
			return
		case <-beat.C:
			text = []byte(": alive\n\n")
		case e := <-s.listener.news:
			if e.id != s.seen {
				text = e.text[s.text]
			}
			s.seen = ""
		}
	}
}

// flush pushes the deadline of the connection on: it was set when the answer began.
func (s *streamWriter) flush(w *bufio.Writer, text []byte) bool {
	if s.conn.SetWriteDeadline(time.Now().Add(s.streams.g.opts.WriteTimeout)) != nil {
		return false
	}
	if _, err := w.Write(text); err != nil {
		return false
	}
	return w.Flush() == nil
}
