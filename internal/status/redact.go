package status

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxTextBytes bounds a text for people; an error may quote a page of HTML.
const maxTextBytes = 600

// secretPatterns are what must not be shown even if an error quotes it: the
// rooms do not put secrets and personal data into errors, but what they quote
// comes from elsewhere. Order matters: a URL's user part before e-mail addresses.
var secretPatterns = []struct {
	find    *regexp.Regexp
	replace string
}{
	{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}`), "$1 [hidden]"},
	{regexp.MustCompile(`(?i)\b((?:access|refresh)_?token|client_?secret|password|passwd|secret)("?\s*[=:]\s*"?)[^\s"&,}]+`), "$1$2[hidden]"},
	{regexp.MustCompile(`(://)[^/\s@]+@`), "$1[hidden]@"},
	{regexp.MustCompile(`[\w.+-]+@[\w-]+\.[\w.-]*\w`), "[e-mail]"},
	{regexp.MustCompile(`\+\d{7,15}\b`), "[number]"},
}

// redactChanged redacts text if it is no longer what it was.
func redactChanged(text *string, before string) {
	if *text != before {
		*text = redact(*text)
	}
}

// redact returns text that may be shown: without secrets, e-mail addresses and
// telephone numbers, on one line, of bounded length. It cuts twice: first
// generously, to bound the work; and for good only after the search, because half
// a secret would no longer be found.
func redact(text string) string {
	if text == "" {
		return ""
	}
	text = cut(text, 8*maxTextBytes)
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
	for _, p := range secretPatterns {
		text = p.find.ReplaceAllString(text, p.replace)
	}
	return cut(strings.ToValidUTF8(text, "\uFFFD"), maxTextBytes)
}

// cut shortens text to limitBytes at a rune's edge, and shows that it did.
func cut(text string, limitBytes int) string {
	if len(text) <= limitBytes {
		return text
	}
	end := limitBytes
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
