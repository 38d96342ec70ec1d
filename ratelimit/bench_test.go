package ratelimit

import (
	"net/netip"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

const threeRules = "customer,200000,10,enforce;ip,20000,100,enforce;device,200000,10,enforce;"

// benchShield has many customers, each with an address and a device; all are known.
func benchShield(b *testing.B) (*Shield, []Attempt) {
	b.Helper()
	s, err := NewShield(ShieldOptions{})
	require.NoError(b, err)
	s.SetRules(testSale, sale.LimitReserve, parse(b, threeRules))
	attempts := make([]Attempt, 10_000)
	for i := range attempts {
		n := strconv.Itoa(i)
		attempts[i] = Attempt{
			Sale: testSale, Group: sale.LimitReserve,
			Values: [3]string{"customer-" + n, "203.0.113." + n, "device-" + n},
		}
		ticket, _ := s.Arrive(&attempts[i])
		s.Settle(&ticket, threeRules, true)
	}
	return s, attempts
}

// pass is an attempt with all three dimensions that goes to the script, and its settling.
func pass(s *Shield, a *Attempt) {
	ticket, d := s.Arrive(a)
	if d == Suspect {
		_, _ = s.Recheck(&ticket)
	}
	s.Settle(&ticket, threeRules, false)
}

func BenchmarkShieldPass(b *testing.B) {
	s, attempts := benchShield(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		pass(s, &attempts[i%len(attempts)])
	}
}

func BenchmarkShieldPassParallel(b *testing.B) {
	s, attempts := benchShield(b)
	var next atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := int(next.Add(1)) * 1000; pb.Next(); i++ {
			pass(s, &attempts[i%len(attempts)])
		}
	})
}

// refuse is an attempt that is refused, from its arrival.
func refuse(b *testing.B, s *Shield, a *Attempt) {
	ticket, _ := s.Arrive(a)
	if _, d := s.Recheck(&ticket); d != Refuse {
		b.Fatal("not refused")
	}
}

// spend makes the shield refuse an attempt for long.
func spend(s *Shield, a *Attempt) {
	s.SetRules(testSale, sale.LimitReserve, longRules)
	ticket, _ := s.Arrive(a)
	s.Settle(&ticket, longRules.packed, true)
}

var longRules, _ = Parse("customer,3600000000,1,enforce;ip,20000,100,enforce;device,200000,10,enforce;")

func BenchmarkShieldRefused(b *testing.B) {
	s, attempts := benchShield(b)
	spend(s, &attempts[0])
	b.ReportAllocs()
	for b.Loop() {
		refuse(b, s, &attempts[0])
	}
}

// All goroutines hammer with one customer.
func BenchmarkShieldRefusedParallel(b *testing.B) {
	s, attempts := benchShield(b)
	spend(s, &attempts[0])
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			refuse(b, s, &attempts[0])
		}
	})
}

// Every attempt is by somebody new, and the table is full.
func BenchmarkShieldStrangers(b *testing.B) {
	s, _ := benchShield(b)
	names := make([]string, 1_000_000)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n := names[i%len(names)]
		a := Attempt{Sale: testSale, Group: sale.LimitReserve, Values: [3]string{n, n, n}}
		ticket, _ := s.Arrive(&a)
		s.Settle(&ticket, threeRules, true)
	}
}

func BenchmarkAppendRateLimit(b *testing.B) {
	r, dst := parse(b, threeRules), make([]byte, 0, 200)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendRateLimit(dst[:0], r, 1_800_000_000_000_000, "1800000000200000 1800000000020000 1800000000400000")
	}
}

func BenchmarkClient(b *testing.B) {
	p := proxies(b, "10.0.0.0/8", "2001:db8:ff::/48")
	remote, line := netip.MustParseAddr("10.0.0.1"), []byte("1.1.1.1, 198.51.100.1, 10.0.0.2")
	b.ReportAllocs()
	for b.Loop() {
		_ = Key(p.Client(remote, line))
	}
}
