package sale_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

func TestRulesArePackedAndParsed(t *testing.T) {
	l := &sale.Limits{
		Customer: &sale.Limit{Rate: 3, PerSeconds: 1, Burst: 10},
		IP:       &sale.Limit{Rate: 1, PerSeconds: 1, Burst: 1, Mode: sale.LimitOff},
		Device:   &sale.Limit{Rate: 2, PerSeconds: 60, Burst: 4, Mode: sale.LimitShadow},
		Settle:   &sale.Rules{IP: &sale.Limit{Rate: 10_000, PerSeconds: 1, Burst: 7, Mode: sale.LimitEnforce}},
	}
	reserve, reads, settle := l.Rules(sale.LimitReserve), l.Rules(sale.LimitReads), l.Rules(sale.LimitSettle)
	require.Equal(t, "customer,333334,10,enforce;device,30000000,4,shadow;", reserve.Pack())
	require.Empty(t, reads.Pack())
	require.Equal(t, "ip,100,7,enforce;", settle.Pack())
	got, err := sale.ParseRules(reserve.Pack())
	require.NoError(t, err)
	require.Equal(t, []sale.PackedRule{
		{Dimension: 0, IntervalUs: 333_334, Burst: 10}, {Dimension: 2, IntervalUs: 30_000_000, Burst: 4, Shadow: true},
	}, got)
	got, err = sale.ParseRules("")
	require.NoError(t, err)
	require.Empty(t, got)
	for _, wrong := range []string{"x", "customer,1,1", "else,1,1,enforce;", "ip,0,1,enforce;", "ip,1,0,enforce;", "ip,x,1,enforce;"} {
		_, err := sale.ParseRules(wrong)
		require.Error(t, err, wrong)
	}
}

func TestTheLongestWindowIsThatOfAllRulesThatAreOn(t *testing.T) {
	require.Zero(t, (*sale.Limits)(nil).WindowMs())
	require.Zero(t, (&sale.Limits{IP: &sale.Limit{Rate: 1, PerSeconds: 9, Burst: 9, Mode: sale.LimitOff}}).WindowMs())
	l := &sale.Limits{Customer: &sale.Limit{Rate: 3, PerSeconds: 1, Burst: 10}}
	require.Equal(t, int64(3334), l.WindowMs(), "rounded up")
	l.Reads = &sale.Rules{Device: &sale.Limit{Rate: 1, PerSeconds: 2, Burst: 5, Mode: sale.LimitShadow}}
	require.Equal(t, int64(10_000), l.WindowMs())
}

func TestTiersAndGroupsArePacked(t *testing.T) {
	require.Empty(t, (&sale.Caps{}).PackTiers())
	require.Empty(t, (&sale.Config{}).PackGroups())
	c := sale.Config{
		Caps: sale.Caps{Tiers: map[string]sale.Tier{"b": {PerOrder: 3}, "a": {PerCustomer: 2}}},
		Groups: []sale.Group{
			{Name: "one", SKUs: []string{"A", "B"}, CapPerCustomer: 2}, {Name: "two", SKUs: []string{"B"}, CapPerCustomer: 1},
		},
	}
	require.Equal(t, ";a=2,0;b=0,3;", c.Caps.PackTiers())
	require.Equal(t, "one=2:,A,B,;two=1:,B,;", c.PackGroups())
}
