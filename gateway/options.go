package gateway

import (
	"runtime/debug"
	"time"

	"flashgate/challenge"
	tokens "flashgate/identity"
	"flashgate/lua"
	"flashgate/ratelimit"
)

// Options are the limits and times of a gateway. A zero value takes the default named beside it.
type Options struct {
	// Version is what /livez, the metrics and the description say; default: the module's.
	Version string
	// DevKey is one more API key that has every role, for the embedded mode; empty for none.
	DevKey string

	// Tokens verifies customer tokens; nil takes none. Run keeps its keys fresh.
	Tokens *tokens.Verifier
	// Proxies are the networks whose X-Forwarded-For is believed; none by default.
	Proxies ratelimit.Proxies

	// QueueMax is the most reserves that wait per shard; default 16,384. A full queue answers at
	// once: what waits for longer than QueueWait would only be refused later.
	QueueMax int
	// QueueWait is how long a reserve may wait before it is sent; default 1 s. Whoever waited longer
	// has mostly given up.
	QueueWait time.Duration
	// BatchMax is the most reserves of one script call, up to lua.MaxBatch; default 128, about a
	// millisecond of Redis.
	BatchMax int
	// LanesMax is the most shards with a queue at a time; default 1024. An idle one makes room.
	LanesMax int
	// LaneIdle ends the goroutine of a shard without reserves; default 1 min.
	LaneIdle time.Duration
	// AgainRounds is how often a reserve is asked again after due holds were given back; default 8.
	// When holds fall due all the time, one round may well find the next one due.
	AgainRounds int
	// AgainWait bounds one round of giving due holds back; default 2 s.
	AgainWait time.Duration
	// AgainCalls bounds the expire calls of one round, of 128 holds each; default 1000.
	AgainCalls int
	// RedisTimeout bounds one call of Redis; default 500 ms. What it did is then unknown.
	RedisTimeout time.Duration
	// ResolveMax is the most confirms, releases and other calls beside reserve that are in Redis at
	// a time; default 256. They wait for a connection within RedisTimeout.
	ResolveMax int

	// BreakerWindow is the rolling time in which calls of Redis are counted; default 5 s,
	// so that BreakerMin calls that each end by RedisTimeout fit in.
	BreakerWindow time.Duration
	// BreakerMin is how many calls there must be in the window, or failures in a row; default 5.
	BreakerMin int
	// BreakerRatio is the part of failures that opens the breaker; default 0.5.
	BreakerRatio float64
	// BreakerOpen is how long an open breaker waits before it tries one call; default 500 ms.
	BreakerOpen time.Duration

	// EdgeMemory is how long the gateway may refuse a SKU of which nothing is available without the scripts,
	// from the moment at which it last knew; default 250 ms. Negative is never.
	EdgeMemory time.Duration
	// EdgePlaces is of how many SKUs and locations it remembers that; default 100,000, of about 200 bytes.
	EdgePlaces int

	// LimitKeysMax is how many customers, addresses and devices the gateway knows the attempts of;
	// default 100,000, of about 100 bytes each.
	LimitKeysMax int

	// Difficulty is that of a proof of work, in zero bits; default 16.
	Difficulty int
	// ClearanceLifetime is how long a solved challenge counts; default 10 min.
	ClearanceLifetime time.Duration
	// Providers set and judge challenges beside proof of work; none by default.
	Providers []challenge.Provider

	// RoomSlow is when a reserve counts as slow, and enough of them slow the waiting rooms down; default
	// 150 ms, the time that nearly all should take.
	RoomSlow time.Duration
	// RoomHeardMax is how many who wait in one room the gateway remembers to have heard of; default
	// 1,000,000.
	RoomHeardMax int

	// ConfirmWait is how long confirm, cancel, adjust and sale changes wait for the ledger before
	// they answer 202; default 2 s.
	ConfirmWait time.Duration
	// ConfirmPoll is how often the ledger is read for those who wait, in case an announcement was
	// lost; default 50 ms.
	ConfirmPoll time.Duration
	// ConfirmMax is the most that wait for the ledger at a time; default 8192. Others get 202.
	ConfirmMax int
	// LedgerTimeout bounds one read of the ledger; default 2 s.
	LedgerTimeout time.Duration
	// BooksTimeout bounds an order to the books, such as a verification; default 60 s. BooksMax is the most
	// at a time; default 2: each may have a whole sale in memory.
	BooksTimeout time.Duration
	BooksMax     int
	// LookupMax is the most ids per second that the ledger is asked for because the gateway does not
	// know them; default 100.
	LookupMax int
	// MissMax is how many unknown sales, and unknown keys, are remembered; default 10,000.
	MissMax int
	// MissMemory is how long an unknown sale is remembered; default 1 s.
	MissMemory time.Duration
	// CatalogRefresh is how often all sales are read again; default 1 s.
	CatalogRefresh time.Duration
	// KeyRefresh is how often all keys are read again; default 2 s. A revoked one lives as long, or as
	// LedgerTimeout, and LedgerTimeout on top.
	KeyRefresh time.Duration
	// KeyTouch is how often the last use of keys is written to the ledger; default 30 s.
	KeyTouch time.Duration
	// KeyWaitMax is the most requests with an unknown key that wait for a look into the ledger;
	// default 64. Others get 401, or 503 while no key was read yet.
	KeyWaitMax int

	// ReadTimeout bounds reading one request; default 5 s. Like the next two it may take an eighth longer.
	ReadTimeout time.Duration
	// WriteTimeout bounds writing one answer; default 10 s.
	WriteTimeout time.Duration
	// IdleTimeout ends an unused connection; default 60 s.
	IdleTimeout time.Duration
	// BodyMax is the most bytes of a body; default 64 KiB. Sales have SaleBodyMax.
	BodyMax int
	// SaleBodyMax is the most bytes of a sale; default 1 MiB.
	SaleBodyMax int
	// HeaderMax is the most bytes of path and headers; default 16 KiB.
	HeaderMax int
	// ConcurrencyMax is the most connections at a time; default 262,144.
	ConcurrencyMax int
	// StreamsMax is the most Server-Sent Event streams at a time; default 1000.
	StreamsMax int
	// StreamEvery is how often a stream may tell of changed stock; default 250 ms.
	StreamEvery time.Duration
	// StreamHeartbeat is how often a silent stream shows that it lives; default 15 s.
	StreamHeartbeat time.Duration
	// Shutdown bounds how long what is in flight may take to finish; default 15 s.
	Shutdown time.Duration
}

