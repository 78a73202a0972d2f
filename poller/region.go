package poller

import (
	"slices"
	"strings"
)

// regionHosts are the hosts of the feed, one for each region and the names it
// had before. The token goes to the configured host and to these only.
var regionHosts = []string{
	"analytics-calling.webexapis.com", // US, Canada, default
	"analytics-calling-eu.webexapis.com",
	"analytics-calling-in.webexapis.com",
	"analytics-calling-au.webexapis.com",
	"analytics-calling-gov.webexapis.com",
	"analytics.webexapis.com", // 2023, still answering in 2026
	"analytics-f.webex.com",   // government, 2023
}

// regionsNamed returns the hosts of the list that a body mentions, but the one
// that was asked. The body's own URLs are never used: whatever it says, the
// result is a part of the list.
func regionsNamed(body []byte, asked string) []string {
	text := strings.ToLower(string(body))
	var named []string
	for _, host := range regionHosts {
		if host != strings.ToLower(asked) && mentions(text, host) {
			named = append(named, host)
		}
	}
	return named
}

// mentions reports whether the host stands in the text by itself, not as a part
// of a longer name.
func mentions(text, host string) bool {
	for from := 0; ; {
		at := strings.Index(text[from:], host)
		if at < 0 {
			return false
		}
		before, after := text[:from+at], text[from+at+len(host):]
		if !endsInName(before) && !continuesName(after) {
			return true
		}
		from += at + 1
	}
}

func endsInName(s string) bool {
	return s != "" && (isNameByte(s[len(s)-1]) || s[len(s)-1] == '.')
}

// continuesName lets a host stand at the end of a sentence.
func continuesName(s string) bool {
	s = strings.TrimPrefix(s, ".")
	return s != "" && isNameByte(s[0])
}

func isNameByte(c byte) bool {
	return c == '-' || c == '_' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c && c <= 'z'
}

func isRegionHost(host string) bool { return slices.Contains(regionHosts, strings.ToLower(host)) }
