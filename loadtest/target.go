package loadtest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// reachTimeout bounds the one call before a load.
const reachTimeout = 3 * time.Second

// target is who is asked. It fills in an answer; Status stays 0 when none came.
type target interface {
	do(ctx context.Context, a *Answer, body call)
	look(ctx context.Context, a *Answer, sku string)
	join(ctx context.Context, a *Answer, customer string) reply
	ticket(ctx context.Context, a *Answer, ticket string) reply
	availability(ctx context.Context) (status int, items []ItemStock, err error)
	close()
}

// CheckTarget refuses a URL that cannot be a target, and one that is not on this machine unless it is owned
// by whoever asks: a load on somebody else's server is an attack.
func CheckTarget(raw string, owned bool) error {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("%.200q is no target: it must be like http://127.0.0.1:8080", raw)
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Hostname() == "localhost" || err == nil && ip.IsLoopback() || owned {
		return nil
	}
	return fmt.Errorf("%s is not on this machine: say --i-own-this-target if it is yours to load", u.Host)
}

// Failure is why calls had no answer that counts.
type Failure struct {
	What   string `json:"what"`
	Advice string `json:"advice"`
	Count  int    `json:"count"`
}

// failures are the known ones; the first whose text is in the error names it.
var failures = []struct {
	in           []string
	what, advice string
}{
	{
		[]string{syscall.EADDRNOTAVAIL.Error(), "too many open files"},
		"this machine ran out of ports or open files",
		"fewer connections in the scenario's bounds, or a larger ulimit -n and net.ipv4.ip_local_port_range",
	},
	{
		[]string{syscall.ECONNREFUSED.Error()},
		"the target refused the connection",
		"is it running, and is the port right?",
	},
	{[]string{"no free connections"}, "no connection was free in time", "more connections in the scenario's bounds"},
	{
		[]string{"timeout", "deadline exceeded"},
		"the target did not answer in time",
		"it stood still or is far beyond its capacity; the chart by second shows when",
	},
	{[]string{nonsense}, "the target answered nonsense", "is this a Flashgate? Try GET /livez by hand"},
	{
		[]string{"reset", "EOF", "closed", "broken pipe"},
		"the target hung up",
		"it restarted, or something between drops connections",
	},
	{[]string{"lookup", "no such host"}, "the target's name is not known", "check the host in the URL"},
}

// failureOf names an error.
func failureOf(gone string) Failure {
	for _, f := range failures {
		for _, text := range f.in {
			if strings.Contains(gone, text) {
				return Failure{What: f.what, Advice: f.advice}
			}
		}
	}
	return Failure{What: gone}
}

// Reachable asks a target once, so that a wrong URL or key is said before a load is made. Of a peer only the
// port is known.
func Reachable(ctx context.Context, o Options) error {
	if o.Peer != nil {
		u, err := url.Parse(o.BaseURL)
		if err != nil {
			return err
		}
		host := u.Host
		if u.Port() == "" {
			host = net.JoinHostPort(u.Hostname(), map[string]string{"https": "443"}[u.Scheme])
		}
		conn, err := (&net.Dialer{Timeout: reachTimeout}).DialContext(ctx, "tcp", host)
		if err != nil {
			return unreachable(o.BaseURL, err.Error())
		}
		return conn.Close()
	}
	for _, base := range gateways(o.BaseURL, o.Others) {
		c := newClient([]string{base}, o.Token, o.Sale.Sale, 1, reachTimeout)
		status, _, err := c.availability(ctx)
		c.close()
		switch {
		case err != nil:
			return unreachable(base, err.Error())
		case status == 401, status == 403:
			return fmt.Errorf("%s answers %d: the key is not known there, or may not sell", base, status)
		case status == 404:
			return fmt.Errorf("%s answers 404: it has no sale %s, or is no Flashgate", base, o.Sale.Sale)
		case status != 200:
			return fmt.Errorf("%s answers %d to a look at the stock of %s", base, status, o.Sale.Sale)
		}
	}
	return nil
}

func unreachable(base, gone string) error {
	f := failureOf(gone)
	if f.Advice != "" {
		return fmt.Errorf("%s: %s: %s", base, f.What, f.Advice)
	}
	return fmt.Errorf("%s: %s", base, f.What)
}
