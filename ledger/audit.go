package ledger

import (
	"encoding/json"
	"time"
)

// Actions of the audit log.
const (
	ActionSalePut          = "sale.put"
	ActionSalePause        = "sale.pause"
	ActionSaleResume       = "sale.resume"
	ActionSaleClose        = "sale.close"
	ActionStockAdjust      = "stock.adjust"
	ActionStockWriteOff    = "stock.write_off" // a cancellation whose units left on_hand
	ActionShardRebuild     = "shard.rebuild"   // by an operator
	ActionShardAdopt       = "shard.adopt"
	ActionKeyCreate        = "key.create"
	ActionKeyRotate        = "key.rotate"
	ActionKeyRevoke        = "key.revoke"
	ActionSigningKeyCreate = "signing_key.create"
)

// ActorReconciler is the actor of what a reconciler does without being told: rebuilds, and the rows of
// dead letters.
const ActorReconciler = "reconciler"

// ActorItself is the actor of what the program does without being told: the first signing key.
const ActorItself = "flashgate"

// KeyCreated is the audit entry of a new key.
func KeyCreated(k *Key, now time.Time, actor string) AuditEntry {
	return AuditEntry{At: now, Actor: actor, Action: ActionKeyCreate, Subject: k.ID, After: auditText(textOf(k))}
}

// KeyRevoked is the audit entry of a key that is revoked now.
func KeyRevoked(k Key, now time.Time, actor string) AuditEntry {
	entry := AuditEntry{At: now, Actor: actor, Action: ActionKeyRevoke, Subject: k.ID, Before: auditText(textOf(&k))}
	k.RevokedAt = now
	entry.After = auditText(textOf(&k))
	return entry
}

// KeyRotated returns when a key ends that next takes over from: at expiresAt, not before now and not
// later than it would have ended; and the audit entry. ErrKeyEnded when it has ended already.
func KeyRotated(k Key, next *Key, expiresAt, now time.Time, actor string) (time.Time, AuditEntry, error) {
	entry := AuditEntry{At: now, Actor: actor, Action: ActionKeyRotate, Subject: k.ID, Before: auditText(textOf(&k))}
	if !k.RevokedAt.IsZero() || !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt) {
		return time.Time{}, entry, ErrKeyEnded
	}
	if expiresAt.Before(now) {
		expiresAt = now
	}
	if k.ExpiresAt.IsZero() || expiresAt.Before(k.ExpiresAt) {
		k.ExpiresAt = expiresAt
	}
	after, nextText := textOf(&k), textOf(next)
	after.Next = &nextText
	entry.After = auditText(after)
	return k.ExpiresAt, entry, nil
}

// SigningKeyCreated is the audit entry of a new signing key; the secret is not in it.
func SigningKeyCreated(k *SigningKey, now time.Time, actor string) AuditEntry {
	return AuditEntry{
		At: now, Actor: actor, Action: ActionSigningKeyCreate, Subject: k.ID,
		After: auditText(struct {
			CreatedAt time.Time `json:"created_at"`
		}{k.CreatedAt.UTC()}),
	}
}

// NewestAt is the time of a signing key that is to be the newest after those before it, which are
// ordered newest first: its own, now when it is zero, or just above theirs when a clock was ahead.
func (k *SigningKey) NewestAt(before []SigningKey, now time.Time) time.Time {
	at := k.CreatedAt
	if at.IsZero() {
		at = now
	}
	if len(before) > 0 && !at.Truncate(time.Microsecond).After(before[0].CreatedAt) {
		at = before[0].CreatedAt.Add(time.Microsecond)
	}
	return at.UTC().Truncate(time.Microsecond)
}

// keyText is a key as the audit log shows it: never its hash.
type keyText struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Sales     []string  `json:"sales,omitempty"`
	Locations []string  `json:"locations,omitempty"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	// Next takes over from the key.
	Next *keyText `json:"next,omitempty"`
}

func textOf(k *Key) keyText {
	return keyText{
		ID: k.ID, Name: k.Name, Role: k.Role, Sales: k.Sales, Locations: k.Locations,
		ExpiresAt: k.ExpiresAt.UTC().Truncate(time.Microsecond),
		RevokedAt: k.RevokedAt.UTC().Truncate(time.Microsecond),
	}
}

func auditText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts, numbers and times of our clocks always marshal
	}
	return string(text)
}
