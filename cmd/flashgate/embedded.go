package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"

	"flashgate/configs"
	"flashgate/ledger"
)

// embedded is the Redis inside this process and the place of the ledger's file. What is in this Redis
// ends with the process; the reconciler rebuilds it from the ledger at the next start, as after any
// other loss.
type embedded struct {
	redis     *miniredis.Miniredis
	redisURL  configs.Secret
	ledgerDSN configs.Secret
	lock      *os.File
	stop      chan struct{}
	ticking   sync.WaitGroup
}

// ttlTick is how often the records' time to live is moved on. This Redis does it only when told, and
// on its own it would look at every key with every command.
const ttlTick = time.Second

// embeddedTimeoutMs is the least time for a call of the Redis inside. It cannot be away: a slow answer
// means that this process gets no processor, and giving up on it would only make more work.
const embeddedTimeoutMs = 5_000

// openEmbedded starts the Redis and locks the folder: two of them on one ledger would take each other
// for a fork.
func openEmbedded(data string) (*embedded, error) {
	dsn, err := embeddedDSN(data)
	if err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(data, "lock"))
	if err != nil {
		return nil, fmt.Errorf("data folder %s: %w", data, err)
	}
	e := &embedded{redis: miniredis.NewMiniRedis(), ledgerDSN: dsn, lock: lock, stop: make(chan struct{})}
	// Loopback is open to everybody on this machine; a password that nobody knows is not.
	password := rand.Text()
	e.redis.RequireAuth(password)
	if err := e.redis.StartAddr("127.0.0.1:0"); err != nil {
		return nil, errors.Join(fmt.Errorf("embedded redis: %w", err), lock.Close())
	}
	e.redisURL = configs.Secret("redis://:" + password + "@" + e.redis.Addr())
	e.ticking.Go(e.tick)
	return e, nil
}

func (e *embedded) tick() {
	t := time.NewTicker(ttlTick)
	defer t.Stop()
	for last := time.Now(); ; {
		select {
		case <-e.stop:
			return
		case now := <-t.C:
			e.redis.FastForward(now.Sub(last))
			last = now
		}
	}
}

func (e *embedded) close() {
	close(e.stop)
	e.ticking.Wait()
	e.redis.Close()
	_ = e.lock.Close()
}

// devKey is the API key of an embedded stack whose ledger has no valid key; else empty.
func devKey(ctx context.Context, l ledger.Ledger, environ []string) (string, error) {
	keys, err := l.Keys(ctx)
	if err != nil {
		return "", fmt.Errorf("read the keys: %w", err)
	}
	for _, k := range keys {
		if k.RevokedAt.IsZero() {
			return "", nil
		}
	}
	return devKeyOf(environ), nil
}

// devKeyOf is the well known key, or that of the environment.
func devKeyOf(environ []string) string {
	key := "dev"
	for _, pair := range environ {
		if v, ok := strings.CutPrefix(pair, configs.DevKeyEnv+"="); ok && v != "" {
			key = v
		}
	}
	return key
}

// warn says what the embedded stack is not.
func (e *embedded) warn(log *slog.Logger, key string) {
	log.Warn("embedded: for trying out, on this machine only",
		"redis", "inside this process: a hold that the ledger does not have yet ends with it",
		"scale", "some thousand calls a second")
	if key != "" {
		log.Warn("embedded: the ledger has no API key, so one well known key has every role",
			"variable", configs.DevKeyEnv)
	}
}
