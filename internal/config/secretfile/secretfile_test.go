package secretfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, content string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // the umask took bits away
		t.Fatal(err)
	}
	return path
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		content, want, wantErr string
	}{
		{"secret", "secret", ""},
		{" with blanks \r\n", "with blanks", ""},
		{"", "", "it is empty"},
		{"\n \n", "", "it is empty"},
		{"two\nlines", "", "want one line of text"},
		{"not UTF-8 \xff", "", "want one line of text"},
		{strings.Repeat("x", limitBytes), strings.Repeat("x", limitBytes), ""},
		{strings.Repeat("x", limitBytes+1), "", "larger than"},
	} {
		got, err := Read(write(t, c.content, 0o600))
		if got != c.want || (err == nil) != (c.wantErr == "") || err != nil && !strings.Contains(err.Error(), c.wantErr) {
			t.Errorf("Read of %.20q = %.20q, %v; want %.20q, %q", c.content, got, err, c.want, c.wantErr)
		}
		if err != nil && strings.TrimSpace(c.content) != "" && strings.Contains(err.Error(), c.content) {
			t.Errorf("the error quotes the secret: %v", err)
		}
	}
}

func TestMode(t *testing.T) {
	for _, c := range []struct {
		mode    fs.FileMode
		refused bool
	}{{0o400, false}, {0o600, false}, {0o440, false}, {0o660, false}, {0o604, true}, {0o644, true}, {0o602, true}, {0o601, true}, {0o777, true}} {
		path := write(t, "secret", c.mode)
		_, readErr := Read(path)
		if checkErr := Check(path); errors.Is(readErr, ErrExposed) != c.refused || errors.Is(checkErr, ErrExposed) != c.refused {
			t.Errorf("mode %04o: Read %v, Check %v; want refused %t", c.mode, readErr, checkErr, c.refused)
		}
	}
}

func TestSymbolicLinkIsJudgedByItsTarget(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link") // links themselves have mode 0777
	if err := os.Symlink(write(t, "secret", 0o440), link); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(link); got != "secret" || err != nil {
		t.Errorf("Read through a link = %q, %v", got, err)
	}
}

func TestNotAFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, path := range []string{missing, t.TempDir()} {
		if err := Check(path); err == nil {
			t.Errorf("Check(%s) succeeded", path)
		}
		if _, err := Read(path); err == nil {
			t.Errorf("Read(%s) succeeded", path)
		}
	}
	if _, err := Read(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of a missing file: %v, want fs.ErrNotExist", err)
	}
}
