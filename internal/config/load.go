package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// Load reads the file at path, lets the environment (as from os.Environ)
// override it, and checks everything, the secret files too. An empty path means
// that all is said in the environment. The error is a [Problems].
func Load(path string, environ []string) (*Config, error) {
	if path == "" {
		return load("", nil, "", environ, checkFiles)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		what := "cannot be read"
		if errors.Is(err, fs.ErrNotExist) {
			what = "does not exist"
		} else if errors.Is(err, fs.ErrPermission) {
			what = "may not be read by this user"
		}
		return nil, Problems{{File: path, What: what, Remedy: "give the path of the configuration with -c"}}
	}
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, Problems{{File: path, What: "its folder is unknown: " + err.Error()}}
	}
	return load(path, data, folder, environ, checkFiles)
}

// Parse is Load without touching any file: data is the content of the file
// called name, and the files that it names are not looked at.
func Parse(name string, data []byte, environ []string) (*Config, error) {
	return load(name, data, "", environ, func(*ledger, *Config, string) {})
}

// load does the work of Load. Relative paths of files are taken from folder.
func load(name string, data []byte, folder string, environ []string, lookAtFiles func(*ledger, *Config, string)) (*Config, error) {
	l := newLedger(name)
	c := Default()
	decode(l, data, c)
	applyEnviron(l, c, environ)
	c.fillDerived()
	if folder != "" {
		resolvePaths(reflect.ValueOf(c).Elem(), folder)
	}
	validate(l, c)
	lookAtFiles(l, c, folder)
	if len(l.problems) > 0 {
		sortProblems(l.problems)
		return nil, Problems(l.problems)
	}
	sortProblems(l.warnings)
	c.warnings = l.warnings
	return c, nil
}

// resolvePaths makes the relative paths of files absolute.
func resolvePaths(section reflect.Value, folder string) {
	for key, field := range fieldsOf(section) {
		switch value := field.Addr().Interface().(type) {
		case *Secret:
			value.path = absolute(value.path, folder)
		case *string:
			if isPathKey(key) && *value != KafkaTokenStore {
				*value = absolute(*value, folder)
			}
		case *[]Source, *[]Credential:
			for i := range field.Len() {
				resolvePaths(field.Index(i), folder)
			}
		default:
			if field.Kind() == reflect.Struct && !isText(field) {
				resolvePaths(field, folder)
			}
		}
	}
}

// isPathKey reports whether the key names a file.
func isPathKey(key string) bool { return strings.HasSuffix(key, "_file") || key == "token_store" }

func absolute(path, folder string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(folder, path)
}
