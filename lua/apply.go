package lua

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"flashgate/sale"
)

// ApplyAnswer is what apply.lua says; Detail is the mark of APPLIED, the place of STOCK and
// FIELD_LOCKED, the shard's version of STALE_VERSION.
type ApplyAnswer struct {
	Outcome sale.Outcome
	Detail  string
	Head    Head
}

var applyScript = load("apply")

// Apply brings the shard from one version of the sale to the next; base is nil to create it in
// epoch 1.
func (s *Shard) Apply(ctx context.Context, base *sale.Version, v sale.Version) (ApplyAnswer, error) {
	data, err := json.Marshal(sale.SaleData{
		Version: v.Version, Lifecycle: v.Lifecycle, Reason: v.Reason, Config: v.Config,
	})
	if err != nil {
		return ApplyAnswer{}, err
	}
	var before *sale.Config
	from := ""
	if base != nil {
		before, from = &base.Config, strconv.FormatInt(base.Version, 10)
	}
	change := sale.Diff(before, &v.Config)
	locked := 0
	if len(change.Locked) > 0 {
		locked = 1
	}
	fields := settings(v.Version, v.Lifecycle, &v.Config)
	args := append([]any{from, locked, v.Actor, string(data), len(fields)}, fields...)
	for _, item := range change.Items {
		var levels strings.Builder
		for i, l := range item.Levels {
			if i > 0 {
				levels.WriteByte(';')
			}
			fmt.Fprintf(&levels, "%s:%d,%d", l.Location, l.OnHand, l.Safety)
		}
		args = append(args, item.Item.SKU, item.Item.CapPerCustomer, item.Item.LowAt, levels.String())
	}
	for _, sku := range change.Removed {
		args = append(args, sku, "", "", "")
	}
	h, rest, err := s.call(ctx, applyScript, args...)
	if err != nil {
		return ApplyAnswer{}, err
	}
	return ApplyAnswer{Outcome: h.Outcome, Detail: at(rest, 0), Head: h}, nil
}

// settings are the fields of the sale hash that apply.lua and flip.lua write, each with its value.
func settings(version int64, l sale.Lifecycle, c *sale.Config) []any {
	reserve, reads := c.Limits.Rules(sale.LimitReserve), c.Limits.Rules(sale.LimitReads)
	settle, queue := c.Limits.Rules(sale.LimitSettle), c.Limits.Rules(sale.LimitQueue)
	return []any{
		"version", version, "state", string(l), "opens_ms", int64(c.OpensAt),
		"closes_ms", int64(c.ClosesAt), "hold_ms", c.HoldSeconds * 1000,
		"max_extensions", c.MaxExtensions, "cap_customer", c.Caps.PerCustomer,
		"cap_order", c.Caps.PerOrder, "allocation", string(c.Allocation),
		"limits", reserve.Pack(), "limits_reads", reads.Pack(), "limits_settle", settle.Pack(),
		"limits_queue", queue.Pack(), "room", c.PackRoom(), "waitlist", c.PackWaitlist(),
		"limits_ms", c.Limits.WindowMs(), "tiers", c.Caps.PackTiers(), "groups", c.PackGroups(),
	}
}

// SettingWaiting is the field of the sale hash that says how many wait.
const SettingWaiting = "waiting"

// settingsOf are the settings, and how many wait, which no change of the sale writes.
func settingsOf(b *sale.Books) []any {
	waiting := ""
	if b.Waiting > 0 {
		waiting = strconv.FormatInt(b.Waiting, 10)
	}
	return append(settings(b.Version, b.Lifecycle, b.Config), SettingWaiting, waiting)
}
