// Package secretfile reads secrets from files, and refuses a file that anybody
// on the machine may open.
//
// It is a leaf, shared by the configuration and by the tokens. Its errors name
// the file and never quote what is in it.
package secretfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode"
)

// ErrExposed says that others than the owner and the group may use the file.
// Group rights are allowed: Kubernetes hands a secret to a process that is not
// root through the group (fsGroup).
var ErrExposed = errors.New("everybody on this machine may use it")

// ErrEmpty says that the file holds nothing, or blanks only.
var ErrEmpty = errors.New("it is empty")

// exposed are the rights of those who are neither the owner nor of the group.
const exposed fs.FileMode = 0o007

// limitBytes is far more than any token or password, and far less than would
// hurt when a path names the wrong file.
const limitBytes = 64 << 10

// Check reports a file that is missing, not a plain file or exposed. A symbolic
// link is judged by what it leads to.
func Check(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("check secret file %s: %w", path, bare(err))
	}
	return judge(path, info)
}

// Read returns the one line of text in the file, without the blanks around it.
func Read(path string) (string, error) {
	content, err := ReadAll(path)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(content))
	if text == "" {
		return "", fmt.Errorf("read secret file %s: %w", path, ErrEmpty)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }) {
		return "", fmt.Errorf("read secret file %s: want one line of text", path)
	}
	return text, nil
}

// ReadAll returns the file's bytes as they are.
func ReadAll(path string) ([]byte, error) {
	if err := Check(path); err != nil { // before opening: a pipe would block
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read secret file %s: %w", path, bare(err))
	}
	defer file.Close()
	// The open file is judged too: the path may have changed in between.
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read secret file %s: %w", path, bare(err))
	}
	if err := judge(path, info); err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, limitBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read secret file %s: %w", path, bare(err))
	}
	if len(content) > limitBytes {
		return nil, fmt.Errorf("read secret file %s: it is larger than %d bytes: this is not a secret", path, limitBytes)
	}
	return content, nil
}

func judge(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("check secret file %s: it is not a plain file", path)
	}
	if info.Mode().Perm()&exposed != 0 {
		return fmt.Errorf("check secret file %s: %w (mode %04o); run: chmod o-rwx %s (Kubernetes: defaultMode: 0440 and fsGroup)",
			path, ErrExposed, info.Mode().Perm(), path)
	}
	return nil
}

// bare drops the operation and the path that an os error repeats.
func bare(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
