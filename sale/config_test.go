package sale_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

func TestMomentReadsAndWrites(t *testing.T) {
	for text, want := range map[string]struct {
		m    sale.Moment
		back string
	}{
		"2026-11-27T10:00:00Z":           {1_795_773_600_000, "2026-11-27T10:00:00.000Z"},
		"2026-11-27T11:00:00.5+01:00":    {1_795_773_600_500, "2026-11-27T10:00:00.500Z"},
		"2026-11-27T10:00:00.123999999Z": {1_795_773_600_123, "2026-11-27T10:00:00.123Z"},
		"1970-01-01T00:00:00.001Z":       {1, "1970-01-01T00:00:00.001Z"},
		"now":                            {sale.MomentNow, "now"},
		"now+2h30m":                      {sale.MomentAfterNow(150 * time.Minute), "now+2h30m0s"},
		"now+8784h":                      {sale.MomentAfterNow(366 * 24 * time.Hour), "now+8784h0m0s"},
	} {
		var m sale.Moment
		quoted, err := json.Marshal(text)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(quoted, &m), text)
		require.Equal(t, want.m, m, text)
		b, err := json.Marshal(m)
		require.NoError(t, err)
		require.Equal(t, `"`+want.back+`"`, string(b))
		var again sale.Moment
		require.NoError(t, json.Unmarshal(b, &again))
		require.Equal(t, m, again)
	}
	for _, wrong := range []string{
		`""`, `"NOW"`, `"now "`, `"now2h"`, `"now-2h"`, `"now+-2h"`, `"now+"`, `"now+2"`, `"now+8785h"`, `"tomorrow"`,
		`"2026-11-27"`, `"2026-11-27T10:00:00"`, `"2026-13-27T10:00:00Z"`, `"1969-12-31T23:59:59.999Z"`, `5`, `true`, `[]`,
	} {
		var m sale.Moment
		require.Error(t, json.Unmarshal([]byte(wrong), &m), wrong)
	}
}

func TestResolve(t *testing.T) {
	c := sale.Config{OpensAt: sale.MomentNow, ClosesAt: sale.MomentAfterNow(time.Hour)}
	c.Resolve(1000, nil)
	require.Equal(t, sale.Config{OpensAt: 1000, ClosesAt: 3_601_000, Allocation: sale.AllocatePriority}, c)
	c = sale.Config{OpensAt: 5, ClosesAt: 6, Allocation: sale.AllocateMostStock}
	before := c
	c.Resolve(1000, nil)
	require.Equal(t, before, c)
	// What was relative when the sale was created stays where it was.
	c = sale.Config{OpensAt: sale.MomentNow, ClosesAt: sale.MomentAfterNow(time.Hour)}
	c.Resolve(1000, &before)
	require.Equal(t, sale.Config{OpensAt: 5, ClosesAt: 6, Allocation: sale.AllocatePriority}, c)
}

func TestPhaseAt(t *testing.T) {
	for _, c := range []struct {
		lifecycle sale.Lifecycle
		now       sale.Moment
		want      sale.Phase
	}{
		{sale.Live, 9, sale.PhaseScheduled},
		{sale.Live, 10, sale.PhaseOpen},
		{sale.Live, 19, sale.PhaseOpen},
		{sale.Live, 20, sale.PhaseClosed},
		{sale.Paused, 9, sale.PhasePaused},
		{sale.Paused, 10, sale.PhasePaused},
		{sale.Paused, 20, sale.PhaseClosed},
		{sale.Closed, 9, sale.PhaseClosed},
		{sale.Closed, 15, sale.PhaseClosed},
	} {
		require.Equal(t, c.want, sale.PhaseAt(c.lifecycle, 10, 20, c.now), "%+v", c)
	}
}

func TestItem(t *testing.T) {
	c := valid()
	require.Same(t, &c.Items[1], c.Item("B"))
	require.Nil(t, c.Item("C"))
}

func TestDiff(t *testing.T) {
	fresh := sale.Diff(nil, valid())
	require.Empty(t, fresh.Locked)
	require.Empty(t, fresh.Removed)
	require.Equal(t, []sale.LevelChange{{"berlin", 10, 1}, {"leipzig", 5, 0}}, fresh.Items[0].Levels)

	for _, c := range []struct {
		name    string
		change  func(*sale.Config)
		locked  []string
		removed []string
		levels  []sale.LevelChange // of the first item
	}{
		{"same", func(*sale.Config) {}, nil, nil, []sale.LevelChange{{"berlin", 0, 0}, {"leipzig", 0, 0}}},
		{"free to change", func(c *sale.Config) {
			c.ClosesAt, c.HoldSeconds, c.Caps.PerOrder, c.Title, c.Items[0].CapPerCustomer = 9, 9, 9, "t", 9
		}, nil, nil, []sale.LevelChange{{"berlin", 0, 0}, {"leipzig", 0, 0}}},
		{"new item", func(c *sale.Config) {
			c.Items = append([]sale.Item{{SKU: "C", Stock: []sale.Stock{{"main", 3, 1}}}}, c.Items...)
		}, nil, nil, []sale.LevelChange{{"main", 3, 1}}},
		{"order of items", func(c *sale.Config) { c.Items[0], c.Items[1] = c.Items[1], c.Items[0] }, nil, nil, []sale.LevelChange{{"berlin", 0, 0}}},
		{"opens_at", func(c *sale.Config) { c.OpensAt++ }, []string{"/opens_at"}, nil, []sale.LevelChange{{"berlin", 0, 0}, {"leipzig", 0, 0}}},
		{"stock", func(c *sale.Config) { c.Items[0].Stock[0].OnHand -= 3 }, []string{"/items/0/stock"}, nil, []sale.LevelChange{{"berlin", -3, 0}, {"leipzig", 0, 0}}},
		{"safety", func(c *sale.Config) { c.Items[0].Stock[1].Safety = 2 }, []string{"/items/0/stock"}, nil, []sale.LevelChange{{"berlin", 0, 0}, {"leipzig", 0, 2}}},
		{"place gone", func(c *sale.Config) { c.Items[0].Stock = c.Items[0].Stock[:1] }, []string{"/items/0/stock"}, nil, []sale.LevelChange{{"berlin", 0, 0}}},
		{"place new", func(c *sale.Config) { c.Items[0].Stock[1].Location = "bonn" }, []string{"/items/0/stock"}, nil, []sale.LevelChange{{"berlin", 0, 0}, {"bonn", 5, 0}}},
		{"item gone", func(c *sale.Config) { c.Items = c.Items[:1] }, []string{"/items"}, []string{"B"}, []sale.LevelChange{{"berlin", 0, 0}, {"leipzig", 0, 0}}},
	} {
		after := valid()
		c.change(after)
		got := sale.Diff(valid(), after)
		require.Equal(t, c.locked, got.Locked, c.name)
		require.Equal(t, c.removed, got.Removed, c.name)
		require.Equal(t, c.levels, got.Items[0].Levels, c.name)
	}
}
