package lua

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// ConnectOptions bound what one client may do. Zero values take the defaults.
type ConnectOptions struct {
	// ReadTimeout bounds one reply; default 500 ms. A script answers in about one.
	ReadTimeout time.Duration
	// DialTimeout bounds one connection attempt; default 1 s.
	DialTimeout time.Duration
	// PoolSize bounds connections per node; default 320.
	PoolSize int
}

// Connect opens a client for a URL:
//
//	redis://user:password@host:6379/0          one server (rediss:// for TLS)
//	redis-sentinel://user:password@host1:26379,host2:26379/master-name/0
//	redis-cluster://user:password@host1:6379,host2:6379
//
// It does not contact the server. No call is ever repeated by the client: a reply that is lost
// is an unknown outcome, and a script that ran twice would not be.
func Connect(rawURL string, o ConnectOptions) (redis.UniversalClient, error) {
	first, hosts := splitHosts(rawURL)
	u, err := url.Parse(first)
	if err != nil {
		// The URL may hold a password: it is not repeated.
		return nil, errors.New("redis url: cannot be parsed")
	}
	if u.Host == "" {
		return nil, errors.New("redis url: names no host")
	}
	path := strings.Split(strings.Trim(u.Path, "/"), "/")
	password, _ := u.User.Password()
	opts := &redis.UniversalOptions{
		Addrs: hosts, Username: u.User.Username(), Password: password,
		// A connection is tried once: the callers know best how long to wait for a server.
		MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		ReadTimeout: orDefault(o.ReadTimeout, 500*time.Millisecond),
		DialTimeout: orDefault(o.DialTimeout, time.Second),
		PoolSize:    orDefault(o.PoolSize, 320),
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}
	switch u.Scheme {
	case "redis", "rediss":
		single, err := redis.ParseURL(rawURL)
		if err != nil {
			return nil, fmt.Errorf("redis url: %w", redact(err, password))
		}
		opts.Addrs, opts.DB, opts.TLSConfig = []string{single.Addr}, single.DB, single.TLSConfig
		opts.Username, opts.Password = single.Username, single.Password
		return redis.NewUniversalClient(opts), nil
	case "redis-sentinel":
		if path[0] == "" {
			return nil, errors.New("redis url: redis-sentinel://host,host/master-name names no master")
		}
		opts.MasterName = path[0]
		if len(path) > 1 {
			if opts.DB, err = strconv.Atoi(path[1]); err != nil {
				return nil, fmt.Errorf("redis url: database %q is not a number", path[1])
			}
		}
		return redis.NewUniversalClient(opts), nil
	case "redis-cluster":
		opts.IsClusterMode = true
		return redis.NewUniversalClient(opts), nil
	default:
		return nil, fmt.Errorf("redis url: scheme %q: must be redis, rediss, redis-sentinel or redis-cluster", u.Scheme)
	}
}

// splitHosts parts the hosts of a URL that names several; first is the URL with the first only.
func splitHosts(rawURL string) (first string, hosts []string) {
	begin := strings.Index(rawURL, "://") + len("://")
	if at := strings.LastIndexByte(rawURL, '@'); at > begin {
		begin = at + 1
	}
	end := len(rawURL)
	if slash := strings.IndexAny(rawURL[begin:], "/?"); slash >= 0 {
		end = begin + slash
	}
	hosts = strings.Split(rawURL[begin:end], ",")
	return rawURL[:begin] + hosts[0] + rawURL[end:], hosts
}

func redact(err error, secret string) error {
	if secret == "" {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), secret, "***"))
}

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}
