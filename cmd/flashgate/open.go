package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"flashgate/configs"
	"flashgate/ledger"
	"flashgate/ledger/postgres"
	"flashgate/ledger/sqlite"
	"flashgate/lua"
)

// openTimeout bounds the first contact with a server: enough for several processes that make the
// schema one after the other.
const openTimeout = 15 * time.Second

// idleInTransaction is when the server takes the lock of a shard from a reconciler that stopped or lost its
// network, so that another has it within three seconds. Between two statements are only calls of Redis.
const idleInTransaction = 2 * time.Second

// openLedger opens what a DSN names, and makes its schema if need be. The error says where, and holds
// no password.
func openLedger(ctx context.Context, dsn configs.Secret) (l ledger.Ledger, err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if path, ok := strings.CutPrefix(string(dsn), "sqlite:"); ok {
		l, err = sqlite.Open(ctx, path, sqlite.Options{})
	} else {
		l, err = postgres.Open(ctx, string(dsn), postgres.Options{IdleInTransaction: idleInTransaction})
	}
	if err != nil {
		return nil, fmt.Errorf("ledger %s cannot be opened: %s", dsn, clean(err, string(dsn)))
	}
	return l, nil
}

// embeddedDSN is the ledger of the embedded stack; its folder is made.
func embeddedDSN(data string) (configs.Secret, error) {
	if err := os.MkdirAll(data, 0o750); err != nil {
		return "", fmt.Errorf("data folder: %w", err)
	}
	return configs.Secret("sqlite:" + filepath.Join(data, "ledger.db")), nil
}

// openRedis connects and asks once whether the server is there.
func openRedis(ctx context.Context, cfg *configs.Config) (redis.UniversalClient, error) {
	url := cfg.Redis.URL
	at, err := configs.ParseRedisURL(string(url))
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	rdb := lua.Connect(lua.ConnectOptions{
		Addrs: at.Addrs, Master: at.Master, Cluster: at.Mode == configs.RedisCluster, TLS: at.TLS, DB: at.DB,
		Username: at.Username, Password: at.Password,
		SentinelUsername: at.SentinelUsername, SentinelPassword: at.SentinelPassword,
		ReadTimeout: time.Duration(cfg.Redis.ReadTimeoutMs) * time.Millisecond, PoolSize: int(cfg.Redis.PoolSize),
	})
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := rdb.Ping(ctx).Err(); err != nil {
		_ = rdb.Close()
		return nil, fmt.Errorf("redis %s cannot be reached: %s", url, clean(err, string(url)))
	}
	return rdb, nil
}

// clean is an error on one line without the password of a URL.
func clean(err error, url string) string {
	text := oneLine(err)
	if _, rest, ok := strings.Cut(url, "://"); ok {
		if at := strings.LastIndexByte(rest, '@'); at > 0 {
			if _, password, ok := strings.Cut(rest[:at], ":"); ok && password != "" {
				text = strings.ReplaceAll(text, password, "xxxxx")
			}
		}
	}
	return text
}

// openForTools opens the ledger of the sale and key commands and says on standard error which it is.
func (f ledgerFlags) openForTools(ctx context.Context, c console) (ledger.Ledger, error) {
	cfg, err := f.load(c)
	if err != nil {
		return nil, err
	}
	set(&cfg.Ledger, f.Ledger, secret)
	set(&cfg.Data, f.Data, same)
	// These commands need no Redis: the rules between settings of a server are not theirs.
	cfg.Redis.URL, cfg.Embedded = "", cfg.Ledger == ""
	if cfg.Embedded {
		cfg.Listen = configs.Default().Listen
	} else {
		cfg.Redis.URL = "redis://unused"
	}
	if err := validate(&cfg); err != nil {
		return nil, err
	}
	dsn := cfg.Ledger
	if cfg.Embedded {
		if dsn, err = embeddedDSN(cfg.Data); err != nil {
			return nil, err
		}
	}
	l, err := openLedger(ctx, dsn)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c.err, "ledger: %s\n", dsn)
	return l, nil
}
