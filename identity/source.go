package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// source is where a JWKS comes from.
type source interface {
	read(ctx context.Context) ([]byte, error)
	// String names it without what may be secret.
	String() string
}

// newSource returns nil without a JWKS.
func newSource(o *Options) (source, error) {
	if o.JWKS == "" {
		return nil, nil //nolint:nilnil // no source is a choice of the operator
	}
	if !strings.Contains(o.JWKS, "://") {
		return fileSource{o.JWKS, o.JWKSMaxBytes}, nil
	}
	// The URL may hold a password: no error repeats it.
	u, err := url.Parse(o.JWKS)
	if err != nil || !isHTTP(u) || u.Host == "" {
		return nil, errors.New("customer tokens: the JWKS must be a path, or a URL of https or http")
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		o.Log.Warn("customer tokens: the JWKS is read over plain http, who is on the way can replace its keys",
			"host", u.Host)
	}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		ForceAttemptHTTP2:      true,
		MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives:      true, // one request in minutes
	}
	return &urlSource{u, o.JWKSMaxBytes, &http.Client{Transport: transport, CheckRedirect: checkRedirect}}, nil
}

type fileSource struct {
	path string
	most int64
}

func (f fileSource) String() string { return f.path }

// read never opens what is not a plain file: a pipe would hold it up for ever.
func (f fileSource) read(context.Context) ([]byte, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a file")
	}
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	return readMost(file, f.most)
}

type urlSource struct {
	url    *url.URL
	most   int64
	client *http.Client
}

// String leaves out user, password and query.
func (s *urlSource) String() string {
	return (&url.URL{Scheme: s.url.Scheme, Host: s.url.Host, Path: s.url.Path}).String()
}

func (s *urlSource) read(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url.String(), http.NoBody)
	if err != nil {
		return nil, errors.New("is not a URL that can be asked")
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		// The outer error repeats the URL, which may hold a password.
		if outer := (*url.Error)(nil); errors.As(err, &outer) {
			err = outer.Err
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("was answered with status %d", resp.StatusCode)
	}
	return readMost(resp.Body, s.most)
}

const redirectsMax = 3

// checkRedirect follows a few redirects that stay on http and https, and never from https to http.
func checkRedirect(next *http.Request, before []*http.Request) error {
	switch {
	case len(before) > redirectsMax:
		return fmt.Errorf("redirects more than %d times", redirectsMax)
	case !isHTTP(next.URL) || (before[0].URL.Scheme == "https" && next.URL.Scheme != "https"):
		return errors.New("redirects to where keys cannot be trusted")
	}
	return nil
}

func readMost(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("has more than %d bytes", most)
	}
	return b, nil
}

func isHTTP(u *url.URL) bool { return u.Scheme == "https" || u.Scheme == "http" }

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
