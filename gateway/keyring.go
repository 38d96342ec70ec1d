package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"flashgate/ledger"
	"flashgate/sale"
)

// Roles are the roles of API keys.
var Roles = []string{"storefront", "marketing", "ops", "admin"}

// roleAll is the role of the dev key: every one.
const roleAll = "all"

// identity is who a request comes from.
type identity struct {
	KeyID, Name, Role string
	// Sales and Locations are all that a limited key is for; nil is every one.
	Sales, Locations []string
	// key is that of an API key.
	key *storedKey
}

// actor is how the ledger names them.
func (i identity) actor() string { return i.key.actor }

// A token is fg_<id>_<secret>. The id finds the row; neither part is of use alone.
const (
	tokenPrefix = "fg_"
	idLength    = 16 // base32 of 10 bytes
	secretBytes = 32
	secretAt    = len(tokenPrefix) + idLength + 1
	tokenLength = secretAt + 43 // base64 of 32 bytes
	keyNameMax  = 128
)

// KeyScopeMax is the most sales, and the most locations, that one key may be limited to.
const KeyScopeMax = 100

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewKey makes an API key: what the ledger stores, and the token, which is shown once and never
// stored.
func NewKey(name, role string, now time.Time) (ledger.Key, string, error) {
	if name == "" || len(name) > keyNameMax || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, unicode.IsControl) {
		return ledger.Key{}, "", fmt.Errorf(
			"key name: must be 1 to %d bytes of UTF-8 without control characters", keyNameMax)
	}
	if !slices.Contains(Roles, role) {
		return ledger.Key{}, "", fmt.Errorf("key role %.40q: must be one of %s", role, strings.Join(Roles, ", "))
	}
	var id [10]byte
	var secret [secretBytes]byte
	// crypto/rand never fails: it ends the program when the system has no randomness.
	_, _ = rand.Read(id[:])
	_, _ = rand.Read(secret[:])
	k := ledger.Key{ID: idEncoding.EncodeToString(id[:]), Name: name, Role: role, CreatedAt: now}
	token := tokenPrefix + k.ID + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
	sum := sha256.Sum256([]byte(token))
	k.Hash = sum[:]
	return k, token, nil
}

// LimitKey limits a storefront key to sales and locations; an empty list is every one. What it is
// limited to need not exist yet.
func LimitKey(k *ledger.Key, sales, locations []string) error {
	if len(sales)+len(locations) > 0 && k.Role != "storefront" {
		return fmt.Errorf("key role %s: only a storefront key can be limited to sales or locations", k.Role)
	}
	for _, scope := range []struct {
		word  string
		names []string
		check func(string) string
		limit *[]string
	}{
		{"sale", sales, sale.CheckSaleID, &k.Sales},
		{"location", locations, sale.CheckName, &k.Locations},
	} {
		if len(scope.names) > KeyScopeMax {
			return fmt.Errorf("key %ss: must be at most %d", scope.word, KeyScopeMax)
		}
		for _, name := range scope.names {
			if wrong := scope.check(name); wrong != "" {
				return fmt.Errorf("key %s %.70q: %s", scope.word, name, wrong)
			}
		}
		*scope.limit = slices.Compact(slices.Sorted(slices.Values(scope.names)))
	}
	return nil
}

// tokenID returns the id in a token of the right form, and the SHA-256 of the token.
func tokenID(token string) (id string, hash [sha256.Size]byte, ok bool) {
	if len(token) != tokenLength || token[:len(tokenPrefix)] != tokenPrefix || token[secretAt-1] != '_' {
		return "", hash, false
	}
	for i := len(tokenPrefix); i < secretAt-1; i++ {
		if c := token[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return "", hash, false
		}
	}
	for i := secretAt; i < tokenLength; i++ {
		c := token[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return "", hash, false
		}
	}
	var text [tokenLength]byte
	copy(text[:], token)
	return token[len(tokenPrefix) : secretAt-1], sha256.Sum256(text[:]), true
}

// keySource is what the keyring needs of a ledger.
type keySource interface {
	Keys(ctx context.Context) ([]ledger.Key, error)
	TouchKeys(ctx context.Context, used map[string]time.Time) error
	SigningKeys(ctx context.Context, candidate ledger.SigningKey) ([]ledger.SigningKey, error)
}

