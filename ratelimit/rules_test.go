package ratelimit

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

func parse(t testing.TB, packed string) *Rules {
	t.Helper()
	r, err := Parse(packed)
	require.NoError(t, err)
	return r
}

func TestPolicy(t *testing.T) {
	limit := func(rate, seconds, burst int64, mode sale.LimitMode) *sale.Limit {
		return &sale.Limit{Rate: rate, PerSeconds: seconds, Burst: burst, Mode: mode}
	}
	for want, rules := range map[string]sale.Rules{
		"":                                    {},
		`"customer";q=10;w=2, "ip";q=100;w=2`: {Customer: limit(5, 1, 10, ""), IP: limit(50, 1, 100, sale.LimitEnforce)},
		`"device";q=1;w=7`:                    {IP: limit(50, 1, 100, sale.LimitShadow), Device: limit(3, 20, 1, "")},
		`"customer";q=3;w=1`:                  {Customer: limit(3, 1, 3, ""), Device: limit(1, 1, 1, sale.LimitOff)}, // not 2
		`"ip";q=7;w=1`:                        {IP: limit(1_000_000, 1, 7, "")},
		`"ip";q=1;w=86400`:                    {IP: limit(1, 86_400, 1, "")},
		`"ip";q=1000000;w=1`:                  {IP: limit(1_000_000, 1, 1_000_000, "")},
	} {
		packed := rules.Pack()
		r := parse(t, packed)
		require.Equal(t, want, r.Policy(), packed)
		require.Equal(t, packed, r.Packed())
	}
}

func TestParseErrors(t *testing.T) {
	for _, packed := range []string{
		"customer,200000,10", "tier,200000,10,enforce;", "ip,0,10,enforce;", "ip,1,x,enforce;",
		"ip,1,1,enforce;ip,2,2,enforce;", "ip,9000000000000,9000000000000,enforce;",
	} {
		_, err := Parse(packed)
		require.Error(t, err, packed)
	}
}

func TestAppendRateLimit(t *testing.T) {
	const now = int64(1_800_000_000_000_000)
	three := "customer,200000,10,enforce;ip,20000,100,shadow;device,60000000,2,enforce;"
	for _, c := range []struct{ name, packed, arrivals, want string }{
		{"three spent of ten", three, "1800000000600000 - -", `"customer";r=7;t=1`},
		{"all spent, one comes back", three, "1800000002000000 - -", `"customer";r=0;t=1`},
		{"shadow rules are not told", three, "- !1800000009000000 -", ""},
		{
			"two rules", three, "1800000000200000 1800000000020000 1800000060000000",
			`"customer";r=9;t=1, "device";r=1;t=60`,
		},
		{"half a minute later", three, "- - 1800000090000000", `"device";r=0;t=30`},
		{"a us more is a second more", three, "- - 1800000090000001", `"device";r=0;t=31`},
		{"whole again", three, "1700000000000000 - 0", `"customer";r=10;t=1, "device";r=2;t=60`},
		{"clock of Redis stepped back", three, "1900000000000000 - -", `"customer";r=0;t=1`},
		{"not judged", three, "", ""},
		{"cut off", three, "1800000000600000 -", `"customer";r=7;t=1`},
		{"unreadable", three, "x - 1", ""},
		{"negative", three, "-5 - 1", ""},
		{"too large", three, "99999999999999999999 - 1", ""},
		{"no rules", "", "1 2 3", ""},
	} {
		r := parse(t, c.packed)
		require.Equal(t, c.want, string(AppendRateLimit(nil, r, now, c.arrivals)), c.name)
		require.Equal(t, "a"+c.want, string(AppendRateLimit([]byte("a"), r, now, c.arrivals)), c.name)
	}
	r, dst := parse(t, three), make([]byte, 0, 200)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		dst = AppendRateLimit(dst[:0], r, now, "1800000000200000 1800000000020000 1800000060000000")
	}))
}

func TestAppendRefusal(t *testing.T) {
	require.Equal(t, `"ip";r=0;t=2`, string(AppendRefusal(nil, Refusal{Dimension: 1, RetryUs: 1_000_001})))
	require.Equal(t, "a", string(AppendRefusal([]byte("a"), Refusal{})), "never")
}

func TestVerdicts(t *testing.T) {
	r := parse(t, "ip,20000,100,shadow;device,60000000,2,enforce;")
	for arrivals, want := range map[string][3]Verdict{
		"":       {},
		"- -":    {},
		"!12 34": {Unasked, ShadowRefused, Allowed},
		"12 -":   {Unasked, Allowed, Unasked},
		"12 x":   {Unasked, Allowed, Unasked},
		"12 34 ": {Unasked, Allowed, Allowed},
	} {
		require.Equal(t, want, r.Verdicts(arrivals), arrivals)
	}
	require.Equal(t, "unasked allowed shadow_refused",
		strings.Join([]string{Unasked.String(), Allowed.String(), ShadowRefused.String()}, " "))
}

func TestRetryMs(t *testing.T) {
	for us, ms := range map[int64]int64{0: 0, 1: 1, 1000: 1, 1001: 2, 200_000: 200, 1<<63 - 1: (1<<63-1)/1000 + 1} {
		require.Equal(t, ms, RetryMs(us))
	}
}

// Whatever a script answers, the header is a list of what the rules are about, and r is in bounds.
func FuzzArrivals(f *testing.F) {
	f.Add("customer,200000,10,enforce;ip,20000,100,shadow;", int64(1_800_000_000_000_000), "1800000000600000 !5")
	f.Add("device,1,1,enforce;", int64(-1), "- 9223372036854775807")
	f.Fuzz(func(t *testing.T, packed string, nowUs int64, arrivals string) {
		r, err := Parse(packed)
		if err != nil {
			return
		}
		got := string(AppendRateLimit(nil, r, nowUs, arrivals))
		verdicts := r.Verdicts(arrivals)
		if got == "" {
			return
		}
		for item := range strings.SplitSeq(got, ", ") {
			m := headerItem.FindStringSubmatch(item)
			require.NotNil(t, m, got)
			d := dimensionOf(m[1])
			require.Equal(t, Allowed, verdicts[d])
			left, back := number(t, m[2]), number(t, m[3])
			rule := r.enforced[d]
			require.LessOrEqual(t, left, rule.burst)
			require.LessOrEqual(t, (back-1)*1_000_000_000, rule.intervalNs, got)
			require.Positive(t, back)
		}
	})
}
