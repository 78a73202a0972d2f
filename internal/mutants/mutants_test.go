// Package mutants proves that the tests of the commit protocol can fail. Each
// mutant breaks one rule in the product's source; the test that guards the rule
// must fail with it. The source itself is not touched: the compiler is given the
// broken file in place of the real one (go test -overlay).
//
//	go test ./internal/mutants -mutants -v
//
// takes some five minutes and prints what caught each mutant. Without the flag
// only the table is checked: every snippet that it breaks must be there, once.
package mutants

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var runMutants = flag.Bool("mutants", false, "break each rule and demand that its test fails")

// mutant is one rule removed.
type mutant struct {
	name  string
	edits []edit
	// guard is the package and the -run pattern of the tests of which one must
	// fail; flags are passed on to them.
	guard, run string
	flags      []string
}

// edit replaces a snippet, which must occur exactly once in its file.
type edit struct{ file, old, new string }

const root = "../.."

// TestTable: every mutant can still be made.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutants {
		if names[m.name] {
			t.Errorf("%s: there are two of this name", m.name)
		}
		names[m.name] = true
		if _, err := m.sources(); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

// TestMutants demands that each mutant is caught.
func TestMutants(t *testing.T) {
	if !*runMutants {
		t.Skip("breaks the product again and again, which takes five minutes: ask for it with -mutants")
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			overlay, err := m.overlay(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			output, err := m.test(t, overlay)
			switch {
			case notBuilt.Match(output):
				t.Fatalf("does not compile:\n%s", output)
			case err == nil:
				t.Errorf("not caught by %s -run %s", m.guard, m.run)
			case !errors.As(err, new(*exec.ExitError)):
				t.Fatal(err)
			default:
				t.Logf("caught: %s", catch(output))
			}
		})
	}
}

// sources returns the broken text of each file that the mutant changes.
func (m mutant) sources() (map[string]string, error) {
	texts := map[string]string{}
	for _, e := range m.edits {
		text, begun := texts[e.file]
		if !begun {
			source, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				return nil, err
			}
			text = string(source)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return nil, fmt.Errorf("%s holds this snippet %d times, want once:\n%s", e.file, n, e.old)
		}
		texts[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	return texts, nil
}

// overlay writes the broken files into a directory, and what tells the compiler to
// take them.
func (m mutant) overlay(directory string) (path string, err error) {
	texts, err := m.sources()
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, text := range texts {
		original, err := filepath.Abs(filepath.Join(root, file))
		if err != nil {
			return "", err
		}
		broken := filepath.Join(directory, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(broken, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[original] = broken
	}
	encoded, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path = filepath.Join(directory, "overlay.json")
	return path, os.WriteFile(path, encoded, 0o600)
}

// test runs the guarding tests on the mutant.
func (m mutant) test(t *testing.T, overlay string) ([]byte, error) {
	arguments := append([]string{"test", "-count=1", "-timeout=20m", "-overlay=" + overlay, "-run", m.run, m.guard}, m.flags...)
	command := exec.CommandContext(t.Context(), "go", arguments...)
	command.Dir = root
	return command.CombinedOutput()
}

var (
	notBuilt = regexp.MustCompile(`\[(build|setup) failed\]`)
	// failure is the first line that says what is wrong: an error of a test, or
	// a panic.
	failure = regexp.MustCompile(`(?m)^(\s+\w+_test\.go:\d+: .*|panic: .*)$`)
	failed  = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+/\S+|\S+)`)
	// seed is how the simulation tells it, or the label of a goroutine that panics.
	seed = regexp.MustCompile(`\bseed \d+|"seed": "\d+"`)
)

// catch says which test, cell or seed failed first, and with what words.
func catch(output []byte) string {
	var parts []string
	for _, found := range [][]byte{seed.Find(output), deepest(failed.FindAllSubmatch(output, -1)), failure.Find(output)} {
		if len(found) > 0 {
			parts = append(parts, string(bytes.TrimSpace(found[:min(len(found), 300)])))
		}
	}
	return strings.Join(parts, " | ")
}

// deepest is the name of the first failed test that has no failed subtest.
func deepest(names [][][]byte) []byte {
	var name []byte
	for _, match := range names {
		if name != nil && !bytes.HasPrefix(match[1], append(bytes.Clone(name), '/')) {
			break
		}
		name = match[1]
	}
	return name
}
