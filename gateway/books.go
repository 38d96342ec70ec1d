package gateway

import (
	"context"
	"errors"
	"time"
)

// Books are what operators ask of the reconciler over HTTP. They need Redis and the ledger, not a
// reconciler in this process. Errors are ledger.ErrNotFound, ledger.ErrSettled, ErrNotNow, or that Redis
// or the ledger do not answer.
type Books interface {
	// Status tells where every shard stands.
	Status(ctx context.Context) ([]ShardStatus, error)
	// Verify compares Redis with the fold of the ledger; it changes nothing.
	Verify(ctx context.Context, saleID string) (Verification, error)
	// Rebuild makes the sale's data in Redis anew from the ledger.
	Rebuild(ctx context.Context, saleID, actor string) (Rebuilt, error)
	// Replay brings the effect of a dead letter into the books as they are now.
	Replay(ctx context.Context, id int64, actor string) error
	// Resolve lets the books go on without a dead letter.
	Resolve(ctx context.Context, id int64, actor, reason string) error
}

// ErrNotNow says that the books, as they are, do not allow what an operator asked for; its text says why
// and is for the operator.
var ErrNotNow = errors.New("not as the books are now")

// BooksStatus is the answer of GET /v1/admin/reconciler.
type BooksStatus struct {
	Shards []ShardStatus `json:"shards" nullable:"false" doc:"Ordered by sale."`
}

// ShardStatus is where the books of a sale stand.
type ShardStatus struct {
	Sale        string     `json:"sale" example:"sneaker-drop"`
	Shard       int        `json:"shard" minimum:"0" example:"0"`
	State       string     `json:"state" enum:"open,draining,waiting,recovering,tainted,frozen" example:"open" doc:"open: the ledger has everything. draining: events are on their way. waiting: not created yet. recovering: to be rebuilt, or being so. tainted: rebuilt once its dead letters are settled. frozen: an operator has to decide."`
	Reason      string     `json:"reason,omitempty" example:"missing" doc:"Why it is not open."`
	Detail      string     `json:"detail,omitempty"`
	Watermark   Position   `json:"watermark" doc:"The last event that the ledger has."`
	Redis       Position   `json:"redis" doc:"The last event that Redis has; zero without a shard."`
	LagEvents   int64      `json:"lag_events" minimum:"0" example:"12" doc:"Events that the ledger does not have yet."`
	LagSeconds  float64    `json:"lag_seconds" minimum:"0" example:"0.04" doc:"Age of the oldest of them."`
	DeadLetters int        `json:"dead_letters" minimum:"0" example:"0" doc:"Open ones that taint the sale."`
	Verified    *LastCheck `json:"verified,omitempty" doc:"The last verification; absent when none is known."`
}

// Position is a place in a shard's history.
type Position struct {
	Epoch int64 `json:"epoch" minimum:"0" example:"1"`
	Seq   int64 `json:"seq" minimum:"0" example:"4711"`
}

// LastCheck is what is kept of a verification.
type LastCheck struct {
	At                string `json:"at" format:"date-time"`
	State             string `json:"state" enum:"open,waiting,recovering,frozen" example:"open" doc:"Only open was compared."`
	Seq               int64  `json:"seq" minimum:"0"`
	Differences       int    `json:"differences" minimum:"0" example:"0"`
	OversellIncidents int    `json:"oversell_incidents" minimum:"0" example:"0"`
	GoodAt            string `json:"good_at,omitempty" format:"date-time" doc:"When one last compared everything and found nothing."`
}

