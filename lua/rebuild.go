package lua

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"flashgate/sale"
)

var (
	closeScript = load("close")
	buildScript = load("build")
	flipScript  = load("flip")
	trimScript  = load("trim")
)

// ClosedShard is a shard as close.lua found it.
type ClosedShard struct {
	Head Head
	Mark string
	// LastMs is when it was last known to be alive; 0 when Redis had no such shard.
	LastMs int64
	Found  bool
	// Superseded: it was left as it is.
	Superseded bool
}

// Close begins a rebuild: the shard is closed, and token:0 takes the place of any other rebuild. Without a
// token a gateway closes it.
func (s *Shard) Close(ctx context.Context, token, reason string) (ClosedShard, error) {
	return s.CloseOver(ctx, token, reason, anyBuilding)
}

// CloseOver is Close for who has looked: unless building is what it saw the shard is left alone, and the answer
// is Superseded.
func (s *Shard) CloseOver(ctx context.Context, token, reason, building string) (ClosedShard, error) {
	h, rest, err := s.callIn(ctx, closeScript, s.life.Load().era, []any{token, reason, building})
	if err != nil {
		return ClosedShard{}, err
	}
	c := ClosedShard{Head: h, Mark: at(rest, 0), Found: at(rest, 2) == "1", Superseded: h.Outcome == sale.Superseded}
	c.LastMs, _ = strconv.ParseInt(at(rest, 1), 10, 64)
	return c, nil
}

// anyBuilding is no token of a rebuild.
const anyBuilding = "*"

// Slice is one bounded part of what a rebuild writes.
type Slice struct{ args []any }

// Slices lays the books out in slices of at most rows rows, for records that live recordMs from
// the moment they were finished, at nowMs of Redis. Finished records that are over are left out.
func Slices(b *sale.Books, rows int, recordMs, nowMs int64) iter.Seq[Slice] {
	return func(yield func(Slice) bool) {
		w := &sliceWriter{rows: rows, yield: yield}
		w.all(b, recordMs, nowMs)
		if len(w.args) > 0 && !w.stopped {
			yield(Slice{w.args})
		}
	}
}

// sliceWriter hands on each slice as it is full.
type sliceWriter struct {
	rows    int
	yield   func(Slice) bool
	args    []any
	stopped bool
}

func (w *sliceWriter) all(b *sale.Books, recordMs, nowMs int64) {
	for i := range b.Config.Items {
		c := &b.Config.Items[i]
		item := ItemLevels{SKU: c.SKU, Cap: c.CapPerCustomer, LowAt: c.LowAt}
		for _, s := range c.Stock {
			at := sale.Place{SKU: c.SKU, Location: s.Location}
			item.Levels = append(item.Levels, LocationLevel{s.Location, b.Stock[at]})
		}
		w.row("stock", c.SKU, packItem(&item), "")
	}
	for customer, counts := range b.Customers {
		w.row("customer", customer, packCounts(counts), "")
	}
	w.reservations(b, recordMs, nowMs)
	for sku, line := range b.Lines {
		w.row("waitlist", sku, packLine(line), "")
		for _, r := range line.Waiting {
			w.row("waiter", WaiterRow(sku, r.ID).Name, "", strconv.FormatInt(r.Seq, 10))
		}
	}
	for id, a := range b.Adjustments {
		if ms := a.AtMs + recordMs - nowMs; ms > 0 {
			w.row("adjustment", id, a.Pack(), strconv.FormatInt(ms, 10))
		}
	}
}

func (w *sliceWriter) reservations(b *sale.Books, recordMs, nowMs int64) {
	var finished []*sale.Reservation
	due := map[int64]string{} // by deadline in ms: ids joined by newlines
	for id, r := range b.Reservations {
		if r.State.Finished() {
			if r.ResolvedAtMs+recordMs > nowMs {
				finished = append(finished, r)
			}
			continue
		}
		w.row("record", id, r.Pack(), "")
		if r.State != sale.StateHeld {
			continue
		}
		member := due[r.DeadlineMs]
		if len(member) > maxMember {
			w.row("deadline", member, "", strconv.FormatInt(r.DeadlineMs, 10))
			member = ""
		}
		if member != "" {
			member += "\n"
		}
		due[r.DeadlineMs] = member + id
	}
	for at, member := range due {
		w.row("deadline", member, "", strconv.FormatInt(at, 10))
	}
	slices.SortFunc(finished, func(a, b *sale.Reservation) int { return cmp.Compare(a.ResolvedAtMs, b.ResolvedAtMs) })
	for _, r := range finished {
		w.row("record", r.ID, r.Pack(), strconv.FormatInt(r.ResolvedAtMs, 10))
	}
}