// keyring holds all keys in memory, read again every KeyRefresh. It is safe for concurrent use.
//
// A key that is made, rotated or revoked is so here after at most the longer of KeyRefresh and
// LedgerTimeout, which is when the next read begins, and one LedgerTimeout, which is when it ends: 4 s
// by default, 5 s with the longest KeyRefresh of the configuration, as long as the ledger answers.
// When it does not, the last known keys stay. The end of a rotated key needs no read: it is known
// since the rotation was, and is told by the gateway's own clock.
type keyring struct {
	source keySource
	opts   Options
	dev    [sha256.Size]byte
	devKey *storedKey
	keys   atomic.Pointer[map[string]*storedKey] // nil until the first read
	last   atomic.Pointer[proof]
	// clock is when the last read began, in microseconds since 1970: the time of use that find notes,
	// which asks no other clock.
	clock atomic.Int64
	// candidate is what this gateway would sign with if there were no key yet.
	candidate ledger.SigningKey
	signers   atomic.Pointer[[]ledger.SigningKey] // nil until the first read

	// look is held by whoever reads the ledger, and guards what follows.
	look     chan struct{}
	lookedAt time.Time // start of the last read
	failed   error     // of the last read
	waiting  atomic.Int64

	mu sync.Mutex
	// misses are ids that the ledger did not have. They need no end: a key that is read later is
	// found before this is asked.
	misses map[string]struct{}
}

type storedKey struct {
	hash      [sha256.Size]byte
	revoked   bool
	expiresAt time.Time // zero never
	who       identity
	actor     string
	use       *keyUse
}

func newStoredKey(who identity, use *keyUse) *storedKey {
	s := &storedKey{who: who, actor: "key:" + who.Name, use: use}
	s.who.key = s
	return s
}

// proof is that a credential, the whole header, was found to be a key by what was known then. One is
// remembered: a storefront sends the same with every request.
type proof struct {
	credential []byte
	by         *map[string]*storedKey
	key        *storedKey
}

// prove finds who has the token that a credential holds, and remembers it.
func (k *keyring) prove(ctx context.Context, token, credential string) (identity, error) {
	by := k.keys.Load()
	who, err := k.find(ctx, token)
	if err == nil {
		// Where the keys were read meanwhile, this is of those before, and counts for nothing.
		k.last.Store(&proof{[]byte(credential), by, who.key})
	}
	return who, err
}

// again finds a credential that is the last one found, without taking it apart. How long it takes does not
// tell how much of it is right.
func (k *keyring) again(credential []byte) (identity, bool) {
	p := k.last.Load()
	if p == nil || p.by != k.keys.Load() ||
		subtle.ConstantTimeCompare(credential, p.credential) != 1 || p.key.ended() {
		return identity{}, false
	}
	p.key.use.note(k.clock.Load())
	return p.key.who, true
}

func (s *storedKey) ended() bool {
	return s.revoked || !s.expiresAt.IsZero() && !time.Now().Before(s.expiresAt)
}

// missLookups is the least time between two reads that unknown keys cause.
const missLookups = time.Second

func newKeyring(l ledger.Ledger, o Options) *keyring { return newKeyringOf(l, o) }

func newKeyringOf(s keySource, o Options) *keyring {
	o = o.withDefaults()
	k := &keyring{
		source: s, opts: o, look: make(chan struct{}, 1), misses: map[string]struct{}{},
		candidate: NewSigningKey(time.Now()),
	}
	if o.DevKey != "" {
		k.dev = sha256.Sum256([]byte(o.DevKey))
		k.devKey = newStoredKey(identity{KeyID: "dev", Name: "dev", Role: roleAll}, &keyUse{})
	}
	return k
}

// run reads API keys and signing keys at once and then every KeyRefresh, and writes down every
// KeyTouch and at the end which were used, until ctx ends. Each waits for the ledger on its own.
func (k *keyring) run(ctx context.Context) {
	var loops sync.WaitGroup
	// What a failed read says is in the metrics of the ledger and in readiness; the last known keys stay.
	loops.Go(func() { every(ctx, k.opts.KeyRefresh, func() { _ = k.refresh(ctx) }) })
	loops.Go(func() { every(ctx, k.opts.KeyRefresh, func() { _ = k.readSigning(ctx) }) })
	loops.Go(func() { every(ctx, k.opts.KeyTouch, func() { k.touch(ctx) }) })
	loops.Wait()
	k.touch(ctx)
}

