package gateway

import (
	"context"
	"time"

	"flashgate/ledger"
	"flashgate/signing"
)

// NewSigningKey makes a random key that gateways may sign with, once the ledger has it.
func NewSigningKey(now time.Time) ledger.SigningKey {
	k := signing.NewKey(now)
	return ledger.SigningKey{ID: k.ID, Secret: k.Secret, CreatedAt: k.CreatedAt}
}

// readSigning reads the keys that all gateways sign with. The first gateway of all makes the first.
func (k *keyring) readSigning(ctx context.Context) error {
	ctx, cancel := k.patience(ctx)
	defer cancel()
	keys, err := k.source.SigningKeys(ctx, k.candidate)
	if err == nil {
		k.signers.Store(&keys)
	}
	return err
}

// signing returns all signing keys, newest first; nil until the ledger has answered once. The list is
// shared: it must not be changed.
func (k *keyring) signing() []ledger.SigningKey {
	if keys := k.signers.Load(); keys != nil {
		return *keys
	}
	return nil
}
