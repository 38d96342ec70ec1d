package configs

import (
	"reflect"
	"strings"
)

// Config is the configuration of the server: the schema of flashgate.yaml. A name ends in its unit;
// range gives what a number may be, both ends included, oneof the words a text may be.
type Config struct {
	Listen   string   `json:"listen"`
	Embedded bool     `json:"embedded"`
	Data     string   `json:"data"`
	Redis    Redis    `json:"redis" envPrefix:"redis_"`
	Ledger   Secret   `json:"ledger"`
	Sales    []string `json:"sales"`

	Gateway   Gateway   `json:"gateway" envPrefix:"gateway_"`
	Confirm   Confirm   `json:"confirm" envPrefix:"confirm_"`
	HTTP      HTTP      `json:"http" envPrefix:"http_"`
	Tokens    Tokens    `json:"tokens" envPrefix:"tokens_"`
	Challenge Challenge `json:"challenge" envPrefix:"challenge_"`
	Reconcile Reconcile `json:"reconcile" envPrefix:"reconcile_"`
	Sweep     Sweep     `json:"sweep" envPrefix:"sweep_"`

	StreamMaxEvents int64 `json:"stream_max_events" range:"1000 to 100000000"`
	RecordSeconds   int64 `json:"record_seconds" range:"60 to 31536000"`
	Log             Log   `json:"log" envPrefix:"log_"`
}

// Redis is how to reach the one that holds the stock; ParseRedisURL reads its URL.
type Redis struct {
	URL           Secret `json:"url"`
	ReadTimeoutMs int64  `json:"read_timeout_ms" range:"10 to 60000"`
	PoolSize      int64  `json:"pool_size" range:"1 to 4096"`
}

// Gateway bounds what waits for Redis and what is kept in memory.
type Gateway struct {
	BatchMax         int64 `json:"batch_max" range:"1 to 1024"`
	QueueMax         int64 `json:"queue_max" range:"1 to 1000000"`
	QueueWaitMs      int64 `json:"queue_wait_ms" range:"1 to 60000"`
	RedisTimeoutMs   int64 `json:"redis_timeout_ms" range:"10 to 60000"`
	KeyRefreshMs     int64 `json:"key_refresh_ms" range:"100 to 3000"`
	CatalogRefreshMs int64 `json:"catalog_refresh_ms" range:"100 to 600000"`
	ResolveMax       int64 `json:"resolve_max" range:"1 to 100000"`
	StreamsMax       int64 `json:"streams_max" range:"0 to 1000000"`
	LimitKeysMax     int64 `json:"limit_keys_max" range:"1000 to 10000000"`
	// EdgeMemoryMs is 0 for none.
	EdgeMemoryMs int64 `json:"edge_memory_ms" range:"0 to 1000"`
}

// Confirm bounds the wait for the ledger.
type Confirm struct {
	WaitMs int64 `json:"wait_ms" range:"1 to 60000"`
}

// HTTP bounds what a client may ask of the listener.
type HTTP struct {
	BodyMaxBytes   int64 `json:"body_max_bytes" range:"1024 to 16777216"`
	ReadTimeoutMs  int64 `json:"read_timeout_ms" range:"100 to 600000"`
	WriteTimeoutMs int64 `json:"write_timeout_ms" range:"100 to 600000"`
	IdleTimeoutMs  int64 `json:"idle_timeout_ms" range:"100 to 3600000"`
	ShutdownMs     int64 `json:"shutdown_ms" range:"0 to 600000"`
	ConcurrencyMax int64 `json:"concurrency_max" range:"1 to 10000000"`
	// TrustedProxies are networks or addresses whose X-Forwarded-For is believed.
	TrustedProxies []string `json:"trusted_proxies"`
}

// Tokens says which customer tokens are believed: those signed with Secret (HS256) or with a key of
// JWKS, for Audience by Issuer. Without secret and JWKS there are none.
type Tokens struct {
	Issuer         string   `json:"issuer"`
	Audience       string   `json:"audience"`
	Secret         Password `json:"secret"`
	JWKS           string   `json:"jwks"`
	RefreshSeconds int64    `json:"refresh_seconds" range:"5 to 86400"`
	LeewayMs       int64    `json:"leeway_ms" range:"0 to 60000"`
	TierClaim      string   `json:"tier_claim"`
	CacheMax       int64    `json:"cache_max" range:"1000 to 10000000"`
}

// On tells whether there are customer tokens.
func (t *Tokens) On() bool { return t.Secret != "" || t.JWKS != "" }

// Challenge is what sales that ask for proof of a person need beside proof of work. A provider
// without keys is left out.
type Challenge struct {
	Difficulty       int64     `json:"difficulty" range:"1 to 30"`
	ClearanceSeconds int64     `json:"clearance_seconds" range:"10 to 86400"`
	Hostnames        []string  `json:"hostnames"`
	Turnstile        SiteKeys  `json:"turnstile" envPrefix:"turnstile_"`
	HCaptcha         SiteKeys  `json:"hcaptcha" envPrefix:"hcaptcha_"`
	ReCaptcha        ReCaptcha `json:"recaptcha" envPrefix:"recaptcha_"`
}

// SiteKeys are the two keys that a provider gives to a site.
type SiteKeys struct {
	SiteKey string   `json:"site_key"`
	Secret  Password `json:"secret"`
}