// Verification is the answer of POST …/verify.
type Verification struct {
	Sale              string       `json:"sale" example:"sneaker-drop"`
	Shard             int          `json:"shard" minimum:"0" example:"0"`
	State             string       `json:"state" enum:"open,waiting,recovering,frozen" example:"open" doc:"Only open was compared."`
	Detail            string       `json:"detail,omitempty"`
	Good              bool         `json:"good" doc:"Everything was compared, and nothing differs."`
	Epoch             int64        `json:"epoch" minimum:"0" example:"1" doc:"With seq: the last event that was folded."`
	Seq               int64        `json:"seq" minimum:"0" example:"4711"`
	Checked           Checked      `json:"checked"`
	Differences       []Difference `json:"differences" nullable:"false"`
	Omitted           int          `json:"omitted" minimum:"0" doc:"Differences beyond those listed."`
	OversellIncidents int          `json:"oversell_incidents" minimum:"0"`
	DeadLetters       int          `json:"dead_letters" minimum:"0" doc:"Open ones that taint the sale."`
	At                string       `json:"at" format:"date-time"`
	TookMs            int64        `json:"took_ms" minimum:"0"`
}

// Checked counts what was compared.
type Checked struct {
	Events       int64 `json:"events" minimum:"0"`
	Settings     int64 `json:"settings" minimum:"0"`
	Stock        int64 `json:"stock" minimum:"0"`
	Reservations int64 `json:"reservations" minimum:"0"`
	Deadlines    int64 `json:"deadlines" minimum:"0"`
	Customers    int64 `json:"customers" minimum:"0"`
	Adjustments  int64 `json:"adjustments" minimum:"0"`
	Lines        int64 `json:"lines" minimum:"0" doc:"Of those who wait."`
	Projections  int64 `json:"projections" minimum:"0" doc:"Rows of the ledger's own tables."`
}

// Difference is one value that is not what the ledger's events make of it.
type Difference struct {
	Kind    string `json:"kind" example:"stock"`
	Subject string `json:"subject" example:"AIR-42"`
	Redis   string `json:"redis"`
	Ledger  string `json:"ledger"`
	Cause   string `json:"cause" doc:"What it likely is."`
	Advice  string `json:"advice" doc:"What to do."`
}

// Rebuilt is the answer of POST …/rebuild.
type Rebuilt struct {
	Sale      string `json:"sale" example:"sneaker-drop"`
	FromEpoch int64  `json:"from_epoch" minimum:"0" example:"1"`
	Epoch     int64  `json:"epoch" minimum:"1" example:"2"`
	Seq       int64  `json:"seq" minimum:"1" example:"4712"`
	ShiftMs   int64  `json:"shift_ms" minimum:"0" example:"30000" doc:"By how much live holds end later."`
	ByAnother bool   `json:"by_another" doc:"A running reconciler was at it, and finished."`
	TookMs    int64  `json:"took_ms" minimum:"0"`
}

// LetterList is the answer of GET /v1/admin/dead-letters.
type LetterList struct {
	DeadLetters []Letter `json:"dead_letters" nullable:"false" doc:"In the order of their ids."`
}

// Letter is an event that could not become part of the books.
type Letter struct {
	ID         int64  `json:"id" minimum:"1" example:"7"`
	At         string `json:"at" format:"date-time"`
	Sale       string `json:"sale" example:"sneaker-drop"`
	Shard      int    `json:"shard" minimum:"0" example:"0"`
	Epoch      int64  `json:"epoch" minimum:"0" example:"1"`
	Seq        int64  `json:"seq" minimum:"0" example:"4711"`
	Kind       string `json:"kind" enum:"fork,poison" example:"poison" doc:"poison taints its sale while it is open; fork is of a lost branch of history."`
	State      string `json:"state" enum:"open,replayed,resolved" example:"open"`
	Reason     string `json:"reason" doc:"Why it is not in the books."`
	Event      string `json:"event" doc:"What the stream had, as base64."`
	SettledAt  string `json:"settled_at,omitempty" format:"date-time"`
	Actor      string `json:"actor,omitempty" doc:"Who settled it."`
	Resolution string `json:"resolution,omitempty"`
}

// Settled is the answer to replay and resolve.
type Settled struct {
	ID    int64  `json:"id" minimum:"1" example:"7"`
	State string `json:"state" enum:"replayed,resolved" example:"resolved"`
}

// optionalTime is the text of a time; "" of none.
func optionalTime(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return timeText(at.UnixMilli())
}
