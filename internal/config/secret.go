package config

import (
	"fmt"
	"io"
	"log/slog"

	"cdrbus/internal/config/secretfile"
)

// Secret is a password, a token or an ID, known by the file that holds it or
// given in the environment. However it is printed, marshalled or logged, it
// shows where it comes from and never what it is.
type Secret struct {
	path  string // of the file; empty when given in the environment
	value string // from the environment
	from  string // name of the variable
}

// SecretFile returns the secret that the file at path holds.
func SecretFile(path string) Secret { return Secret{path: path} }

// IsSet reports whether there is a secret.
func (s Secret) IsSet() bool { return s != Secret{} }

// IsFile reports whether the secret is in a file, which may change.
func (s Secret) IsFile() bool { return s.path != "" }

// Path returns the file's path, or nothing.
func (s Secret) Path() string { return s.path }

// Read returns the secret itself. A file is read anew each time, and refused if
// everybody on the machine may open it.
func (s Secret) Read() (string, error) {
	if s.IsFile() {
		return secretfile.Read(s.path)
	}
	return s.value, nil
}

// UnmarshalText takes the path of the file.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = Secret{path: string(text)}
	return nil
}

// String tells where the secret comes from.
func (s Secret) String() string {
	switch {
	case s.IsFile():
		return s.path
	case s.IsSet():
		return "(hidden, from " + s.from + ")"
	default:
		return ""
	}
}

// Format keeps every verb, %#v and %x too, from showing the secret.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText writes what String tells.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue tells what String tells.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
