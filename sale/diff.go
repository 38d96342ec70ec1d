package sale

import "slices"

// Change is what applying a config over an earlier one does to the stock of a shard.
type Change struct {
	// Items lists every item of the new config with the change of its levels; items that are in
	// the earlier config only are in Removed.
	Items   []ItemChange
	Removed []string
	// Locked names the JSON pointers of what may not change once the sale has opened.
	Locked []string
}

// ItemChange is an item whose levels move by OnHand and Safety at each location, in the order of
// the config.
type ItemChange struct {
	Item   *Item
	Levels []LevelChange
}

// LevelChange moves a level; a place that is new starts at zero.
type LevelChange struct {
	Location       string
	OnHand, Safety int64
}

// Diff compares a config with the one before it; before is nil for a new sale. Allotments move
// by their difference, so that adjustments made in between stay.
func Diff(before, after *Config) Change {
	var c Change
	if before == nil {
		before = &Config{OpensAt: after.OpensAt}
	}
	fresh := len(before.Items) == 0
	if before.OpensAt != after.OpensAt {
		c.Locked = append(c.Locked, "/opens_at")
	}
	for i := range after.Items {
		item := &after.Items[i]
		ic := ItemChange{Item: item}
		old := before.Item(item.SKU)
		locked := false
		for _, s := range item.Stock {
			lc := LevelChange{Location: s.Location, OnHand: s.OnHand, Safety: s.Safety}
			if old != nil {
				o := old.at(s.Location)
				if o == nil {
					locked = true
				} else {
					lc.OnHand -= o.OnHand
					lc.Safety -= o.Safety
					locked = locked || lc.OnHand != 0 || lc.Safety != 0
				}
			}
			ic.Levels = append(ic.Levels, lc)
		}
		if old != nil && len(item.Stock) < len(old.Stock) {
			locked = true
		}
		if locked && !fresh {
			c.Locked = append(c.Locked, pointer("items", i, "stock"))
		}
		c.Items = append(c.Items, ic)
	}
	for i := range before.Items {
		if after.Item(before.Items[i].SKU) == nil {
			c.Removed = append(c.Removed, before.Items[i].SKU)
		}
	}
	if len(c.Removed) > 0 {
		c.Locked = append(c.Locked, "/items")
	}
	return c
}

func (i *Item) at(location string) *Stock {
	k := slices.IndexFunc(i.Stock, func(s Stock) bool { return s.Location == location })
	if k < 0 {
		return nil
	}
	return &i.Stock[k]
}
