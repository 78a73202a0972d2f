package poller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// HTTPOptions says how to reach the feed and the token endpoint. The zero value
// is usable: system roots, no proxy, the default deadlines.
type HTTPOptions struct {
	// Version of cdrbus, for the User-Agent; "": "dev".
	Version string
	// Proxy picks the proxy of a request, such as http.ProxyFromEnvironment or
	// http.ProxyURL(u); nil: none.
	Proxy func(*http.Request) (*url.URL, error)
	// RootCAs are the authorities that may sign for the server; nil: the system's.
	RootCAs *x509.CertPool
	// DialContext makes the connections; nil: the network's.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// InsecureHTTPHosts may be sent a credential over plain http, besides the
	// loopback addresses.
	InsecureHTTPHosts []string

	ConnectTimeout time.Duration // for TCP, and again for TLS; 0: 10 s
	HeaderTimeout  time.Duration // from the request to the answer's header; 0: 60 s
	StallTimeout   time.Duration // without a single byte of the body; 0: 30 s
	BodyTimeout    time.Duration // for the whole body; 0: 5 min
}

// The default deadlines. A page of 5000 records takes the feed some seconds to
// put together, and its 15 MB a minute on a slow line.
const (
	defaultConnectTimeout = 10 * time.Second
	defaultHeaderTimeout  = 60 * time.Second
	defaultStallTimeout   = 30 * time.Second
	defaultBodyTimeout    = 5 * time.Minute
)

// idleConnTimeout is shorter than the minute between two initial requests: a
// connection that some middlebox has forgotten meanwhile would cost one of them.
// The pages of a window, seconds apart, share a connection.
const idleConnTimeout = 30 * time.Second

const maxHeaderBytes = 256 << 10

func (o HTTPOptions) withDefaults() HTTPOptions {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&o.ConnectTimeout, defaultConnectTimeout},
		{&o.HeaderTimeout, defaultHeaderTimeout},
		{&o.StallTimeout, defaultStallTimeout},
		{&o.BodyTimeout, defaultBodyTimeout},
	} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	if o.DialContext == nil {
		o.DialContext = (&net.Dialer{Timeout: o.ConnectTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	return o
}

// UserAgent is how every request of cdrbus introduces itself.
func (o HTTPOptions) UserAgent() string { return "cdrbus/" + o.withDefaults().Version }

// NewHTTPClient returns a client that never follows a redirect, never unpacks a
// body by itself and has a deadline on everything before the body. The body's
// deadlines are the caller's.
//
// It speaks HTTP/1.1 only: requests come one at a time, and a stalled connection
// is then one request's trouble.
func NewHTTPClient(o HTTPOptions) *http.Client {
	o = o.withDefaults()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  o.Proxy,
			DialContext:            o.DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    o.ConnectTimeout,
			ResponseHeaderTimeout:  o.HeaderTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
			IdleConnTimeout:        idleConnTimeout,
			MaxIdleConnsPerHost:    1,
			DisableCompression:     true, // decoded bytes are counted where they are read
			Protocols:              protocols,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// CheckCredentialURL refuses a URL to which no credential may be sent: anything
// but https, and plain http only to a loopback address or to a host that the
// operator named.
func (o HTTPOptions) CheckCredentialURL(u *url.URL) error {
	switch {
	case u.Hostname() == "":
		return fmt.Errorf("check URL %s: it names no host", bareURL(u))
	case u.User != nil:
		return fmt.Errorf("check URL %s: take the user and password out of it", bareURL(u))
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return fmt.Errorf("check URL %s: want https", bareURL(u))
	case isLoopback(u.Hostname()), slices.ContainsFunc(o.InsecureHTTPHosts, func(host string) bool {
		return strings.EqualFold(host, u.Hostname()) || strings.EqualFold(host, u.Host)
	}):
		return nil
	}
	return fmt.Errorf("check URL %s: plain http would show the credential to the network; use https, or name %s in insecure_http_hosts", bareURL(u), u.Hostname())
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}

// bareURL is how a URL is written in errors and logs: no query, no user.
func bareURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}
