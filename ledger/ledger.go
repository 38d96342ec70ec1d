package ledger

import (
	"context"
	"errors"
	"time"

	"flashgate/sale"
)

// Errors that callers tell apart with errors.Is. Anything else means that the ledger is away or
// broken; for a write it means that the outcome is unknown.
var (
	// ErrNotFound: no such sale, version, reservation or key.
	ErrNotFound = errors.New("not found")
	// ErrVersionMismatch: the sale's latest version is not the expected one.
	ErrVersionMismatch = errors.New("version mismatch")
	// ErrExists: a key with this ID is there already.
	ErrExists = errors.New("exists already")
	// ErrKeyEnded: the key is revoked or has expired, so no other can take over from it.
	ErrKeyEnded = errors.New("the key has ended")
	// ErrDiverged: an event does not continue the shard's chain. Nothing was written.
	ErrDiverged = errors.New("event does not continue the ledger")
	// ErrInvalid: an event continues the chain but the books do not allow it, or it cannot be
	// stored. Nothing was written. errors.As finds an *InvalidError that names the event.
	ErrInvalid = errors.New("event cannot be applied")
	// ErrNewer: the schema was made by a newer version of the program.
	ErrNewer = errors.New("the ledger's schema is newer than this program")
)

// Shard names a slice of a sale.
type Shard struct {
	Sale   string
	Number int
}

// Head is the end of a shard's chain: its watermark. The zero Head is that of a shard without
// events.
type Head struct {
	Epoch, Seq int64
	Mark       string
	// Hash is the chain's hash at Seq; nil without events.
	Hash []byte
	// AliveAtMs is the latest time of Redis at which the shard was known to be alive.
	AliveAtMs int64
}

// Entry is an event with the chain's hash at it.
type Entry struct {
	sale.Event
	Hash []byte
}

// Key is an API key as stored: never the secret, only its SHA-256.
type Key struct {
	ID        string
	Name      string
	Role      string
	Hash      []byte
	CreatedAt time.Time
	// Sales and Locations are all that a storefront key may work with; empty is every one.
	Sales, Locations []string
	// ExpiresAt ends a key that was rotated; zero never.
	ExpiresAt time.Time
	// RevokedAt is zero while the key is valid.
	RevokedAt time.Time
	// LastUsedAt is when a gateway last saw the key, to about a minute; zero never.
	LastUsedAt time.Time
}

// SigningKey signs what gateways hand out and take back. All gateways share them: the newest signs,
// every one verifies.
type SigningKey struct {
	ID string
	// Secret stays in the ledger and in the memory of gateways: no log, error or audit entry has it.
	Secret    []byte `json:"-"`
	CreatedAt time.Time
}

// AuditEntry is one change of configuration, stock or keys. Before and After are JSON or empty.
type AuditEntry struct {
	ID            int64
	At            time.Time
	Actor         string
	Action        string // one of the Action constants
	Subject       string // the sale, sale/sku/location or key id
	Before, After string
	Reason        string
}

// AuditFilter chooses audit entries; an empty field chooses all.
type AuditFilter struct {
	// SubjectPrefix is how the subject begins, such as "drop-1/" for the stock of a sale.
	SubjectPrefix string
	Action        string
}

