package lua

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// ConnectOptions say where Redis is, and bound what one client may do. Zero bounds take the
// defaults.
type ConnectOptions struct {
	// Addrs is host:port of the server, of the Sentinels, or of some nodes of the cluster.
	Addrs []string
	// Master is Sentinel's name for the primary; Cluster says that Addrs are of a cluster.
	Master  string
	Cluster bool
	TLS     bool

	Username, Password                 string
	SentinelUsername, SentinelPassword string
	DB                                 int

	// ReadTimeout bounds one reply; default 500 ms. A script answers in about one.
	ReadTimeout time.Duration
	// DialTimeout bounds one connection attempt; default 1 s.
	DialTimeout time.Duration
	// PoolSize bounds connections per node; default 320.
	PoolSize int
}

// Connect opens a client without contacting the server. No call is ever repeated by the client: a
// lost reply is an unknown outcome, and a script that ran twice would not be.
func Connect(o ConnectOptions) redis.UniversalClient {
	opts := &redis.UniversalOptions{
		Addrs: o.Addrs, MasterName: o.Master, IsClusterMode: o.Cluster, DB: o.DB,
		Username: o.Username, Password: o.Password,
		SentinelUsername: o.SentinelUsername, SentinelPassword: o.SentinelPassword,
		// A connection is tried once: the callers know best how long to wait for a server.
		MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		ReadTimeout: orDefault(o.ReadTimeout, 500*time.Millisecond),
		DialTimeout: orDefault(o.DialTimeout, time.Second),
		PoolSize:    orDefault(o.PoolSize, 320),
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}
	if o.TLS {
		opts.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if host, _, err := net.SplitHostPort(o.Addrs[0]); err == nil && len(o.Addrs) == 1 {
			opts.TLSConfig.ServerName = host
		}
	}
	return redis.NewUniversalClient(opts)
}

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}