// withDefaults fills what is zero, and bounds what must be bounded.
func (o Options) withDefaults() Options {
	if o.Version == "" {
		o.Version = "unknown"
		if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
			o.Version = info.Main.Version
		}
	}
	for field, value := range map[*int]int{
		&o.QueueMax: 16_384, &o.BatchMax: 128, &o.LanesMax: 1024, &o.AgainRounds: 8,
		&o.AgainCalls: 1000, &o.ResolveMax: 256, &o.BreakerMin: 5, &o.ConfirmMax: 8192,
		&o.LookupMax: 100, &o.BooksMax: 2, &o.MissMax: 10_000, &o.KeyWaitMax: 64, &o.BodyMax: 64 << 10,
		&o.SaleBodyMax: 1 << 20, &o.HeaderMax: 16 << 10, &o.ConcurrencyMax: 262_144,
		&o.StreamsMax: 1000, &o.LimitKeysMax: 100_000, &o.RoomHeardMax: 1_000_000, &o.EdgePlaces: 100_000,
	} {
		if *field <= 0 {
			*field = value
		}
	}
	for field, value := range map[*time.Duration]time.Duration{
		&o.QueueWait: time.Second, &o.LaneIdle: time.Minute, &o.AgainWait: 2 * time.Second,
		&o.RedisTimeout: 500 * time.Millisecond, &o.BreakerWindow: 5 * time.Second,
		&o.BreakerOpen: 500 * time.Millisecond, &o.ConfirmWait: 2 * time.Second,
		&o.ConfirmPoll: 50 * time.Millisecond, &o.LedgerTimeout: 2 * time.Second,
		&o.MissMemory: time.Second, &o.CatalogRefresh: time.Second, &o.KeyRefresh: 2 * time.Second,
		&o.KeyTouch: 30 * time.Second, &o.BooksTimeout: time.Minute,
		&o.ReadTimeout: 5 * time.Second, &o.WriteTimeout: 10 * time.Second,
		&o.IdleTimeout: time.Minute, &o.StreamEvery: 250 * time.Millisecond,
		&o.StreamHeartbeat: 15 * time.Second, &o.RoomSlow: 150 * time.Millisecond, &o.Shutdown: 15 * time.Second,
	} {
		if *field <= 0 {
			*field = value
		}
	}
	if o.EdgeMemory == 0 {
		o.EdgeMemory = 250 * time.Millisecond
	}
	if o.BreakerRatio <= 0 || o.BreakerRatio > 1 {
		o.BreakerRatio = 0.5
	}
	o.BatchMax = min(o.BatchMax, lua.MaxBatch)
	return o
}