// ReCaptcha judges by a score.
type ReCaptcha struct {
	SiteKey    string   `json:"site_key"`
	Secret     Password `json:"secret"`
	MinPercent int64    `json:"min_percent" range:"1 to 100"`
}

// Reconcile sets the pace of the books, and when Redis counts as lost.
type Reconcile struct {
	Enabled         bool  `json:"enabled"`
	BatchMax        int64 `json:"batch_max" range:"1 to 10000"`
	IdleMs          int64 `json:"idle_ms" range:"1 to 10000"`
	TailEvents      int64 `json:"tail_events" range:"0 to 1000000"`
	RecoveryGraceMs int64 `json:"recovery_grace_ms" range:"0 to 3600000"`
	MaxClockStepMs  int64 `json:"max_clock_step_ms" range:"1000 to 3600000"`
	SliceRecords    int64 `json:"slice_records" range:"1 to 10000"`
	// VerifyEverySeconds is 0 for never.
	VerifyEverySeconds int64 `json:"verify_every_seconds" range:"0 to 86400"`
}

// Sweep sets the pace of giving back holds that are past their deadline.
type Sweep struct {
	Enabled    bool  `json:"enabled"`
	IntervalMs int64 `json:"interval_ms" range:"10 to 60000"`
	BatchMax   int64 `json:"batch_max" range:"1 to 1024"`
}

// Log is what is written to standard error.
type Log struct {
	Level  string `json:"level" oneof:"debug, info, warn or error"`
	Format string `json:"format" oneof:"text or json"`
}

// Default is the configuration without file, environment and flags; flashgate.yaml explains it.
func Default() Config {
	return Config{
		Listen: "127.0.0.1:8080",
		Data:   "./flashgate-data",
		Redis:  Redis{ReadTimeoutMs: 500, PoolSize: 64},
		Sales:  []string{},
		Gateway: Gateway{
			BatchMax: 128, QueueMax: 16_384, QueueWaitMs: 1000, RedisTimeoutMs: 500, KeyRefreshMs: 2000,
			CatalogRefreshMs: 1000, ResolveMax: 256, StreamsMax: 1000, LimitKeysMax: 100_000,
			EdgeMemoryMs: 250,
		},
		Confirm: Confirm{WaitMs: 2000},
		HTTP: HTTP{
			BodyMaxBytes: 65_536, ReadTimeoutMs: 5000, WriteTimeoutMs: 10_000, IdleTimeoutMs: 60_000,
			ShutdownMs: 15_000, ConcurrencyMax: 262_144, TrustedProxies: []string{},
		},
		Tokens: Tokens{RefreshSeconds: 300, LeewayMs: 5000, TierClaim: "tier", CacheMax: 100_000},
		Challenge: Challenge{
			Difficulty: 16, ClearanceSeconds: 600, Hostnames: []string{}, ReCaptcha: ReCaptcha{MinPercent: 50},
		},
		Reconcile: Reconcile{
			Enabled: true, BatchMax: 1000, IdleMs: 20, TailEvents: 1000, RecoveryGraceMs: 30_000,
			MaxClockStepMs: 30_000, SliceRecords: 500, VerifyEverySeconds: 300,
		},
		Sweep:           Sweep{Enabled: true, IntervalMs: 100, BatchMax: 128},
		StreamMaxEvents: 1_000_000,
		RecordSeconds:   86_400,
		Log:             Log{Level: "info", Format: "text"},
	}
}

// Secret is a URL or DSN that may hold a password: everything that prints it leaves that out.
// Convert it to a string to use it.
type Secret string

// String is the URL without password, query and fragment.
func (s Secret) String() string { return redact(string(s)) }

// GoString does for %#v what String does for %v.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// MarshalText does for JSON and logs what String does.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the text as it is.
func (s *Secret) UnmarshalText(b []byte) error { *s = Secret(b); return nil }

// Password is a secret of which nothing is ever printed. Convert it to a string to use it.
type Password string

// String tells only whether there is one.
func (p Password) String() string {
	if p == "" {
		return ""
	}
	return "xxxxx"
}

// GoString does for %#v what String does for %v.
func (p Password) GoString() string { return `"` + p.String() + `"` }

// MarshalText does for JSON and logs what String does.
func (p Password) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText takes the text as it is.
func (p *Password) UnmarshalText(b []byte) error { *p = Password(b); return nil }

// field is a leaf of the configuration.
type field struct {
	pointer string // /gateway/batch_max
	env     string // FLASHGATE_GATEWAY_BATCH_MAX
	value   reflect.Value
	tag     reflect.StructTag
}

// fields lists the leaves of c in their order; setting a value sets c.
func (c *Config) fields() []field { return leaves(reflect.ValueOf(c).Elem(), "") }

func leaves(v reflect.Value, at string) (all []field) {
	for i, name := range fieldNames(v.Type()) {
		here, tag := at+"/"+name, v.Type().Field(i).Tag
		if v.Field(i).Kind() == reflect.Struct {
			all = append(all, leaves(v.Field(i), here)...)
			continue
		}
		env := envPrefix + strings.ToUpper(strings.ReplaceAll(here[1:], "/", "_"))
		all = append(all, field{pointer: here, env: env, value: v.Field(i), tag: tag})
	}
	return all
}
