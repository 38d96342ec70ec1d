package lua

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"flashgate/sale"
)

// RowKind is a kind of rows of a shard's data.
type RowKind string

// The kinds. All but the settings, which are fields of the sale hash, are what a rebuild writes.
const (
	RowSetting    RowKind = "setting"
	RowStock      RowKind = "stock"
	RowCustomer   RowKind = "customer"
	RowRecord     RowKind = "record"
	RowDeadline   RowKind = "deadline"
	RowAdjustment RowKind = "adjustment"
	RowWaitlist   RowKind = "waitlist"
	RowWaiter     RowKind = "waiter"
)

// Row names one value of a shard's data.
type Row struct {
	Kind RowKind
	Name string
}

// RowValue is a row as Redis has it; Value is "" when it has none.
type RowValue struct {
	Row
	Value string
	// LeftMs is how long an adjustment has to live; -1 is for ever.
	LeftMs int64
}

// Cut is some rows of a shard, all at the moment that (Epoch, Seq, Mark) names.
type Cut struct {
	// Missing: Redis has no such shard.
	Missing    bool
	Epoch, Seq int64
	Mark       string
	// NowMs is the time of Redis, LastMs that at which the shard was last known to be alive.
	NowMs, LastMs int64
	// Open: the shard takes calls, and no rebuild of it is under way.
	Open bool
	Rows []RowValue
}

var cutScript = load("cut")

// cutFields come before the rows in the reply of cut.lua.
const cutFields = 4

// Cut reads rows of an epoch, in the order asked, at most MaxCut of them. It works on a shard that
// is closed too.
func (s *Shard) Cut(ctx context.Context, epoch int64, rows []Row) (Cut, error) {
	if len(rows) > MaxCut {
		return Cut{}, fmt.Errorf("cut: %d rows, at most %d", len(rows), MaxCut)
	}
	args := make([]any, 0, 2*len(rows))
	for _, r := range rows {
		args = append(args, string(r.Kind), r.Name)
	}
	h, f, err := s.callIn(ctx, cutScript, newEra(s.Sale, s.Number, max(epoch, 1)), args)
	if err != nil {
		return Cut{}, err
	}
	c := Cut{Missing: h.Outcome == sale.Missing, Epoch: h.Epoch, Seq: h.Seq, NowMs: h.NowMs}
	if c.Missing {
		return c, nil
	}
	if len(f) != cutFields+2*len(rows) {
		return c, fmt.Errorf("cut: %w: %d fields", ErrScript, len(f))
	}
	c.Mark, c.Open = f[0], f[2] == doorOpen && f[3] == ""
	if c.LastMs, err = strconv.ParseInt(f[1], 10, 64); err != nil {
		return c, fmt.Errorf("cut: %w: %w", ErrScript, err)
	}
	c.Rows = make([]RowValue, len(rows))
	for i, r := range rows {
		v := RowValue{Row: r, Value: f[cutFields+2*i]}
		v.LeftMs, _ = strconv.ParseInt(f[cutFields+2*i+1], 10, 64)
		if r.Kind == RowWaiter && v.Value != "" {
			score, err := strconv.ParseFloat(v.Value, 64)
			if err != nil {
				return c, fmt.Errorf("cut: %w: %w", ErrScript, err)
			}
			v.Value = strconv.FormatFloat(score, 'f', -1, 64)
		}
		c.Rows[i] = v
	}
	return c, nil
}

// MaxCut bounds the rows of one cut: about 1 ms of Redis.
const MaxCut = 1000

// Names calls f with the names of all rows that Redis has in an epoch, settings and deadlines apart, some
// hundred at a time. What comes or goes meanwhile may be among them or not, and one may be named twice.
func (s *Shard) Names(ctx context.Context, epoch int64, f func([]Row) error) error {
	node, err := s.node(ctx)
	if err != nil {
		return err
	}
	in := tag(s.Sale, s.Number) + strconv.FormatInt(epoch, 10) + ":"
	for _, hash := range []struct {
		key  string
		kind RowKind
	}{
		{in + "stock", RowStock},
		{in + "customers", RowCustomer},
		{in + "records", RowRecord},
		{in + "waitlist", RowWaitlist},
	} {
		err := eachPage(func(cursor uint64) ([]string, uint64, error) {
			return node.HScan(ctx, hash.key, cursor, "", scanCount).Result()
		}, func(pairs []string) error {
			rows := make([]Row, 0, len(pairs)/2)
			for i := 0; i+1 < len(pairs); i += 2 {
				rows = append(rows, Row{hash.kind, pairs[i]})
			}
			return f(rows)
		})
		if err != nil {
			return err
		}
	}
	return eachPage(func(cursor uint64) ([]string, uint64, error) {
		// Nothing in a sale's id, nor the braces of the tag, is a pattern to SCAN.
		return node.Scan(ctx, cursor, in+"[aw]:*", scanCount).Result()
	}, func(keys []string) error {
		rows := make([]Row, 0, len(keys))
		for _, key := range keys {
			switch kind, name, _ := strings.Cut(strings.TrimPrefix(key, in), ":"); kind {
			case "a":
				rows = append(rows, Row{RowAdjustment, name})
			case "w":
				if err := eachWaiter(ctx, node, key, name, f); err != nil {
					return err
				}
			}
		}
		return f(rows)
	})
}

// eachWaiter calls f with the names of all who are in the line of a SKU.
func eachWaiter(ctx context.Context, node redis.Cmdable, key, sku string, f func([]Row) error) error {
	return eachPage(func(cursor uint64) ([]string, uint64, error) {
		return node.ZScan(ctx, key, cursor, "", scanCount).Result()
	}, func(pairs []string) error {
		rows := make([]Row, 0, len(pairs)/2)
		for i := 0; i+1 < len(pairs); i += 2 {
			rows = append(rows, WaiterRow(sku, pairs[i]))
		}
		return f(rows)
	})
}

