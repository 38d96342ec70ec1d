package configs

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnnotatedFileIsTheDefaults(t *testing.T) {
	c, err := Load("flashgate.yaml", nil)
	require.NoError(t, err)
	require.Equal(t, Default(), c)

	b, err := os.ReadFile("flashgate.yaml")
	require.NoError(t, err)
	_, lines, err := yamlToJSON(b)
	require.NoError(t, err)
	text := strings.Split(string(b), "\n")
	for _, f := range c.fields() {
		require.Contains(t, lines, f.pointer)
		allowed := f.tag.Get("range") + f.tag.Get("oneof")
		require.Contains(t, text[lines[f.pointer]-1], allowed, "the range of %s", f.pointer)
		delete(lines, f.pointer)
	}
}

func TestEveryNumberAndWordHasItsRange(t *testing.T) {
	c := Default()
	for _, f := range c.fields() {
		if f.value.CanInt() {
			require.NotEmpty(t, f.tag.Get("range"), f.pointer)
		}
		require.Empty(t, f.check(), f.pointer)
	}
}

func TestEveryVariableReachesItsField(t *testing.T) {
	c := Default()
	for _, f := range c.fields() {
		var value, want string
		switch {
		case f.value.CanInt():
			value, want = "1234567", "1234567"
		case f.value.Kind().String() == "bool":
			value = strconv.FormatBool(!f.value.Bool())
			want = value
		case f.value.Kind().String() == "slice":
			value, want = "a.yaml,b.yaml", "[a.yaml b.yaml]"
		default:
			value, want = "x", "x"
		}
		require.NoError(t, applyEnv(&c, []string{f.env + "=" + value}, sources{}), f.env)
		if f.value.Kind().String() == "string" {
			require.Equal(t, want, f.value.String(), f.env)
			continue
		}
		require.Equal(t, want, fmt.Sprint(f.value.Interface()), f.env)
	}
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestEnvironmentIsStrongerThanFileAndFileThanDefault(t *testing.T) {
	path := writeConfig(t, "gateway: {batch_max: 7, queue_max: 8}\nsales: [a.yaml]\n")
	c, err := Load(path, []string{
		"FLASHGATE_GATEWAY_BATCH_MAX=9", "FLASHGATE_LISTEN=", "FLASHGATE_DEV_KEY=k", "PATH=/bin",
		"FLASHGATE_SERVICE_HOST=10.0.0.1", "FLASHGATE_PORT=tcp://10.0.0.1:80", "FLASHGATE_PORT_80_TCP_ADDR=10.0.0.1",
		"FLASHGATE_REDIS_SERVICE_PORT_HTTP=80", "FLASHGATE_LEDGER=postgres://u:p@h/db",
	})
	require.NoError(t, err)
	want := Default()
	want.Gateway.BatchMax, want.Gateway.QueueMax, want.Sales = 9, 8, []string{"a.yaml"}
	want.Ledger = "postgres://u:p@h/db"
	require.Equal(t, want, c)
}

func TestWrongConfigurationNamesItsSource(t *testing.T) {
	for name, c := range map[string]struct {
		file    string
		environ []string
		want    string // with c.yaml for the file
	}{
		"file range": {"gateway:\n  batch_max: 0\n", nil, "c.yaml:2: /gateway/batch_max: must be 1 to 1024, is 0"},
		"file word":  {"log: {level: loud}\n", nil, `c.yaml:1: /log/level: must be debug, info, warn or error, is "loud"`},
		"file field": {"gateway:\n  batchmax: 0\n", nil, "c.yaml:2: /gateway/batchmax: is not a field here; the fields are batch_max, queue_max, queue_wait_ms, redis_timeout_ms, key_refresh_ms, catalog_refresh_ms, resolve_max, streams_max, limit_keys_max, edge_memory_ms"},
		"file type":  {"embedded: 1\n", nil, "c.yaml:1: /embedded: must be true or false, is a number"},
		"file text":  {"redis: {url: 5}\n", nil, "c.yaml:1: /redis/url: must be text, is a number"},
		"two": {
			"gateway:\n  batch_max: 0\nlisten: here\n",
			nil,
			"c.yaml:3: /listen: must be address:port such as 127.0.0.1:8080 (port 0 picks one), is \"here\"\nc.yaml:2: /gateway/batch_max: must be 1 to 1024, is 0",
		},
		"env over file":      {"gateway:\n  batch_max: 5\n", []string{"FLASHGATE_GATEWAY_BATCH_MAX=0"}, "FLASHGATE_GATEWAY_BATCH_MAX: /gateway/batch_max: must be 1 to 1024, is 0"},
		"env type":           {"{}", []string{"FLASHGATE_HTTP_SHUTDOWN_MS=1s", "FLASHGATE_SWEEP_ENABLED=maybe"}, "FLASHGATE_HTTP_SHUTDOWN_MS: must be a whole number, is \"1s\"\nFLASHGATE_SWEEP_ENABLED: must be true or false, is \"maybe\""},
		"env unknown":        {"{}", []string{"FLASHGATE_GATEWAY_BATCHMAX=5"}, "FLASHGATE_GATEWAY_BATCHMAX: no such setting; did you mean FLASHGATE_GATEWAY_BATCH_MAX?"},
		"ledger":             {"ledger: mysql://u:s3cr3t@h/d\n", nil, "c.yaml:1: /ledger: must be sqlite:PATH or postgres://user:password@host:port/database"},
		"redis":              {"redis: {url: 'http://u:s3cr3t@h'}\n", nil, "c.yaml:1: /redis/url: " + ErrRedisURL.Error()},
		"sales":              {"sales: ['']\n", nil, "c.yaml:1: /sales: must name files; number 1 is empty"},
		"short token secret": {"tokens: {issuer: i, audience: a, secret: s3cr3t}\n", nil, "c.yaml:1: /tokens/secret: must have at least 32 bytes, or tokens can be guessed"},
		"no tier claim":      {"tokens: {tier_claim: ''}\n", nil, "c.yaml:1: /tokens/tier_claim: must name a claim, such as tier"},
		"proxies":            {"http: {trusted_proxies: [10.0.0.0/8, '::1', proxy]}\n", nil, "c.yaml:1: /http/trusted_proxies: must name networks such as 10.0.0.0/8 or addresses, names \"proxy\""},
		"data":               {"data: ''\n", nil, "c.yaml:1: /data: must be the path of a folder"},
		"list":               {"[]", nil, "c.yaml:1: must be an object with the fields listen, embedded, data, redis, ledger, sales, gateway, confirm, http, tokens, challenge, reconcile, sweep, stream_max_events, record_seconds, log, is a list"},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeConfig(t, c.file)
			_, err := Load(path, c.environ)
			require.EqualError(t, err, strings.ReplaceAll(c.want, "c.yaml", path))
			require.NotContains(t, err.Error(), "s3cr3t")
		})
	}
	_, err := Load("no-such-file.yaml", nil)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestRulesBetweenFields(t *testing.T) {
	embedded := func(change func(*Config)) Config {
		c := Default()
		c.Embedded = true
		change(&c)
		return c
	}
	for want, c := range map[string]Config{
		"":                                embedded(func(*Config) {}),
		"/redis/url /ledger":              Default(),
		"/redis/url":                      embedded(func(c *Config) { c.Redis.URL = "redis://h" }),
		"/ledger":                         embedded(func(c *Config) { c.Ledger = "sqlite:x" }),
		"/listen":                         embedded(func(c *Config) { c.Listen = ":8080" }),
		"/gateway/queue_max":              embedded(func(c *Config) { c.Gateway.QueueMax = 127 }),
		"/http/write_timeout_ms":          embedded(func(c *Config) { c.Confirm.WaitMs = 10_000 }),
		"/tokens/issuer /tokens/audience": embedded(func(c *Config) { c.Tokens.JWKS = "keys.json" }),
		"/challenge/turnstile/site_key":   embedded(func(c *Config) { c.Challenge.Turnstile.Secret = "s" }),
		"/challenge/hcaptcha/secret":      embedded(func(c *Config) { c.Challenge.HCaptcha.SiteKey = "k" }),
		"/challenge/hostnames": embedded(func(c *Config) {
			c.Challenge.ReCaptcha = ReCaptcha{SiteKey: "k", Secret: "s", MinPercent: 50}
		}),
		"/sweep/batch_max /listen": embedded(func(c *Config) { c.Listen, c.Sweep.BatchMax = "10.0.0.1:1", 0 }),
	} {
		var at []string
		for _, f := range c.Validate() {
			at = append(at, f.Pointer)
		}
		require.Equal(t, want, strings.Join(at, " "))
	}
}

