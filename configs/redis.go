package configs

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// RedisMode is how the servers behind a URL are organised.
type RedisMode string

// The modes.
const (
	RedisSingle   RedisMode = "single"
	RedisSentinel RedisMode = "sentinel"
	RedisCluster  RedisMode = "cluster"
)

// RedisTarget is a Redis URL taken apart. It says where and who; timeouts, retries and pools are not
// a URL's to change, because retries of a write by the client library would run it twice.
type RedisTarget struct {
	Mode               RedisMode
	TLS                bool
	Addrs              []string // host:port of the server, the Sentinels, or some nodes of the cluster
	Username, Password string
	Master             string // Sentinel's name for the primary
	DB                 int    // 0 in a cluster
	// SentinelUsername and SentinelPassword sign in at the Sentinels themselves.
	SentinelUsername, SentinelPassword string
}

const (
	maxRedisAddrs = 100
	maxRedisDB    = 1 << 20
)

// ErrRedisURL is the form of a Redis URL. It does not repeat what it refuses: that may be a password.
var ErrRedisURL = errors.New("must be redis://user:password@host:port/db, " +
	"redis-sentinel://user:password@host:port,host:port/master?db=0 or " +
	"redis-cluster://user:password@host:port,host:port; rediss, rediss-sentinel and rediss-cluster use TLS")

// ParseRedisURL reads redis:// (one server), redis-sentinel:// (a list of Sentinels and the name of
// the primary) and redis-cluster:// (some of the nodes); rediss instead of redis uses TLS. Parts but the
// host may be left out: the port is then 6379 (Sentinel 26379), the database 0. Sentinel takes db,
// sentinel_username and sentinel_password as query parameters. Special characters of a password
// are written as %XX. Errors wrap ErrRedisURL and never hold a password.
func ParseRedisURL(s string) (RedisTarget, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	mode, known := map[string]RedisMode{
		"redis": RedisSingle, "redis-sentinel": RedisSentinel, "redis-cluster": RedisCluster,
	}[strings.Replace(scheme, "rediss", "redis", 1)]
	if !ok || !known {
		return RedisTarget{}, ErrRedisURL
	}
	t := RedisTarget{Mode: mode, TLS: strings.HasPrefix(scheme, "rediss")}
	// net/url knows one host, so the list of hosts is taken out of it.
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	user, hosts := "", authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, hosts = authority[:i+1], authority[i+1:]
	}
	u, err := url.Parse("redis://" + user + "host" + tail)
	if err != nil {
		return RedisTarget{}, fmt.Errorf("%w (special characters of a password are written as %%XX)", ErrRedisURL)
	}
	if u.User != nil {
		t.Username = u.User.Username()
		t.Password, _ = u.User.Password()
	}
	if err := errors.Join(t.setHosts(hosts), t.setPath(u), t.setQuery(u)); err != nil {
		return RedisTarget{}, fmt.Errorf("%w: %w", ErrRedisURL, err)
	}
	return t, nil
}

func (t *RedisTarget) setHosts(hosts string) error {
	port := "6379"
	if t.Mode == RedisSentinel {
		port = "26379"
	}
	for addr := range strings.SplitSeq(hosts, ",") {
		host, p, err := net.SplitHostPort(addr)
		if err != nil {
			host, p, err = net.SplitHostPort(addr + ":" + port)
		}
		if n, perr := strconv.ParseUint(p, 10, 16); err != nil || perr != nil || n == 0 || host == "" {
			return errors.New("a host is missing or is not host:port")
		}
		t.Addrs = append(t.Addrs, net.JoinHostPort(host, p))
	}
	if len(t.Addrs) > maxRedisAddrs || t.Mode == RedisSingle && len(t.Addrs) > 1 {
		return errors.New("too many hosts")
	}
	return nil
}

func (t *RedisTarget) setPath(u *url.URL) error {
	path := strings.TrimSuffix(strings.TrimPrefix(u.Path, "/"), "/")
	switch {
	case u.Fragment != "" || strings.Contains(path, "/"):
		return errors.New("too much after the host")
	case t.Mode == RedisSentinel:
		if path == "" {
			return errors.New("the name of the master is missing")
		}
		t.Master = path
	case path == "":
	case t.Mode == RedisCluster:
		return errors.New("a cluster has no databases")
	default:
		return t.setDB(path)
	}
	return nil
}

func (t *RedisTarget) setQuery(u *url.URL) error {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("the query cannot be read")
	}
	for name, values := range query {
		value := values[len(values)-1]
		switch {
		case t.Mode == RedisSentinel && name == "sentinel_username":
			t.SentinelUsername = value
		case t.Mode == RedisSentinel && name == "sentinel_password":
			t.SentinelPassword = value
		case t.Mode != RedisCluster && name == "db":
			if err := t.setDB(value); err != nil {
				return err
			}
		default:
			return errors.New("an unknown query parameter")
		}
	}
	return nil
}

func (t *RedisTarget) setDB(s string) (err error) {
	if t.DB, err = strconv.Atoi(s); err != nil || t.DB < 0 || t.DB > maxRedisDB {
		return errors.New("the database is not a number")
	}
	return nil
}

// redact leaves scheme, user, host and path of a URL. What has an @ or a # after its host may be a
// password that was not escaped, so nothing but its scheme is left.
func redact(s string) string {
	if path, ok := strings.CutPrefix(s, "sqlite:"); ok || s == "" {
		path, _, _ = strings.Cut(path, "?")
		return strings.TrimSuffix("sqlite:"+path, "sqlite:")
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return "xxxxx"
	}
	user, host := "", rest
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		user, host = rest[:i], rest[i+1:]
		if strings.ContainsAny(user, "/?#") {
			return scheme + "://xxxxx"
		}
		if name, _, secret := strings.Cut(user, ":"); secret {
			user = name + ":xxxxx"
		}
		user += "@"
	}
	if i := strings.IndexAny(host, "?#"); i >= 0 {
		host = host[:i]
	}
	return scheme + "://" + user + host
}
