package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Every key can be set in the environment: CDRBUS_ and the key's path in capitals,
// its parts joined by "_": kafka.brokers is CDRBUS_KAFKA_BROKERS. A blank
// variable counts as unset. A list is separated by commas. An item of sources
// and credentials is known by its place in the list, from 0, or by its name, in
// which whatever is not a letter or digit becomes "_":
// CDRBUS_SOURCES_0_START, CDRBUS_SOURCES_ACME_EU_START. The place after the
// last item adds one, so that no file is needed at all. The secret itself goes
// where the file's key ends in _file: CDRBUS_KAFKA_SASL_PASSWORD.
const variablePrefix = "CDRBUS_"

// serviceLink matches what Kubernetes and Docker links put into the environment
// of every container for a service whose name begins with cdrbus.
var serviceLink = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$`)

// target is what a variable may set.
type target struct {
	path        string
	field       reflect.Value
	secretValue bool // the secret itself, where field is a Secret
}

// applyEnviron lets the environment override what the file said.
func applyEnviron(l *ledger, c *Config, environ []string) {
	variables := ourVariables(environ)
	l.growLists(c, variables)
	// Names first: the names of variables are made of them.
	for i := range c.Sources {
		l.applyName(variables, "sources", i, &c.Sources[i].Name)
	}
	for i := range c.Credentials {
		l.applyName(variables, "credentials", i, &c.Credentials[i].Name)
	}
	targets := map[string][]target{}
	addTargets(targets, reflect.ValueOf(c).Elem(), "", []string{strings.TrimSuffix(variablePrefix, "_")})
	setBy := map[string]string{} // path -> variable
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		l.applyVariable(targets, setBy, name, variables[name])
	}
}

func ourVariables(environ []string) map[string]string {
	variables := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, variablePrefix) && strings.TrimSpace(value) != "" && !serviceLink.MatchString(name) {
			variables[name] = value
		}
	}
	return variables
}

// growLists adds the items that only the environment names.
func (l *ledger) growLists(c *Config, variables map[string]string) {
	for i := len(c.Sources); l.mentions(variables, itemOf("sources", i)); i++ {
		c.Sources = append(c.Sources, defaultSource())
	}
	for i := len(c.Credentials); l.mentions(variables, itemOf("credentials", i)); i++ {
		c.Credentials = append(c.Credentials, defaultCredential())
	}
}

// mentions reports whether a variable sets a key of the item at path, and notes
// that as the place where the item comes from.
func (l *ledger) mentions(variables map[string]string, path string) bool {
	for name := range variables {
		if strings.HasPrefix(name, variableOf(path)+"_") {
			l.places[path] = place{variable: variableOf(path) + "_*"}
			return true
		}
	}
	return false
}

func (l *ledger) applyName(variables map[string]string, list string, i int, name *string) {
	path := childOf(itemOf(list, i), "name")
	if value, found := variables[variableOf(path)]; found {
		*name = value
		l.places[path] = place{variable: variableOf(path)}
		delete(variables, variableOf(path))
	}
}

func (l *ledger) applyVariable(targets map[string][]target, setBy map[string]string, name, value string) {
	at := place{variable: name}
	found := targets[name]
	switch {
	case len(found) == 0:
		remedy := "take it away"
		if nearest := Nearest(name, slices.Sorted(maps.Keys(targets))); nearest != "" {
			remedy = fmt.Sprintf("did you mean %s?", nearest)
		}
		l.spoil(at, "", "no key of the configuration has this name", remedy)
		delete(l.spoilt, "") // nothing else is in doubt
		return
	case len(found) > 1:
		l.spoil(at, "", fmt.Sprintf("the name fits both %s and %s", found[0].path, found[1].path), "use the place in the list instead of the name")
		delete(l.spoilt, "")
		return
	}
	to := found[0]
	if other, twice := setBy[to.path]; twice {
		l.spoil(at, to.path, "is set by "+other+" already", "keep one of the two")
		return
	}
	setBy[to.path] = name
	l.places[to.path] = at
	if to.secretValue {
		to.field.Set(reflect.ValueOf(Secret{value: strings.TrimSpace(value), from: name}))
		return
	}
	if err := setText(to.field, value); err != nil {
		l.spoil(at, to.path, err.Error(), "")
	}
}

// addTargets notes the variables of a section that is known by any of names.
func addTargets(targets map[string][]target, section reflect.Value, path string, names []string) {
	for key, field := range fieldsOf(section) {
		fieldPath := childOf(path, key)
		fieldNames := joined(names, key)
		switch list := field.Addr().Interface().(type) {
		case *[]Source:
			for i := range *list {
				addTargets(targets, field.Index(i), itemOf(fieldPath, i), itemNames(fieldNames, i, (*list)[i].Name))
			}
		case *[]Credential:
			for i := range *list {
				addTargets(targets, field.Index(i), itemOf(fieldPath, i), itemNames(fieldNames, i, (*list)[i].Name))
			}
		case *Secret:
			addTarget(targets, fieldNames, target{path: fieldPath, field: field})
			addTarget(targets, joined(names, strings.TrimSuffix(key, "_file")), target{path: fieldPath, field: field, secretValue: true})
		default:
			if field.Kind() == reflect.Struct && !isText(field) {
				addTargets(targets, field, fieldPath, fieldNames)
				continue
			}
			addTarget(targets, fieldNames, target{path: fieldPath, field: field})
		}
	}
}

func addTarget(targets map[string][]target, names []string, t target) {
	for _, name := range names {
		targets[name] = append(targets[name], t)
	}
}

// itemNames are the names of the i-th item of a list: by place and by name.
func itemNames(list []string, i int, name string) []string {
	names := joined(list, strconv.Itoa(i))
	if name != "" && fold(name) != strconv.Itoa(i) {
		names = append(names, joined(list, name)...)
	}
	return names
}

func joined(names []string, part string) []string {
	longer := make([]string, len(names))
	for i, name := range names {
		longer[i] = name + "_" + fold(part)
	}
	return longer
}

// variableOf is the name of the variable that sets the key at path, items known
// by their place.
func variableOf(path string) string {
	return variablePrefix + fold(strings.ReplaceAll(path, "]", ""))
}

// fold makes a part of a variable's name.
func fold(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		default:
			return '_'
		}
	}, text)
}
