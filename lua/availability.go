package lua

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"flashgate/sale"
)

// Availability is the stock of a shard at one moment.
type Availability struct {
	Head      Head
	Version   int64
	Lifecycle sale.Lifecycle
	OpensAt   sale.Moment
	ClosesAt  sale.Moment
	// Watermark is the seq up to which the ledger has the shard's events.
	Watermark int64
	Items     []ItemLevels
}

// Phase is what a storefront sees of lifecycle and window at that moment.
func (a *Availability) Phase() sale.Phase {
	return sale.PhaseAt(a.Lifecycle, a.OpensAt, a.ClosesAt, sale.Moment(a.Head.NowMs))
}

// ItemLevels are the levels of one SKU, by location in the order of the sale's list.
type ItemLevels struct {
	SKU    string
	Cap    int64
	LowAt  int64
	Levels []LocationLevel
}

// LocationLevel is the level at one location.
type LocationLevel struct {
	Location string
	sale.Level
}

// Total sums an item over its locations.
func (i *ItemLevels) Total() sale.Level {
	var t sale.Level
	for _, l := range i.Levels {
		t.OnHand += l.OnHand
		t.Safety += l.Safety
		t.Held += l.Held
		t.Sold += l.Sold
	}
	return t
}

var availabilityScript = load("availability")

// Availability reads the levels of some SKUs, or of all when none is named, in no order. A SKU
// that the sale does not have is left out. Head.Outcome is DONE, MISSING or RECOVERING.
func (s *Shard) Availability(ctx context.Context, skus ...string) (Availability, error) {
	args := make([]any, len(skus))
	for i, sku := range skus {
		args[i] = sku
	}
	h, rest, err := s.call(ctx, availabilityScript, args...)
	if err != nil || h.Outcome != sale.Done {
		return Availability{Head: h}, err
	}
	a := Availability{Head: h, Lifecycle: sale.Lifecycle(at(rest, 1))}
	a.Version, _ = strconv.ParseInt(at(rest, 0), 10, 64)
	opens, _ := strconv.ParseInt(at(rest, 2), 10, 64)
	closes, _ := strconv.ParseInt(at(rest, 3), 10, 64)
	a.OpensAt, a.ClosesAt = sale.Moment(opens), sale.Moment(closes)
	a.Watermark, _ = strconv.ParseInt(at(rest, 4), 10, 64)
	for i := 5; i+1 < len(rest); i += 2 {
		item, err := parseItem(at(rest, i), at(rest, i+1))
		if err != nil {
			return a, fmt.Errorf("availability: %w: %w", ErrScript, err)
		}
		a.Items = append(a.Items, item)
	}
	return a, nil
}

// parseItem reads the packed item of shared/units.lua.
func parseItem(sku, packed string) (ItemLevels, error) {
	item := ItemLevels{SKU: sku}
	settings, levels, ok := strings.Cut(packed, "|")
	first, low, ok2 := strings.Cut(settings, ",")
	if !ok || !ok2 {
		return item, fmt.Errorf("item %s: %q", sku, packed)
	}
	item.Cap, _ = strconv.ParseInt(first, 10, 64)
	item.LowAt, _ = strconv.ParseInt(low, 10, 64)
	for part := range strings.SplitSeq(levels, ";") {
		location, numbers, _ := strings.Cut(part, ":")
		level, err := parseLevel(numbers)
		if err != nil {
			return item, fmt.Errorf("item %s: %w", sku, err)
		}
		item.Levels = append(item.Levels, LocationLevel{location, level})
	}
	return item, nil
}

func parseLevel(packed string) (sale.Level, error) {
	var l sale.Level
	f := strings.Split(packed, ",")
	if len(f) != 4 {
		return l, fmt.Errorf("level %q", packed)
	}
	for i, to := range []*int64{&l.OnHand, &l.Safety, &l.Held, &l.Sold} {
		v, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return l, fmt.Errorf("level %q: %w", packed, err)
		}
		*to = v
	}
	return l, nil
}

// packItem writes the packed item of shared/units.lua.
func packItem(i *ItemLevels) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d,%d|", i.Cap, i.LowAt)
	for n, l := range i.Levels {
		if n > 0 {
			b.WriteByte(';')
		}
		fmt.Fprintf(&b, "%s:%d,%d,%d,%d", l.Location, l.OnHand, l.Safety, l.Held, l.Sold)
	}
	return b.String()
}
