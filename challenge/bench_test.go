package challenge

import (
	"strconv"
	"testing"
	"time"
)

func BenchmarkAsk(b *testing.B) {
	r := newRig(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Ask(testSale, testCustomer, nil, 1); err != nil {
			b.Fatal(err)
		}
	}
}

// An answer that is used: all checks, without the network.
func BenchmarkAnswer(b *testing.B) {
	r := newRig(b, nil)
	answer := r.asked(b)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = r.Answer(b.Context(), testSale, testCustomer, testIP, answer, nil)
	}
}

// With the HMAC of the tests; the keys of production have a cost of their own.
func BenchmarkCleared(b *testing.B) {
	r := newRig(b, nil)
	given, err := r.answer(b, r.asked(b))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !r.Cleared(testSale, testCustomer, given.Text) {
			b.Fatal("not cleared")
		}
	}
}

func BenchmarkSee(b *testing.B) {
	w, err := NewWatch(WatchOptions{})
	if err != nil {
		b.Fatal(err)
	}
	const customers = 4096
	var names, addresses, devices [customers]string
	for i := range customers {
		names[i] = "c-" + strconv.Itoa(i)
		addresses[i] = "203.0." + strconv.Itoa(i/256) + "." + strconv.Itoa(i%256/4) // four share one
		devices[i] = "device-" + strconv.Itoa(i)
		w.See(testSale, names[i], addresses[i], devices[i])
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i = (i + 1) % customers
		w.See(testSale, names[i], addresses[i], devices[i])
	}
}

// Every customer is new, so every note pushes another out.
func BenchmarkSeeFull(b *testing.B) {
	w, err := NewWatch(WatchOptions{KeysMax: 2048})
	if err != nil {
		b.Fatal(err)
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		w.See(testSale, "c", "", strconv.Itoa(i))
	}
}

func BenchmarkReasons(b *testing.B) {
	w, err := NewWatch(WatchOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 30 {
		w.See(testSale, "c-"+strconv.Itoa(i), "2001:db8::1", "device")
	}
	at := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		w.Reasons(testSale, "c-1", "2001:db8::1", "device", at, at)
	}
}
