package sale_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

// valid is a config with everything set that Validate looks at.
func valid() *sale.Config {
	return &sale.Config{
		Sale: "drop", Title: "Drop", OpensAt: 1_000, ClosesAt: 2_000, HoldSeconds: 300, MaxExtensions: 1,
		Caps: sale.Caps{PerCustomer: 2, PerOrder: 2}, Allocation: sale.AllocateMostStock,
		Items: []sale.Item{
			{SKU: "A", Title: "a", CapPerCustomer: 1, LowAt: 5, Stock: []sale.Stock{{"berlin", 10, 1}, {"leipzig", 5, 0}}},
			{SKU: "B", Stock: []sale.Stock{{"berlin", 7, 0}}},
		},
		Limits: &sale.Limits{
			Customer: &sale.Limit{Rate: 5, PerSeconds: 1, Burst: 10, Mode: sale.LimitOff},
			IP:       &sale.Limit{Rate: 5, PerSeconds: 1, Burst: 10, Mode: sale.LimitOff},
			Device:   &sale.Limit{Rate: 5, PerSeconds: 1, Burst: 10, Mode: sale.LimitOff},
		},
		Queue: &sale.Queue{
			WaitingRoom: &sale.WaitingRoom{AdmitPerSecond: 1, AdmissionSeconds: 1},
			Waitlist:    &sale.Waitlist{Max: 1, OfferSeconds: 5},
		},
	}
}

func pointers(errs []sale.FieldError) string {
	at := make([]string, len(errs))
	for i, e := range errs {
		at[i] = e.Pointer
	}
	return strings.Join(at, " ")
}

func TestValidateNamesTheFieldOfEveryRule(t *testing.T) {
	long := strings.Repeat("x", 201)
	day := sale.Moment((24 * time.Hour).Milliseconds())
	for _, c := range []struct {
		want   string
		change func(*sale.Config)
	}{
		{"", func(*sale.Config) {}},
		{"", func(c *sale.Config) { c.Limits, c.Queue, c.Title, c.Allocation = nil, nil, "", "" }},
		{"", func(c *sale.Config) { c.Limits, c.Queue = &sale.Limits{}, &sale.Queue{} }},
		{"", func(c *sale.Config) { c.OpensAt, c.ClosesAt = sale.MomentNow, sale.MomentAfterNow(time.Hour) }},
		{"", func(c *sale.Config) { c.OpensAt = sale.MomentNow }},
		{"", func(c *sale.Config) { c.ClosesAt = c.OpensAt + 366*day }},
		{"/sale", func(c *sale.Config) { c.Sale = "" }},
		{"/sale", func(c *sale.Config) { c.Sale = "-a" }},
		{"/sale", func(c *sale.Config) { c.Sale = "A" }},
		{"/sale", func(c *sale.Config) { c.Sale = "a\n" }},
		{"/sale", func(c *sale.Config) { c.Sale = strings.Repeat("a", 64) }},
		{"/title", func(c *sale.Config) { c.Title = long }},
		{"/title", func(c *sale.Config) { c.Title = "a\nb" }},
		{"/title", func(c *sale.Config) { c.Title = "\xff" }},
		{"/opens_at", func(c *sale.Config) { c.OpensAt = 0 }},
		{"/closes_at", func(c *sale.Config) { c.ClosesAt = 0 }},
		{"/closes_at", func(c *sale.Config) { c.ClosesAt = c.OpensAt }},
		{"/closes_at", func(c *sale.Config) { c.ClosesAt = c.OpensAt + 366*day + 1 }},
		{"/closes_at", func(c *sale.Config) { c.OpensAt, c.ClosesAt = sale.MomentAfterNow(time.Hour), sale.MomentNow }},
		{"/opens_at /closes_at", func(c *sale.Config) { c.OpensAt, c.ClosesAt = 7_258_118_400_000, 7_258_118_400_001 }},
		{"/hold_seconds", func(c *sale.Config) { c.HoldSeconds = 4 }},
		{"/hold_seconds", func(c *sale.Config) { c.HoldSeconds = 86_401 }},
		{"/max_extensions", func(c *sale.Config) { c.MaxExtensions = -1 }},
		{"/max_extensions", func(c *sale.Config) { c.MaxExtensions = 101 }},
		{"/caps/per_customer", func(c *sale.Config) { c.Caps.PerCustomer = -1 }},
		{"/caps/per_order", func(c *sale.Config) { c.Caps.PerOrder = 1e9 + 1 }},
		{"/allocation", func(c *sale.Config) { c.Allocation = "random" }},
		{"/items", func(c *sale.Config) { c.Items = nil }},
		{"/items", func(c *sale.Config) { c.Items = manyItems(10_001) }},
		{"/items/1/sku", func(c *sale.Config) { c.Items[1].SKU = "A" }},
		{"/items/1/sku", func(c *sale.Config) { c.Items[1].SKU = "a/b" }},
		{"/items/1/sku", func(c *sale.Config) { c.Items[1].SKU = strings.Repeat("a", 65) }},
		{"/items/0/title", func(c *sale.Config) { c.Items[0].Title = long }},
		{"/items/0/cap_per_customer", func(c *sale.Config) { c.Items[0].CapPerCustomer = -1 }},
		{"/items/0/low_at", func(c *sale.Config) { c.Items[0].LowAt = -1 }},
		{"/items/1/stock", func(c *sale.Config) { c.Items[1].Stock = nil }},
		{"/items/0/stock/1/location", func(c *sale.Config) { c.Items[0].Stock[1].Location = "berlin" }},
		{"/items/0/stock/1/location", func(c *sale.Config) { c.Items[0].Stock[1].Location = "" }},
		{"/items/0/stock/1/on_hand", func(c *sale.Config) { c.Items[0].Stock[1].OnHand = 1e9 + 1 }},
		{"/items/0/stock/0/on_hand /items/0/stock/0/safety", func(c *sale.Config) { c.Items[0].Stock[0].OnHand = -1 }},
		{"/items/0/stock/1/safety", func(c *sale.Config) { c.Items[0].Stock[1].Safety = -1 }},
		{"/items/0/stock/1/safety", func(c *sale.Config) { c.Items[0].Stock[1].Safety = 6 }},
		{"/limits/customer/rate", func(c *sale.Config) { c.Limits.Customer.Rate = 0 }},
		{"/limits/ip/per_seconds", func(c *sale.Config) { c.Limits.IP.PerSeconds = 0 }},
		{"/limits/device/burst", func(c *sale.Config) { c.Limits.Device.Burst = 0 }},
		{"/limits/device/mode", func(c *sale.Config) { c.Limits.Device.Mode = "maybe" }},
		{"/queue/waiting_room/admit_per_second", func(c *sale.Config) { c.Queue.WaitingRoom.AdmitPerSecond = 0 }},
		{"/queue/waiting_room/admission_seconds", func(c *sale.Config) { c.Queue.WaitingRoom.AdmissionSeconds = 0 }},
		{"/queue/waiting_room/admit_per_second", func(c *sale.Config) { c.Queue.WaitingRoom.AdmitPerSecond = -1 }},
		{"/queue/waiting_room/admit_per_second", func(c *sale.Config) { c.Queue.WaitingRoom.AdmitPerSecond = 10_001 }},
		{"/queue/waiting_room/presale_seconds", func(c *sale.Config) { c.Queue.WaitingRoom.PresaleSeconds = -1 }},
		{"/queue/waiting_room/grace_seconds", func(c *sale.Config) {
			c.Queue.WaitingRoom.GraceSeconds, c.Queue.WaitingRoom.PollSeconds = 9, 5
		}},
		{"/queue/waiting_room/grace_seconds", func(c *sale.Config) { c.Queue.WaitingRoom.GraceSeconds = -1 }},
		{"/queue/waiting_room/poll_seconds", func(c *sale.Config) { c.Queue.WaitingRoom.PollSeconds = -1 }},
		{"/queue/waiting_room/over_admission_percent", func(c *sale.Config) { c.Queue.WaitingRoom.OverAdmissionPercent = 99 }},
		{"/queue/waiting_room/mode", func(c *sale.Config) { c.Queue.WaitingRoom.Mode = "shut" }},
		{"/queue/waitlist/max", func(c *sale.Config) { c.Queue.Waitlist.Max = 0 }},
		{"/queue/waitlist/offer_seconds", func(c *sale.Config) { c.Queue.Waitlist.OfferSeconds = 4 }},
	} {
		config := valid()
		c.change(config)
		errs := config.Validate()
		require.Equal(t, c.want, pointers(errs), "%v", errs)
	}
}

