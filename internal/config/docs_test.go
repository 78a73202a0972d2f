package config

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestReference holds docs/configuration.md to the comments of config.go and to
// the defaults: go test -update writes it anew.
func TestReference(t *testing.T) {
	m := &manual{t: t, comments: commentsOf(t, "config.go")}
	m.text.WriteString(referenceHead)
	m.section("", reflect.ValueOf(Default()).Elem())
	golden(t, "../../docs/configuration.md", m.text.String())
}

const referenceHead = "# Configuration\n\n" +
	"Made from `internal/config/config.go` (`go test ./internal/config -update`); change the comments there.\n\n" +
	"cdrbus reads one YAML file, `cdrbus run -c FILE`. This is the least that works:\n\n" +
	"```yaml\n" +
	"sources:\n" +
	"  - name: acme\n" +
	"    url: https://analytics-calling-eu.webexapis.com/v1/cdr_feed\n" +
	"    token_file: /run/secrets/webex-token\n" +
	"    start: 24h\n" +
	"```\n\n" +
	"- **Strict.** A key that is unknown or given twice, a value of the wrong kind or out of range, or anything that contradicts something else is refused. " +
	"All problems are reported at once, each with its line and what to do. `cdrbus config check` does only that; `cdrbus config show` prints the configuration in force.\n" +
	"- **Times** are durations such as `30s`, `15m`, `12h`, `30d` or `1d12h`. **Sizes** are bytes, or `KiB`, `MiB`, `GiB`.\n" +
	"- **Environment.** Every key can be set by a variable: `CDRBUS_` and the key's path in capitals. It wins over the file. A list is separated by commas; a blank variable counts as unset. " +
	"An item of `sources` or `credentials` is known by its place, from 0, or by its name, where whatever is not a letter or digit becomes `_`: " +
	"`CDRBUS_SOURCES_0_START`, `CDRBUS_SOURCES_ACME_EU_START`. The place after the last one adds an item, so no file is needed at all. " +
	"A variable that begins with `CDRBUS_` and fits no key is refused, but for those that Kubernetes makes of a service's name.\n" +
	"- **Secrets** come from files (keys that end in `_file`) or, where the table names a second variable, from the environment; never from this file or a flag. " +
	"A secret file that everybody on the machine may open is refused; the group may (Kubernetes: `defaultMode: 0440` and `fsGroup`). Secrets are never printed.\n" +
	"- **Paths** that are relative begin at the folder of the configuration file.\n" +
	"- **Anchors**, aliases and merges (`<<:`) work. A key at the top that begins with `x-` is a place for anchors, and otherwise ignored.\n" +
	"- **Plain http** with a credential goes to loopback addresses and to `insecure_http_hosts`, and nowhere else.\n\n" +
	"A `token_store` begins as `{\"version\": 1, \"refresh_token\": \"...\"}`, mode 0600; cdrbus keeps it from then on.\n"

// manual writes the reference page.
type manual struct {
	t        *testing.T
	comments map[string]string // Type or Type.Field -> comment
	text     strings.Builder
}

// section writes the table of one struct, then those of the structs below it.
func (m *manual) section(path string, value reflect.Value) {
	title := path
	if path == "" {
		title = "Top level"
	}
	fmt.Fprintf(&m.text, "\n## %s\n\n%s\n\n", title, withoutName(m.comment(value.Type().Name()), value.Type().Name()))
	m.text.WriteString("| key | value | default | meaning |\n|---|---|---|---|\n")
	m.rows(path, value)
	m.below(path, value)
}

func (m *manual) rows(path string, value reflect.Value) {
	for i := range value.NumField() {
		field := value.Type().Field(i)
		key, option, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			m.rows(path, value.Field(i))
		case key != "":
			fmt.Fprintf(&m.text, "| `%s` | %s | %s | %s%s |\n", key, kindInWords(key, field.Type), defaultOf(value, i),
				m.comment(value.Type().Name()+"."+field.Name), secretVariable(path, key, field.Type))
		}
	}
}

