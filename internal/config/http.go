package config

import (
	"crypto/x509"
	"fmt"
	"net/url"
)

// RootCAs returns the authorities to trust: the system's and those of ca_file;
// nil, which means the system's, without a ca_file.
func (h *HTTP) RootCAs() (*x509.CertPool, error) {
	if h.CAFile == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a system without any
	}
	return readCertificates(h.CAFile, pool)
}

// ProxyURL returns the proxy with its login; nil for none. The URL holds the
// password: it is not to be printed but by its Redacted method.
func (h *HTTP) ProxyURL() (*url.URL, error) {
	if h.Proxy == "" {
		return nil, nil
	}
	proxy, err := url.Parse(h.Proxy)
	if err != nil {
		return nil, fmt.Errorf("parse http.proxy: %w", err)
	}
	if h.ProxyUsername != "" {
		password, err := h.ProxyPassword.Read()
		if err != nil {
			return nil, fmt.Errorf("read the proxy's password: %w", err)
		}
		proxy.User = url.UserPassword(h.ProxyUsername, password)
	}
	return proxy, nil
}

// FeedURL returns the source's address.
func (s *Source) FeedURL() (*url.URL, error) {
	u, err := url.Parse(s.URL)
	if err != nil {
		return nil, fmt.Errorf("parse the URL of source %s: %w", s.Name, err)
	}
	return u, nil
}
