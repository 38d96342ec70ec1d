package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"flashgate/sale"
)

// ErrSettled says that the dead letter was replayed or resolved before.
var ErrSettled = errors.New("the dead letter is settled already")

// LetterKind says why an event is not in the books.
type LetterKind string

// The kinds.
const (
	// LetterFork is an event of a lost branch of history: it has no place in the chain.
	LetterFork LetterKind = "fork"
	// LetterPoison continued the chain, but cannot be read or is not allowed. A row of type
	// dead_letter has its place, and its shard is tainted while it is open.
	LetterPoison LetterKind = "poison"
)

// LetterState is what has become of a dead letter.
type LetterState string

// The states.
const (
	LetterOpen     LetterState = "open"
	LetterReplayed LetterState = "replayed" // its effect is in the books as an event of its own
	LetterResolved LetterState = "resolved" // an operator gave a reason to go on without
)

// Actions of the audit log on dead letters.
const (
	ActionLetterReplay  = "dead_letter.replay"
	ActionLetterResolve = "dead_letter.resolve"
)

// DeadLetter is an event that is kept whole because it could not become part of the books.
type DeadLetter struct {
	ID         int64
	At         time.Time
	Shard      Shard
	Epoch, Seq int64
	// Mark is that of its place in the chain, or ForkMark.
	Mark string
	Kind LetterKind
	// Event is what the stream had: a packed sale.Event, or anything.
	Event  []byte
	Reason string
	State  LetterState
	// SettledAt, Actor and Resolution say who settled it, when and why; zero while it is open.
	SettledAt  time.Time
	Actor      string
	Resolution string
}

// LetterQuery picks dead letters; zero fields pick all.
type LetterQuery struct {
	ID       int64
	Sale     string
	OpenOnly bool
	// After is an ID: those above it, in order, at most Limit.
	After int64
	Limit int
}

// markMax bounds the marks that a ledger keeps, in bytes; those that scripts make are far shorter.
const markMax = 64

// ForkMark tells an event of a fork from all others with its epoch and seq: its own mark, or one made
// of its text when it has none that a ledger can keep.
func ForkMark(e *sale.Event) string {
	if e.Mark != "" && len(e.Mark) <= markMax && utf8.ValidString(e.Mark) && !strings.ContainsRune(e.Mark, 0) {
		return e.Mark
	}
	sum := sha256.Sum256([]byte(e.Pack()))
	return "fork-" + hex.EncodeToString(sum[:16])
}

// DeadRow is the event that stands in the chain for a poison letter: its fold is nothing.
func DeadRow(d *DeadLetter, prev string, atMs int64) (sale.Event, error) {
	data, err := json.Marshal(struct {
		Reason string `json:"reason"`
	}{d.Reason})
	if err != nil {
		return sale.Event{}, fmt.Errorf("dead letter %d-%d: %w", d.Epoch, d.Seq, err)
	}
	return sale.Event{
		Epoch: d.Epoch, Seq: d.Seq, Mark: d.Mark, Prev: prev, AtMs: atMs, Type: sale.EventDeadLetter,
		Sale: d.Shard.Sale, Shard: d.Shard.Number, Actor: ActorReconciler, Data: string(data),
	}, nil
}

// LetterAudit is the audit entry of settling a dead letter.
func LetterAudit(d *DeadLetter) AuditEntry {
	action := ActionLetterResolve
	if d.State == LetterReplayed {
		action = ActionLetterReplay
	}
	return AuditEntry{
		At: d.SettledAt, Actor: d.Actor, Action: action,
		Subject: fmt.Sprintf("%s/dead_letter/%d", d.Shard.Sale, d.ID), Reason: d.Resolution,
		Before: `{"state":"` + string(LetterOpen) + `"}`, After: `{"state":"` + string(d.State) + `"}`,
	}
}