// WaiterRow is the row of a reservation in the line of a SKU.
func WaiterRow(sku, id string) Row { return Row{RowWaiter, sku + "/" + id} }

// eachPage walks a scan to its end.
func eachPage(scan func(cursor uint64) ([]string, uint64, error), f func([]string) error) error {
	for cursor := uint64(0); ; {
		page, next, err := scan(cursor)
		if err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		for len(page) > 0 {
			// A small hash comes whole, whatever was asked for.
			n := min(len(page), MaxCut)
			if err := f(page[:n]); err != nil {
				return err
			}
			page = page[n:]
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// SettingRows are the settings of the sale.
func SettingRows(b *sale.Books) []Row {
	var rows []Row
	pairs := settingsOf(b)
	for i := 0; i+1 < len(pairs); i += 2 {
		rows = append(rows, Row{RowSetting, fmt.Sprint(pairs[i])})
	}
	return rows
}

// Want is the value that the books give a row, in the form in which Redis keeps it; "" for one that
// must not be there.
func (r Row) Want(b *sale.Books) string {
	switch r.Kind {
	case RowSetting:
		pairs := settingsOf(b)
		for i := 0; i+1 < len(pairs); i += 2 {
			if pairs[i] == r.Name {
				return fmt.Sprint(pairs[i+1])
			}
		}
	case RowStock:
		c := b.Config.Item(r.Name)
		if c == nil {
			return ""
		}
		item := ItemLevels{SKU: c.SKU, Cap: c.CapPerCustomer, LowAt: c.LowAt}
		for _, s := range c.Stock {
			at := sale.Place{SKU: c.SKU, Location: s.Location}
			item.Levels = append(item.Levels, LocationLevel{s.Location, b.Stock[at]})
		}
		return packItem(&item)
	case RowCustomer:
		if counts := b.Customers[r.Name]; len(counts) > 0 {
			return packCounts(counts)
		}
	case RowRecord:
		if v := b.Reservations[r.Name]; v != nil {
			return v.Pack()
		}
	case RowDeadline:
		if v := b.Reservations[r.Name]; v != nil && v.State == sale.StateHeld {
			return strconv.FormatInt(v.DeadlineMs, 10)
		}
	case RowAdjustment:
		if v := b.Adjustments[r.Name]; v != nil {
			return v.Pack()
		}
	case RowWaitlist:
		if line := b.Lines[r.Name]; line != nil {
			return packLine(line)
		}
	case RowWaiter:
		sku, id, _ := strings.Cut(r.Name, "/")
		if v := b.Reservations[id]; v != nil && v.State == sale.StateWaiting &&
			slices.ContainsFunc(v.Lines, func(l sale.Line) bool { return l.SKU == sku }) {
			return strconv.FormatInt(v.Seq, 10)
		}
	}
	return ""
}

// Field is one part of a row's value.
type Field struct{ Name, Value string }

// The parts of the packed forms: those of sale.Reservation.Pack and sale.Adjustment.Pack.
var rowFields = map[RowKind][]string{
	RowRecord: {
		"state", "customer", "fingerprint", "lines", "held_at", "deadline", "resolved_at", "extension", "order",
		"seq", "mark",
	},
	RowAdjustment: {
		"fingerprint", "sku", "location", "field", "delta", "at", "on_hand", "safety", "held", "sold", "seq", "mark",
	},
}

// Fields takes a value of the row apart, so that it can be compared field by field; one that does
// not have its form is one field without a name.
func (r Row) Fields(value string) []Field {
	whole := []Field{{"", value}}
	switch r.Kind {
	case RowRecord, RowAdjustment:
		parts, names := strings.Split(value, "\n"), rowFields[r.Kind]
		if len(parts) != len(names) {
			return whole
		}
		fields := make([]Field, len(names))
		for i, name := range names {
			fields[i] = Field{name, parts[i]}
		}
		return fields
	case RowStock:
		item, err := parseItem(r.Name, value)
		if err != nil {
			return whole
		}
		fields := []Field{{"cap", strconv.FormatInt(item.Cap, 10)}, {"low_at", strconv.FormatInt(item.LowAt, 10)}}
		for _, l := range item.Levels {
			fields = append(fields, Field{l.Location, fmt.Sprintf("on_hand %d, safety %d, held %d, sold %d",
				l.OnHand, l.Safety, l.Held, l.Sold)})
		}
		return fields
	default:
		return whole
	}
}

// Levels are the locations of a stock row; none when it is not there.
func (v RowValue) Levels() ([]LocationLevel, error) {
	if v.Kind != RowStock || v.Value == "" {
		return nil, nil
	}
	item, err := parseItem(v.Name, v.Value)
	return item.Levels, err
}

// Oversold names the locations of a stock row whose numbers do not add up.
func (v RowValue) Oversold() []string {
	levels, err := v.Levels()
	if err != nil {
		return nil
	}
	var at []string
	for _, l := range levels {
		if l.Check() != nil {
			at = append(at, l.Location)
		}
	}
	return at
}

// ClaimVerify asks whether to verify the shard now: of all who ask within ttl the first is told so.
func (s *Shard) ClaimVerify(ctx context.Context, ttl time.Duration) (bool, error) {
	first, err := s.store.rdb.SetNX(ctx, tag(s.Sale, s.Number)+"verify", "1", ttl).Result()
	if err != nil {
		return false, fmt.Errorf("claim of a verification: %w", err)
	}
	return first, nil
}