func manyItems(n int) []sale.Item {
	items := make([]sale.Item, n)
	for i := range items {
		items[i] = sale.Item{SKU: strconv.Itoa(i), Stock: []sale.Stock{{"main", 1, 0}}}
	}
	return items
}

func TestCheckLines(t *testing.T) {
	ok := sale.Line{SKU: "A", Qty: 1, Location: "main"}
	for _, c := range []struct {
		want  string
		open  bool
		lines []sale.Line
	}{
		{"", false, []sale.Line{ok, ok}},
		{"", true, []sale.Line{{SKU: "A", Qty: 1000}}},
		{"/lines", true, nil},
		{"/lines", true, slices.Repeat([]sale.Line{ok}, 21)},
		{"/lines/0/location", false, []sale.Line{{SKU: "A", Qty: 1}}},
		{"/lines/1/sku", true, []sale.Line{ok, {SKU: "A=1;B", Qty: 1}}},
		{"/lines/0/qty", true, []sale.Line{{SKU: "A", Qty: 0}}},
		{"/lines/0/qty", true, []sale.Line{{SKU: "A", Qty: 1001}}},
		{"/lines/0/location", true, []sale.Line{{SKU: "A", Qty: 1, Location: "a b"}}},
	} {
		require.Equal(t, c.want, pointers(sale.CheckLines(c.lines, "/lines", c.open)))
	}
}

func TestNames(t *testing.T) {
	require.Empty(t, sale.CheckReservationID("ord-7f3a.x_Y:1"))
	require.Empty(t, sale.CheckOpaqueID(strings.Repeat("ü", 128)))
	require.Empty(t, sale.CheckReason("a customer's wish: \"refund\" {1}"))
	for _, s := range []string{"", "1234567", strings.Repeat("a", 65), "abcdefg\n", "abc defgh", "abcdefg\x00", "äbcdefgh"} {
		require.NotEmpty(t, sale.CheckReservationID(s), "%q", s)
	}
	for _, s := range []string{"", strings.Repeat("ü", 129), "a\nb", "a\x00", "a\x7f", "a\u0085", "a\u2028", "\xff"} {
		require.NotEmpty(t, sale.CheckOpaqueID(s), "%q", s)
	}
	require.NotEmpty(t, sale.CheckReason(strings.Repeat("a", 501)))
	require.Equal(t, "/a: b", sale.FieldError{Pointer: "/a", Detail: "b"}.Error())
}