// every runs f at once and then each d, until ctx ends.
func every(ctx context.Context, d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// find returns who has the token, or errUnauthenticated. errUnavailable when the ledger has not
// answered since the start.
func (k *keyring) find(ctx context.Context, token string) (identity, error) {
	if k.opts.DevKey != "" {
		sum := sha256.Sum256([]byte(token))
		if subtle.ConstantTimeCompare(sum[:], k.dev[:]) == 1 {
			return k.devKey.who, nil
		}
	}
	id, hash, ok := tokenID(token)
	if !ok {
		return identity{}, errUnauthenticated
	}
	stored, known := k.stored(id)
	if !known {
		if err := k.lookFor(ctx, id); err != nil {
			return identity{}, err
		}
		stored, known = k.stored(id)
	}
	if !known || subtle.ConstantTimeCompare(hash[:], stored.hash[:]) != 1 || stored.ended() {
		return identity{}, errUnauthenticated
	}
	stored.use.note(k.clock.Load())
	return stored.who, nil
}

func (k *keyring) stored(id string) (*storedKey, bool) {
	keys := k.keys.Load()
	if keys == nil {
		return nil, false
	}
	s, known := (*keys)[id]
	return s, known
}

// lookFor reads the ledger for an id that is not known, at most once a missLookups for all callers
// together. A nil error says that it is known now, or that the ledger was read since the call began.
func (k *keyring) lookFor(ctx context.Context, id string) error {
	if k.missed(id) {
		return errUnauthenticated
	}
	if k.waiting.Add(1) > int64(k.opts.KeyWaitMax) {
		k.waiting.Add(-1)
		if k.keys.Load() == nil {
			// Nothing is known yet, so nothing can be said of any key.
			return fmt.Errorf("%w: keys: not read yet", errUnavailable)
		}
		return errUnauthenticated
	}
	defer k.waiting.Add(-1)
	asked := time.Now()
	if err := acquire(ctx, k.look); err != nil {
		return err
	}
	defer func() { <-k.look }()
	if _, known := k.stored(id); known {
		return nil // A read that had begun before had it, such as the first one of all.
	}
	if !k.lookedAt.After(asked) {
		if err := sleep(ctx, time.Until(k.lookedAt.Add(missLookups))); err != nil {
			return err
		}
		_ = k.read(ctx)
	}
	if k.failed != nil {
		if k.keys.Load() == nil {
			return fmt.Errorf("%w: keys: %w", errUnavailable, k.failed)
		}
		return errUnauthenticated
	}
	if _, known := k.stored(id); !known {
		k.remember(id)
	}
	return nil
}

// refresh reads all keys.
func (k *keyring) refresh(ctx context.Context) error {
	if err := acquire(ctx, k.look); err != nil {
		return err
	}
	defer func() { <-k.look }()
	return k.read(ctx)
}

// read is for the holder of look. A caller that gives up does not end the read for the others.
func (k *keyring) read(ctx context.Context) error {
	k.lookedAt = time.Now()
	k.clock.Store(k.lookedAt.UnixMicro())
	ctx, cancel := k.patience(ctx)
	defer cancel()
	list, err := k.source.Keys(ctx)
	if k.failed = err; err != nil {
		return err
	}
	keys := make(map[string]*storedKey, len(list))
	for _, key := range list {
		if len(key.Hash) != sha256.Size {
			continue
		}
		use := &keyUse{}
		if before, known := k.stored(key.ID); known {
			use = before.use
		}
		stored := newStoredKey(identity{
			KeyID: key.ID, Name: key.Name, Role: key.Role, Sales: key.Sales, Locations: key.Locations,
		}, use)
		stored.hash = [sha256.Size]byte(key.Hash)
		stored.revoked, stored.expiresAt = !key.RevokedAt.IsZero(), key.ExpiresAt
		keys[key.ID] = stored
	}
	k.keys.Store(&keys)
	return nil
}

// patience bounds a call of the ledger. It goes on when ctx ends: others wait for it too, or it is the
// last.
func (k *keyring) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), k.opts.LedgerTimeout)
}

func (k *keyring) missed(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, missed := k.misses[id]
	return missed
}

func (k *keyring) remember(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.misses) >= k.opts.MissMax {
		clear(k.misses)
	}
	// The id is part of a token: a copy of its own does not keep the secret in memory.
	k.misses[strings.Clone(id)] = struct{}{}
}

// acquire takes a place, or ends with the context as errUnavailable.
func acquire(ctx context.Context, place chan struct{}) error {
	select {
	case place <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errUnavailable, ctx.Err())
	}
}

// sleep waits, or ends with the context as errUnavailable.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errUnavailable, ctx.Err())
	}
}