// maxMember is about how many bytes of reservation ids are one member of the deadlines.
const maxMember = 1000

func (w *sliceWriter) row(kind, name, value, number string) {
	if w.stopped {
		return
	}
	if len(w.args) >= rowArgs*w.rows {
		w.stopped = !w.yield(Slice{w.args})
		w.args = nil
	}
	if w.args == nil {
		w.args = make([]any, 0, rowArgs*w.rows)
	}
	w.args = append(w.args, kind, name, value, number)
}

// rowArgs are the arguments of a row.
const rowArgs = 4

// packCounts writes the packed counts of shared/units.lua.
func packCounts(counts map[string]int64) string {
	b := append(make([]byte, 0, 32), ';')
	for _, sku := range slices.Sorted(maps.Keys(counts)) {
		b = append(strconv.AppendInt(append(append(b, sku...), '='), counts[sku], 10), ';')
	}
	return string(b)
}

// packLine writes the packed line of shared/waitlist.lua.
func packLine(l *sale.WaitingLine) string {
	return strconv.Itoa(len(l.Waiting)) + "," + strconv.FormatInt(l.Units, 10) + "," + strconv.FormatInt(l.Skips, 10)
}

// Build writes slice number k, from 1, of a rebuild into an epoch: DONE or SUPERSEDED.
func (s *Shard) Build(ctx context.Context, epoch int64, token string, k int, part Slice) (sale.Outcome, error) {
	h, _, err := s.callIn(ctx, buildScript, newEra(s.Sale, s.Number, epoch),
		append([]any{token, k}, part.args...))
	return h.Outcome, err
}

// Flip opens the shard in the epoch of the books, once all slices are written, unless it is later
// than notAfterMs: DONE or SUPERSEDED.
func (s *Shard) Flip(
	ctx context.Context, b *sale.Books, token string, slices int, notAfterMs int64,
) (sale.Outcome, error) {
	args := append([]any{token, slices, notAfterMs, b.Seq, b.Mark}, settingsOf(b)...)
	h, _, err := s.callIn(ctx, flipScript, newEra(s.Sale, s.Number, b.Epoch), args)
	return h.Outcome, err
}

// Trim drops the events of an epoch that the ledger has, all but the last tail, notes the
// watermark and publishes it with the SKUs of which units came back: DONE, MISSING, or RECOVERING when the
// shard does not have the ledger's last event, which mark names.
func (s *Shard) Trim(
	ctx context.Context, epoch, watermark int64, mark string, tail int64, returned ...string,
) (sale.Outcome, error) {
	h, _, err := s.callIn(ctx, trimScript, newEra(s.Sale, s.Number, epoch), []any{
		watermark, mark, tail, WatermarkChannel,
		packWatermark(Watermark{s.Sale, s.Number, epoch, watermark, returned}),
	})
	return h.Outcome, err
}

// DropPast unlinks what is left of all epochs before the one that the shard is in, a bounded number
// of keys at a time, until it is gone or ctx ends.
func (s *Shard) DropPast(ctx context.Context) error {
	l, err := s.Look(ctx, 1, 0, 1)
	if err != nil || l.Missing {
		return err
	}
	node, err := s.node(ctx)
	if err != nil {
		return err
	}
	// Nothing in a sale's id, nor the braces of the tag, is a pattern to SCAN.
	in := tag(s.Sale, s.Number)
	return eachPage(func(cursor uint64) ([]string, uint64, error) {
		return node.Scan(ctx, cursor, in+"*", scanCount).Result()
	}, func(keys []string) error {
		past := keys[:0]
		for _, key := range keys {
			number, _, _ := strings.Cut(strings.TrimPrefix(key, in), ":")
			if epoch, err := strconv.ParseInt(number, 10, 64); err == nil && epoch < l.Epoch {
				past = append(past, key)
			}
		}
		if len(past) == 0 {
			return nil
		}
		return node.Unlink(ctx, past...).Err()
	})
}

const scanCount = 500
