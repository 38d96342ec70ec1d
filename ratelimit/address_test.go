package ratelimit

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func proxies(t testing.TB, texts ...string) Proxies {
	t.Helper()
	p, err := ParseProxies(texts)
	require.NoError(t, err)
	return p
}

func TestClient(t *testing.T) {
	p := proxies(t, "10.0.0.0/8", "192.0.2.1", "2001:db8:ff::/48", "::1")
	many := strings.Repeat("10.0.0.9,", 60)
	for _, c := range []struct {
		name, remote string
		forwarded    []string
		want         string
	}{
		{"no header", "203.0.113.7", nil, "203.0.113.7"},
		{"forged by whoever connects", "203.0.113.7", []string{"198.51.100.1"}, "203.0.113.7"},
		{"forged with the address of a proxy", "203.0.113.7", []string{"10.0.0.1, 10.0.0.2"}, "203.0.113.7"},
		{"told by a proxy", "10.0.0.1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"forged in front of a proxy", "10.0.0.1", []string{"1.1.1.1, 198.51.100.1"}, "198.51.100.1"},
		{"forged as a proxy in front of one", "10.0.0.1", []string{"1.1.1.1, 10.0.0.3, 198.51.100.1"}, "198.51.100.1"},
		{"two proxies", "10.0.0.1", []string{"1.1.1.1, 198.51.100.1, 10.9.9.9"}, "198.51.100.1"},
		{"several lines are one list", "10.0.0.1", []string{"1.1.1.1", "198.51.100.1", "192.0.2.1,10.1.1.1"}, "198.51.100.1"},
		{"proxies all the way", "10.0.0.1", []string{"10.0.0.3,10.0.0.2"}, "10.0.0.3"},
		{"a proxy itself", "10.0.0.1", nil, "10.0.0.1"},
		{"garbage", "10.0.0.1", []string{"198.51.100.1, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"garbage alone", "10.0.0.1", []string{"; drop"}, "10.0.0.1"},
		{"empty parts", "10.0.0.1", []string{"", "198.51.100.1, ,, \t", ""}, "198.51.100.1"},
		{"nothing but empty parts", "10.0.0.1", []string{",,,"}, "10.0.0.1"},
		{"a port", "10.0.0.1", []string{"198.51.100.1:555"}, "198.51.100.1"},
		{"a port too large", "10.0.0.1", []string{"198.51.100.1:65536"}, "10.0.0.1"},
		{"IPv6", "10.0.0.1", []string{"2001:db8::7"}, "2001:db8::7"},
		{"IPv6 in brackets", "10.0.0.1", []string{"[2001:db8::7]"}, "2001:db8::7"},
		{"IPv6 with a port", "::1", []string{"[2001:db8::7]:80, [2001:db8:ff::1]:81"}, "2001:db8::7"},
		{"a zone", "::1%lo", []string{"fe80::1%eth0"}, "fe80::1"},
		{"brackets not closed", "10.0.0.1", []string{"[2001:db8::7"}, "10.0.0.1"},
		{"IPv4 in brackets", "10.0.0.1", []string{"[198.51.100.1]"}, "10.0.0.1"},
		{"mapped", "::ffff:10.0.0.1", []string{"::ffff:198.51.100.1, ::ffff:10.2.2.2"}, "198.51.100.1"},
		{"leading zeros", "10.0.0.1", []string{"198.051.100.1"}, "10.0.0.1"},
		{"too many", "10.0.0.1", []string{"198.51.100.1," + many + "10.0.0.8"}, "10.0.0.9"},
		{"too long", "10.0.0.1", []string{"198.51.100.1," + strings.Repeat(" ", 5000) + ",10.0.0.2"}, "10.0.0.2"},
		{"one entry too long", "10.0.0.1", []string{strings.Repeat("1", 90)}, "10.0.0.1"},
	} {
		lines := make([][]byte, len(c.forwarded))
		for i, line := range c.forwarded {
			lines[i] = []byte(line)
		}
		got := p.Client(netip.MustParseAddr(c.remote), lines...)
		require.Equal(t, c.want, got.String(), c.name)
		require.Equal(t, netip.MustParseAddr(c.remote).Unmap().WithZone(""),
			Proxies(nil).Client(netip.MustParseAddr(c.remote), lines...), "%s: nobody is trusted", c.name)
	}
	require.False(t, p.Client(netip.Addr{}, []byte("198.51.100.1")).IsValid())
}

func TestParseProxies(t *testing.T) {
	p := proxies(t, "10.1.2.3/8", "::ffff:192.0.2.0/120", "2001:db8::1", "::ffff:198.51.100.1")
	want := []string{"10.0.0.0/8", "192.0.2.0/24", "2001:db8::1/128", "198.51.100.1/32"}
	for i, prefix := range p {
		require.Equal(t, want[i], prefix.String())
	}
	for _, text := range []string{"", "proxy.example", "10.0.0.0/33", "fe80::1%eth0", "10.0.0.1:80", "::ffff:0:0/64"} {
		_, err := ParseProxies([]string{text})
		require.ErrorContains(t, err, "proxy", text)
	}
}

func TestKey(t *testing.T) {
	for text, want := range map[string]string{
		"203.0.113.7":             "203.0.113.7",
		"::ffff:203.0.113.7":      "203.0.113.7",
		"2001:db8:1:2:3:4:5:6":    "2001:db8:1:2::/64",
		"2001:db8:1:2:ffff::":     "2001:db8:1:2::/64",
		"fe80::1%eth0":            "fe80::/64",
		"2001:DB8:1:2::1":         "2001:db8:1:2::/64",
		"::":                      "::/64",
		"2001:db8:0001:0002::0:1": "2001:db8:1:2::/64",
	} {
		got, err := ParseKey(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"", "shop", "203.0.113.7:80", "[::1]", "203.0.113.7 ", "2001:db8::/64"} {
		_, err := ParseKey(text)
		require.ErrorIs(t, err, ErrAddress, text)
	}
	require.Empty(t, Key(netip.Addr{}))
}

// A header changes nothing for who is no proxy; and behind a proxy, nothing that a client writes in
// front of what the proxy adds.
func FuzzClient(f *testing.F) {
	f.Add("198.51.100.1, 10.0.0.2", "10.0.0.3")
	f.Add("[::1]:80,,", " unknown")
	f.Add("::ffff:1.2.3.4%x", "1.2.3.4:5")
	p := proxies(f, "10.0.0.0/8", "::1")
	stranger, proxy := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("10.0.0.1")
	f.Fuzz(func(t *testing.T, one, two string) {
		require.Equal(t, stranger, p.Client(stranger, []byte(one), []byte(two)))
		require.Equal(t, stranger, p.Client(proxy, []byte(one), []byte(two+", 203.0.113.7")))
		joined := p.Client(proxy, []byte(one+","+two))
		require.Equal(t, joined, p.Client(proxy, []byte(one), []byte(two)))
		require.True(t, joined.IsValid())
		require.False(t, joined.Is4In6())
		require.Empty(t, joined.Zone())
		require.NotEmpty(t, Key(joined))
	})
}
