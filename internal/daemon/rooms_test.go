package daemon

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rooms are the four packages that never import one another. They meet in this
// package only.
var rooms = []string{"cdrbus/schema", "cdrbus/poller", "cdrbus/producer", "cdrbus/offsets"}

// knowers may import any room: the daemon, and what commands do beside it. Every other
// package of the module is a leaf to the rooms: it may be imported by them, so it must
// import none.
var knowers = []string{
	"cdrbus/cmd", "cdrbus/internal/daemon", "cdrbus/internal/demo", "cdrbus/internal/e2e",
	"cdrbus/internal/coverage", "cdrbus/internal/doctor", "cdrbus/internal/jobs", "cdrbus/internal/mend", "cdrbus/internal/positions", "cdrbus/internal/probe",
}

// readers read events as any consumer does: of the rooms they know the schema alone,
// and no room knows them.
var readers = []string{"cdrbus/internal/eventlog", "cdrbus/internal/tail"}

const schemaRoom = "cdrbus/schema"

func TestRoomsImportOnlyLeaves(t *testing.T) {
	edges := importsOfModule(t)
	if len(edges) < 10 {
		t.Fatalf("found %d packages, the walk is broken", len(edges))
	}
	for importer, imports := range edges {
		if isUnder(importer, knowers) {
			continue
		}
		for _, imported := range imports {
			if forbidden(importer, imported) {
				t.Errorf("%s imports %s: rooms and leaves must not; wire the two in internal/daemon", importer, imported)
			}
		}
	}
}

func TestForbiddenImports(t *testing.T) {
	for _, c := range []struct {
		importer, imported string
		want               bool
	}{
		{"cdrbus/schema", "cdrbus/internal/cdr", false},
		{"cdrbus/schema", "cdrbus/producer", true},
		{"cdrbus/poller", "cdrbus/schema", true},
		{"cdrbus/offsets", "cdrbus/internal/daemon", true},
		{"cdrbus/offsets", "cdrbus/offsets", false},
		{"cdrbus/internal/cdr", "cdrbus/offsets", true},
		{"cdrbus/internal/status", "cdrbus/internal/cdr", false},
		{"cdrbus/internal/tail", "cdrbus/schema", false},
		{"cdrbus/internal/tail", "cdrbus/internal/eventlog", false},
		{"cdrbus/internal/tail", "cdrbus/offsets", true},
		{"cdrbus/internal/eventlog", "cdrbus/internal/daemon", true},
		{"cdrbus/offsets", "cdrbus/internal/eventlog", true},
		{"cdrbus/internal/status", "cdrbus/internal/tail", true},
	} {
		if got := forbidden(c.importer, c.imported); got != c.want {
			t.Errorf("forbidden(%s, %s) = %t, want %t", c.importer, c.imported, got, c.want)
		}
	}
}

func forbidden(importer, imported string) bool {
	if isUnder(importer, readers) && (imported == schemaRoom || isUnder(imported, readers)) {
		return false
	}
	return importer != imported && (isUnder(imported, rooms) || isUnder(imported, knowers) || isUnder(imported, readers))
}

func isUnder(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return path == root || strings.HasPrefix(path, root+"/")
	})
}

// importsOfModule maps each package of the module to the module's packages that
// its code imports. Test files are left out: a test may know its neighbours.
func importsOfModule(t *testing.T) map[string][]string {
	t.Helper()
	const top = "../.."
	edges := map[string][]string{}
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (path == filepath.Join(top, "deploy") || strings.HasPrefix(entry.Name(), ".") && path != top) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(top, filepath.Dir(path))
		if err != nil {
			return err
		}
		importer := "cdrbus/" + filepath.ToSlash(dir)
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if strings.HasPrefix(imported, "cdrbus/") {
				edges[importer] = append(edges[importer], imported)
			}
		}
		if _, found := edges[importer]; !found {
			edges[importer] = nil
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return edges
}
