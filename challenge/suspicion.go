package challenge

import (
	"errors"
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"
)

// Suspicion is the set of reasons to doubt that a person asks.
type Suspicion uint8

// The reasons, a bit each.
const (
	SharedDevice  Suspicion = 1 << iota // many customers behind one device
	SharedAddress                       // many customers behind one address
	YoungToken                          // a customer token made after the sale opened
	SolvedTooFast                       // a challenge solved sooner than the work can be done
	CameTooEarly                        // back before the Retry-After, again and again
)

// suspicionNames are the names of the bits, lowest first.
var suspicionNames = [...]string{
	"shared_device", "shared_address", "young_token", "solved_too_fast", "came_too_early",
}

// SuspicionNames lists the names of all reasons, for metrics.
func SuspicionNames() []string { return suspicionNames[:] }

// Count is the number of reasons.
func (s Suspicion) Count() int { return bits.OnesCount8(uint8(s)) }

// Names are the reasons' names.
func (s Suspicion) Names() []string {
	var names []string
	for i, name := range suspicionNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// WatchOptions are the thresholds and limits of a Watch. A zero value takes the default named
// beside it.
type WatchOptions struct {
	// DeviceCustomersMax is the most customers of a sale that one device may have within Window
	// without suspicion, up to 1000; default 3.
	DeviceCustomersMax int
	// AddressCustomersMax is the same for an address; default 20, for families and offices share one.
	AddressCustomersMax int
	// Window is how long customers of a device or address, and what was solved too fast, are
	// remembered; default 10 min.
	Window time.Duration
	// EarlyMin is how many returns before the time within EarlyWindow are suspicious, up to 1000;
	// default 3.
	EarlyMin int
	// EarlyWindow is how long a return before the time is remembered; default 1 min.
	EarlyWindow time.Duration
	// KeysMax is the most devices, addresses and customers that are remembered; default 100,000. One
	// takes about 100 bytes, an address with many customers 450.
	KeysMax int
	// Now is the clock; default time.Now.
	Now func() time.Time
}

const sightingsLimit = 1000

func (o *WatchOptions) fill() error {
	setDefault(&o.DeviceCustomersMax, 3)
	setDefault(&o.AddressCustomersMax, 20)
	setDefault(&o.Window, 10*time.Minute)
	setDefault(&o.EarlyMin, 3)
	setDefault(&o.EarlyWindow, time.Minute)
	setDefault(&o.KeysMax, 100_000)
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, n := range []int{o.DeviceCustomersMax, o.AddressCustomersMax, o.EarlyMin} {
		if n < 1 || n > sightingsLimit {
			return errors.New("challenge: thresholds of suspicion must be 1 to 1000")
		}
	}
	if o.Window < 0 || o.EarlyWindow < 0 || o.KeysMax < 1 {
		return errors.New("challenge: windows and keys of suspicion must be positive")
	}
	return nil
}

// Watch remembers, in this gateway alone, what makes customers suspicious. It is safe for concurrent
// use. What it remembers are 64-bit hashes with a seed of this process: it holds no names, and nobody
// outside can make two of them meet.
type Watch struct {
	now    func() time.Time
	seed   maphash.Seed
	rules  [kinds]watchRule
	shards []watchShard
}

// kind is what a note is about.
type kind uint8

const (
	ofDevice kind = iota
	ofAddress
	ofEarly
	ofFastCustomer
	ofFastAddress
	kinds
)

// watchRule says how many different sightings within the window make a note suspicious.
type watchRule struct {
	need     int
	windowMs int64
}

const watchShards = 64

// NewWatch makes a watch. An error names the option that is wrong.
func NewWatch(o WatchOptions) (*Watch, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	window, early := o.Window.Milliseconds(), o.EarlyWindow.Milliseconds()
	w := &Watch{
		now:  o.Now,
		seed: maphash.MakeSeed(),
		rules: [kinds]watchRule{
			ofDevice:       {o.DeviceCustomersMax + 1, window},
			ofAddress:      {o.AddressCustomersMax + 1, window},
			ofEarly:        {o.EarlyMin, early},
			ofFastCustomer: {1, window},
			ofFastAddress:  {1, window},
		},
	}
	n := watchShards
	if o.KeysMax < 16*watchShards {
		n = 1 // too few to divide
	}
	w.shards = make([]watchShard, n)
	for i := range w.shards {
		w.shards[i] = watchShard{index: make(map[uint64]int), most: o.KeysMax / n}
	}
	return w, nil
}

// See notes that a customer of a sale came from an address, with a device. Either may be empty. An
// IPv6 address counts as its /64, and may be given as that.
func (w *Watch) See(saleID, customer, ip, device string) {
	who := maphash.String(w.seed, customer)
	if device != "" {
		w.note(ofDevice, w.key(ofDevice, saleID, device), who)
	}
	if ip != "" {
		w.note(ofAddress, w.addressKey(ofAddress, saleID, ip), who)
	}
}

// TooEarly notes that a customer came back before the Retry-After they were told.
func (w *Watch) TooEarly(saleID, customer string) {
	w.note(ofEarly, w.key(ofEarly, saleID, customer), rand.Uint64())
}

// TooFast notes that a customer, from an address that may be empty, solved a challenge sooner than
// the work can be done.
func (w *Watch) TooFast(saleID, customer, ip string) {
	w.note(ofFastCustomer, w.key(ofFastCustomer, saleID, customer), 0)
	if ip != "" {
		w.note(ofFastAddress, w.addressKey(ofFastAddress, saleID, ip), 0)
	}
}

// Reasons is what speaks against a customer of a sale. ip and device may be empty. issuedAt is when
// the customer token was made, opensAt when the sale opens; either may be zero: not known.
func (w *Watch) Reasons(saleID, customer, ip, device string, issuedAt, opensAt time.Time) Suspicion {
	var s Suspicion
	if device != "" && w.suspicious(ofDevice, w.key(ofDevice, saleID, device)) {
		s |= SharedDevice
	}
	if ip != "" && w.suspicious(ofAddress, w.addressKey(ofAddress, saleID, ip)) {
		s |= SharedAddress
	}
	if !issuedAt.IsZero() && !opensAt.IsZero() && issuedAt.After(opensAt) {
		s |= YoungToken
	}
	if w.suspicious(ofFastCustomer, w.key(ofFastCustomer, saleID, customer)) ||
		ip != "" && w.suspicious(ofFastAddress, w.addressKey(ofFastAddress, saleID, ip)) {
		s |= SolvedTooFast
	}
	if w.suspicious(ofEarly, w.key(ofEarly, saleID, customer)) {
		s |= CameTooEarly
	}
	return s
}

func (w *Watch) key(k kind, saleID, value string) uint64 {
	var h maphash.Hash
	h.SetSeed(w.seed)
	_ = h.WriteByte(byte(k))
	_, _ = h.WriteString(saleID)
	_ = h.WriteByte(0) // no sale id holds it
	_, _ = h.WriteString(value)
	return h.Sum64()
}

// addressKey is one for all of an IPv6 /64, which is what one subscriber has.
func (w *Watch) addressKey(k kind, saleID, ip string) uint64 {
	if strings.IndexByte(ip, ':') < 0 {
		return w.key(k, saleID, ip)
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(ip, "/64"))
	if err != nil {
		return w.key(k, saleID, ip)
	}
	var h maphash.Hash
	h.SetSeed(w.seed)
	_ = h.WriteByte(byte(k))
	_, _ = h.WriteString(saleID)
	_ = h.WriteByte(0)
	b := addr.As16()
	_, _ = h.Write(b[:8])
	return h.Sum64()
}

// note adds a sighting.
func (w *Watch) note(k kind, key, who uint64) {
	now := w.now().UnixMilli()
	s := &w.shards[key%uint64(len(w.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	i, known := s.index[key]
	if !known {
		i = s.place(w, now)
		s.index[key] = i
		s.notes[i].key, s.notes[i].kind = key, k
	}
	s.notes[i].see(who, now, w.rules[k].need)
}

func (w *Watch) suspicious(k kind, key uint64) bool {
	s := &w.shards[key%uint64(len(w.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	i, known := s.index[key]
	return known && s.notes[i].live(w.now().UnixMilli()-w.rules[k].windowMs) >= w.rules[k].need
}