// Ledger is what the gateway, the reconciler and the commands need of the database. All methods
// are safe for concurrent use and honour their context.
type Ledger interface {
	// PutVersion appends a version of a sale, with its audit entry, in one transaction. expect is
	// the latest version that is not rejected (0: the sale must be new), else ErrVersionMismatch.
	// Version (one above the highest number ever used), CreatedAt and Status are set here.
	PutVersion(ctx context.Context, v sale.Version, expect int64) (sale.Version, error)
	// LatestVersion returns the highest version that is not rejected, or ErrNotFound.
	LatestVersion(ctx context.Context, saleID string) (sale.Version, error)
	// Versions lists all versions of a sale, oldest first, or ErrNotFound.
	Versions(ctx context.Context, saleID string) ([]sale.Version, error)
	// Sales lists the latest version that is not rejected of every sale, ordered by id.
	Sales(ctx context.Context) ([]sale.Version, error)
	// PendingVersions lists the pending versions of all sales, each sale's in order.
	PendingVersions(ctx context.Context) ([]sale.Version, error)

	// Shards lists every shard that has events or a pending version.
	Shards(ctx context.Context) ([]Shard, error)
	// Head reads a shard's watermark; the zero Head when it has none.
	Head(ctx context.Context, shard Shard) (Head, error)
	// Begin opens a transaction that holds the lock of the shard's watermark row, waiting for it
	// as long as ctx allows. It makes the row if need be. The lock is the only exclusion between
	// reconcilers. The caller must end it with Commit or Rollback.
	Begin(ctx context.Context, shard Shard) (Tx, error)
	// Events reads up to limit entries with seq > after in order.
	Events(ctx context.Context, shard Shard, after int64, limit int) ([]Entry, error)
	// Marks reads the marks of the events with the given seqs; those not in the ledger, and those whose
	// place a dead letter has, are absent.
	Marks(ctx context.Context, shard Shard, seqs []int64) (map[int64]string, error)
	// Reservation reads the projection of one reservation, or ErrNotFound.
	Reservation(ctx context.Context, saleID, id string) (sale.Reservation, error)
	// Stock reads the projection of a sale's levels.
	Stock(ctx context.Context, saleID string) (map[sale.Place]sale.Level, error)
	// Projections reads a shard's levels and up to limit of its reservations with an id above after,
	// all at one moment.
	Projections(ctx context.Context, shard Shard, after string, limit int) (Projections, error)

	// DeadLetters reads dead letters in the order of their IDs.
	DeadLetters(ctx context.Context, q LetterQuery) ([]DeadLetter, error)
	// Taints counts the open poison letters of each shard that has some.
	Taints(ctx context.Context) (map[Shard]int, error)

	// CreateKey stores a key with its audit entry, or answers ErrExists. A zero CreatedAt is now.
	CreateKey(ctx context.Context, k Key, actor string) error
	// Keys lists all keys, revoked ones too, oldest first.
	Keys(ctx context.Context) ([]Key, error)
	// RevokeKey marks a key as revoked, with its audit entry; revoking twice changes nothing.
	// ErrNotFound when there is no such key.
	RevokeKey(ctx context.Context, id, actor string) error
	// RotateKey stores next and ends the key with the id at expiresAt, or now when that is past, never
	// later than it would have ended, with one audit entry, in one transaction. A zero CreatedAt of
	// next is now. ErrNotFound, ErrExists, and ErrKeyEnded when the key is revoked or expired.
	RotateKey(ctx context.Context, id string, next Key, expiresAt time.Time, actor string) error
	// TouchKeys notes when keys were last used, by id. LastUsedAt only rises; unknown ids are
	// ignored.
	TouchKeys(ctx context.Context, used map[string]time.Time) error

	// SigningKeys lists all signing keys, newest first. When there is none it stores the candidate
	// first, so that gateways which start together agree on one.
	SigningKeys(ctx context.Context, candidate SigningKey) ([]SigningKey, error)
	// AddSigningKey stores a key that is the newest from now on, with its audit entry, or answers
	// ErrExists. A CreatedAt that is zero or not above that of all others is set so.
	AddSigningKey(ctx context.Context, k SigningKey, actor string) error

	// AuditLog reads up to limit audit entries with ID > after, oldest first. IDs are given before
	// the commit: of two transactions at one time, the later ID may appear first.
	AuditLog(ctx context.Context, after int64, limit int) ([]AuditEntry, error)
	// FilteredAuditLog is AuditLog of the chosen entries.
	FilteredAuditLog(ctx context.Context, filter AuditFilter, after int64, limit int) ([]AuditEntry, error)

	// Ping tells whether the ledger can be read now.
	Ping(ctx context.Context) error
	// Close releases all connections, and waits for transactions to end.
	Close() error
}

// Tx is one transaction on one shard. It is not safe for concurrent use.
type Tx interface {
	// Head is the shard's head as locked, moved on by Append.
	Head() Head
	// Append checks that the events continue the head (prev, mark and seq of every one; epoch
	// never falls), extends the hash chain, inserts them, updates the projections of
	// reservations and stock, marks the sale versions they carry as applied, writes the audit
	// entries of adjustments and moves the watermark. ErrDiverged when they do not continue it,
	// ErrInvalid when the books do not allow one; after any error the transaction is good for
	// Rollback only. AliveAtMs rises to the time of the last event.
	Append(ctx context.Context, events []sale.Event) error
	// Alive notes the latest time of Redis at which the shard was seen alive; it never falls.
	Alive(ctx context.Context, atMs int64) error
	// SetAside keeps events that cannot become part of the chain (those of a lost fork) whole, for
	// inspection, with the reason. One that is kept already, by epoch, seq and ForkMark, is left alone.
	SetAside(ctx context.Context, events []sale.Event, reason string) error
	// Bury keeps a poison letter, open; its place in the chain is appended apart (DeadRow).
	Bury(ctx context.Context, d DeadLetter) error
	// Taints counts the shard's open poison letters.
	Taints(ctx context.Context) (int, error)
	// Settle ends an open letter of the shard as replayed or resolved, with its audit entry.
	// ErrNotFound, ErrSettled.
	Settle(ctx context.Context, id int64, state LetterState, actor, reason string) error
	// Versions lists all versions of the shard's sale, oldest first.
	Versions(ctx context.Context) ([]sale.Version, error)
	// RejectVersion marks a pending version of the sale as refused by the shard, with the reason. A
	// version that is not pending is left alone.
	RejectVersion(ctx context.Context, version int64, refusal string) error
	// Commit makes everything durable, synchronously.
	Commit(ctx context.Context) error
	// Rollback ends the transaction without effect; after Commit it does nothing.
	Rollback()
}
