package configs

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"flashgate/sale"
)

const (
	maxSaleFiles   = 1000 // applied at a start
	maxProxies     = 1000
	minTokenSecret = 32 // bytes: as long as what HS256 makes of it
)

// Validate returns everything that is wrong with a configuration: each field, and the rules between
// fields; nil when the server may start. Secrets are not repeated.
func (c *Config) Validate() []sale.FieldError {
	wrong := c.checkFields()
	add := func(bad bool, at, detail string) {
		if bad {
			wrong = append(wrong, sale.FieldError{Pointer: at, Detail: detail})
		}
	}
	add(c.Embedded && c.Redis.URL != "", "/redis/url", "must be empty with embedded, which brings its own Redis")
	add(c.Embedded && c.Ledger != "", "/ledger", "must be empty with embedded, which keeps its ledger in data")
	add(c.Embedded && !loopback(c.Listen), "/listen",
		"must be a loopback address with embedded, whose key is well known")
	add(!c.Embedded && c.Redis.URL == "", "/redis/url", "is required without embedded")
	add(!c.Embedded && c.Ledger == "", "/ledger", "is required without embedded")
	add(c.Gateway.QueueMax < c.Gateway.BatchMax, "/gateway/queue_max", "must not be below gateway.batch_max")
	add(c.HTTP.WriteTimeoutMs <= c.Confirm.WaitMs, "/http/write_timeout_ms",
		"must be above confirm.wait_ms, or an answer that waited is cut off")
	add(c.Tokens.On() && c.Tokens.Issuer == "", "/tokens/issuer", "is required with tokens: the iss of your tokens")
	add(c.Tokens.On() && c.Tokens.Audience == "", "/tokens/audience",
		"is required with tokens: the aud of those meant for this service")
	ch := &c.Challenge
	for _, p := range []struct {
		at          string
		key, secret bool
	}{
		{"/challenge/turnstile", ch.Turnstile.SiteKey != "", ch.Turnstile.Secret != ""},
		{"/challenge/hcaptcha", ch.HCaptcha.SiteKey != "", ch.HCaptcha.Secret != ""},
		{"/challenge/recaptcha", ch.ReCaptcha.SiteKey != "", ch.ReCaptcha.Secret != ""},
	} {
		add(p.key && !p.secret, p.at+"/secret", "is required with site_key")
		add(p.secret && !p.key, p.at+"/site_key", "is required with secret")
		add(p.key && p.secret && len(ch.Hostnames) == 0, "/challenge/hostnames",
			"must name the hosts of your pages: answers solved elsewhere are refused")
	}
	return wrong
}

// checkFields checks every field alone.
func (c *Config) checkFields() []sale.FieldError {
	var wrong []sale.FieldError
	for _, f := range c.fields() {
		if detail := f.check(); detail != "" {
			wrong = append(wrong, sale.FieldError{Pointer: f.pointer, Detail: detail})
		}
	}
	return wrong
}

// check returns what is wrong with a field, or "".
func (f field) check() string {
	if allowed := f.tag.Get("range"); allowed != "" {
		least, most, n := f.bounds(allowed)
		if n < least || n > most {
			return fmt.Sprintf("must be %s, is %d", allowed, n)
		}
		return ""
	}
	if words := f.tag.Get("oneof"); words != "" {
		if !isOneOf(f.value.String(), words) {
			return fmt.Sprintf("must be %s, is %.40q", words, f.value.String())
		}
		return ""
	}
	switch f.pointer {
	case "/listen":
		return checkListen(f.value.String())
	case "/data":
		return checkPath(f.value.String())
	case "/redis/url":
		if f.value.Len() > 0 {
			if _, err := ParseRedisURL(f.value.String()); err != nil {
				return err.Error()
			}
		}
	case "/ledger":
		return checkLedger(f.value.Interface().(Secret))
	case "/sales":
		return checkSales(f.value.Interface().([]string))
	case "/tokens/secret":
		if n := f.value.Len(); n > 0 && n < minTokenSecret {
			return fmt.Sprintf("must have at least %d bytes, or tokens can be guessed", minTokenSecret)
		}
	case "/tokens/tier_claim":
		if f.value.String() == "" {
			return "must name a claim, such as tier"
		}
	case "/http/trusted_proxies":
		return checkNetworks(f.value.Interface().([]string))
	}
	return ""
}

func (f field) bounds(allowed string) (least, most, n int64) {
	low, high, _ := strings.Cut(allowed, " to ")
	least, err1 := strconv.ParseInt(low, 10, 64)
	most, err2 := strconv.ParseInt(high, 10, 64)
	if err1 != nil || err2 != nil || f.value.Kind() != reflect.Int64 {
		panic("configs: range of " + f.pointer + " is not for a number: " + allowed)
	}
	return least, most, f.value.Int()
}

// isOneOf finds a word in "a, b or c".
func isOneOf(word, words string) bool {
	for _, w := range strings.Split(strings.ReplaceAll(words, " or ", ", "), ", ") {
		if w == word {
			return true
		}
	}
	return false
}

func checkListen(s string) string {
	_, port, err := net.SplitHostPort(s)
	if n, errPort := strconv.ParseUint(port, 10, 16); err == nil && errPort == nil && n <= 65_535 {
		return ""
	}
	return fmt.Sprintf("must be address:port such as 127.0.0.1:8080 (port 0 picks one), is %.60q", s)
}

func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func checkPath(s string) string {
	if s == "" || strings.ContainsRune(s, 0) {
		return "must be the path of a folder"
	}
	return ""
}

func checkLedger(s Secret) string {
	scheme, rest, ok := strings.Cut(string(s), ":")
	switch {
	case s == "":
		return ""
	case ok && scheme == "sqlite" && rest != "":
		return ""
	case ok && (scheme == "postgres" || scheme == "postgresql") && strings.HasPrefix(rest, "//"):
		return ""
	}
	return "must be sqlite:PATH or postgres://user:password@host:port/database"
}

func checkSales(paths []string) string {
	if len(paths) > maxSaleFiles {
		return fmt.Sprintf("must name at most %d files, names %d", maxSaleFiles, len(paths))
	}
	for i, p := range paths {
		if checkPath(p) != "" {
			return fmt.Sprintf("must name files; number %d is empty", i+1)
		}
	}
	return ""
}

func checkNetworks(list []string) string {
	if len(list) > maxProxies {
		return fmt.Sprintf("must name at most %d networks, names %d", maxProxies, len(list))
	}
	for _, s := range list {
		_, err1 := netip.ParsePrefix(s)
		_, err2 := netip.ParseAddr(s)
		if err1 != nil && err2 != nil {
			return fmt.Sprintf("must name networks such as 10.0.0.0/8 or addresses, names %.60q", s)
		}
	}
	return ""
}
