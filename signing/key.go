package signing

import (
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"io"
	"log/slog"
	"time"
)

const (
	idLength    = 8 // base32 of idBytes
	idBytes     = 5
	secretBytes = 32
)

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Key signs texts and checks them. The id, 8 characters of base32 in lower case, is public and
// stands in every text; the secret has 32 bytes and is never printed.
type Key struct {
	ID        string
	Secret    []byte `json:"-"`
	CreatedAt time.Time
}

// NewKey makes a random key.
func NewKey(now time.Time) Key {
	var id [idBytes]byte
	secret := make([]byte, secretBytes)
	// crypto/rand never fails: it ends the program when the system has no randomness.
	_, _ = rand.Read(id[:])
	_, _ = rand.Read(secret)
	return Key{ID: idEncoding.EncodeToString(id[:]), Secret: secret, CreatedAt: now}
}

// check returns the bytes of the id, and what is wrong with the key.
func (k Key) check() (id [idBytes]byte, err error) {
	b, err := idEncoding.DecodeString(k.ID)
	if err != nil || len(b) != idBytes || len(k.ID) != idLength {
		return id, fmt.Errorf("signing key %.20q: its id must be 8 of a-z and 2-7", k.ID)
	}
	if len(k.Secret) != secretBytes {
		return id, fmt.Errorf("signing key %s: its secret must have %d bytes, has %d", k.ID, secretBytes, len(k.Secret))
	}
	return [idBytes]byte(b), nil
}

// betterThan tells whether a key is the better one to sign with: the newer of two that are known by
// now, else the older.
func (k *Key) betterThan(o *Key, known time.Time) bool {
	newer := k.CreatedAt.After(o.CreatedAt) || k.CreatedAt.Equal(o.CreatedAt) && k.ID > o.ID
	if k.CreatedAt.Before(known) && o.CreatedAt.Before(known) {
		return newer
	}
	return !newer
}

// Format prints the id alone, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "signing key "+k.ID) }

// LogValue logs the id alone.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.ID) }