func TestRedisURL(t *testing.T) {
	for s, want := range map[string]RedisTarget{
		"redis://h":                     {Mode: RedisSingle, Addrs: []string{"h:6379"}},
		"rediss://u:p%40%2F@h:1/3":      {Mode: RedisSingle, TLS: true, Addrs: []string{"h:1"}, Username: "u", Password: "p@/", DB: 3},
		"redis://:p@[::1]:7?db=2":       {Mode: RedisSingle, Addrs: []string{"[::1]:7"}, Password: "p", DB: 2},
		"redis-cluster://a:1,b,[::1]:2": {Mode: RedisCluster, Addrs: []string{"a:1", "b:6379", "[::1]:2"}},
		"rediss-cluster://u:p@a/":       {Mode: RedisCluster, TLS: true, Addrs: []string{"a:6379"}, Username: "u", Password: "p"},
		"redis-sentinel://a,b:2/main":   {Mode: RedisSentinel, Addrs: []string{"a:26379", "b:2"}, Master: "main"},
		"redis-sentinel://u:p@a/m?db=1": {Mode: RedisSentinel, Addrs: []string{"a:26379"}, Master: "m", Username: "u", Password: "p", DB: 1},
		"redis-sentinel://a/m?sentinel_username=su&sentinel_password=sp": {
			Mode: RedisSentinel, Addrs: []string{"a:26379"}, Master: "m", SentinelUsername: "su", SentinelPassword: "sp",
		},
	} {
		got, err := ParseRedisURL(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{
		"", "h:6379", "http://h", "redis://", "redis://h:x", "redis://h:0", "redis://h:99999", "redis://a,b", "redis://h/x",
		"redis://h/-1", "redis://h/1/2", "redis://h?max_retries=3", "redis://u:secret#x@h", "redis://u:secret/x@h",
		"redis://u:secret%zz@h", "redis-sentinel://h", "redis-cluster://h/1", "redis-cluster://h?db=1", "redis://h?%zz", "redis-cluster://a,,b",
		"redis-cluster://" + strings.Repeat("a,", 100) + "a",
	} {
		_, err := ParseRedisURL(s)
		require.ErrorIs(t, err, ErrRedisURL, s)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	for s, want := range map[Secret]string{
		"":                              "",
		"redis://u:secret@h:1/0":        "redis://u:xxxxx@h:1/0",
		"redis://:secret@h":             "redis://:xxxxx@h",
		"redis-cluster://u:se@cret@a,b": "redis-cluster://u:xxxxx@a,b",
		"redis-sentinel://a/m?sentinel_password=s": "redis-sentinel://a/m",
		"postgres://u:sec/ret@h/db":                "postgres://xxxxx",
		"postgres://u:sec#ret@h/db":                "postgres://xxxxx",
		"postgres://h/db?password=secret":          "postgres://h/db",
		"sqlite:./a/b.db":                          "sqlite:./a/b.db",
		"secret":                                   "xxxxx",
	} {
		require.Equal(t, want, s.String())
	}
	c := Default()
	c.Redis.URL, c.Ledger = "redis://u:s3cr3t@h", "postgres://u:s3cr3t@h/db"
	c.Tokens.Secret, c.Challenge.ReCaptcha.Secret = "s3cr3t", "https://s3cr3t"
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("config", "config", c)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("config", "config", c)
	j, err := json.Marshal(c)
	require.NoError(t, err)
	for _, out := range []string{fmt.Sprintf("%v %+v %#v", c, c, c), fmt.Sprint(&c), log.String(), string(j)} {
		require.NotContains(t, out, "s3cr3t")
		require.Contains(t, out, "xxxxx")
	}
}