func (m *manual) below(path string, value reflect.Value) {
	for i := range value.NumField() {
		key, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("yaml"), ",")
		if key == "" {
			continue
		}
		switch section := value.Field(i).Interface().(type) {
		case []Source:
			m.section(key+"[]", reflect.ValueOf(defaultSource()))
		case []Credential:
			m.section(key+"[]", reflect.ValueOf(defaultCredential()))
		case []Sweep:
			m.section(childOf(path, key)+"[]", reflect.ValueOf(Sweep{}))
		default:
			if isSection(reflect.TypeOf(section)) {
				m.section(childOf(path, key), value.Field(i))
			}
		}
	}
}

// withoutName drops the type's name from the sentence that Go wants it in front of.
func withoutName(comment, name string) string {
	rest, found := strings.CutPrefix(comment, name+" is ")
	if !found {
		return comment
	}
	return strings.ToUpper(rest[:1]) + rest[1:]
}

func (m *manual) comment(name string) string {
	comment := m.comments[name]
	if comment == "" {
		m.t.Errorf("config.go says nothing about %s", name)
	}
	return strings.ReplaceAll(comment, "|", "\\|")
}

// commentsOf returns the doc comments of the structs of a file and their fields.
func commentsOf(t *testing.T, file string) map[string]string {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	ast.Inspect(tree, func(node ast.Node) bool {
		declaration, ok := node.(*ast.GenDecl)
		if !ok {
			return true
		}
		for _, spec := range declaration.Specs {
			typeSpec, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			name := typeSpec.Name.Name
			comments[name] = oneLine(declaration.Doc.Text())
			if structType, ok := typeSpec.Type.(*ast.StructType); ok {
				for _, field := range structType.Fields.List {
					for _, fieldName := range field.Names {
						comments[name+"."+fieldName.Name] = oneLine(field.Doc.Text())
					}
				}
			}
		}
		return true
	})
	return comments
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !isText(reflect.New(t).Elem())
}

func kindInWords(key string, t reflect.Type) string {
	if known, ok := reflect.New(t).Elem().Interface().(enum); ok {
		return "`" + strings.Join(known.known(), "`, `") + "`"
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "time"
	case t == reflect.TypeFor[Bytes]():
		return "bytes"
	case isPathKey(key):
		return "path"
	case t == reflect.TypeFor[URLs]():
		return "address, or list"
	case t.Kind() == reflect.Slice && isSection(t.Elem()), t == reflect.TypeFor[[]Sweep]():
		return "list of sections"
	case t.Kind() == reflect.Slice:
		return "list"
	case isSection(t):
		return "section"
	case t.Kind() == reflect.Int:
		return "number"
	case t.Kind() == reflect.Bool:
		return "`true`, `false`"
	default:
		return "text"
	}
}

// defaultOf is empty for the keys of a sweep, which are all required.
func defaultOf(section reflect.Value, field int) string {
	if section.Type() == reflect.TypeFor[Sweep]() {
		return ""
	}
	return defaultInWords(section.Field(field))
}

func defaultInWords(value reflect.Value) string {
	text := ""
	switch v := value.Interface().(type) {
	case time.Duration:
		if text = formatDuration(v); v == 0 {
			text = "0"
		}
	case []Sweep:
		for _, sweep := range v {
			text += formatDuration(sweep.Every) + "/" + formatDuration(sweep.Back) + " "
		}
		text = strings.TrimSpace(text)
	case []string:
		text = strings.Join(v, ", ")
	case URLs:
		text = strings.Join(v, ", ")
	case bool:
		text = strconv.FormatBool(v)
	case int:
		text = strconv.Itoa(v)
	case fmt.Stringer: // Bytes, Secret, Start
		text = v.String()
	default:
		if value.Kind() == reflect.String {
			text = value.String()
		}
	}
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

// secretVariable names the variable that takes the secret itself.
func secretVariable(path, key string, t reflect.Type) string {
	if t != reflect.TypeFor[Secret]() {
		return ""
	}
	name := variableOf(childOf(strings.ReplaceAll(path, "[]", ".NAME"), strings.TrimSuffix(key, "_file")))
	return " The secret itself: `" + name + "`."
}
