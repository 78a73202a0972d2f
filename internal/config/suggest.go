package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// explainUnknownKey says what is wrong with a key that its section does not
// know, and which one was probably meant.
func explainUnknownKey(path, key string, known map[string]reflect.Value) (what, remedy string) {
	names := slices.Sorted(maps.Keys(known))
	if field, found := known[key+"_file"]; found && field.Type() == reflect.TypeFor[Secret]() {
		return "secrets are not written here", fmt.Sprintf("put it in a file and name that as %s_file, or set %s", key, variableOf(childOf(path, key)))
	}
	if strings.Contains(key, "insecure") && path != "" {
		return "unknown key; certificates are always checked", "name the authority in ca_file"
	}
	if nearest := Nearest(key, names); nearest != "" {
		return "unknown key", fmt.Sprintf("did you mean %s?", nearest)
	}
	return "unknown key", "known here are " + strings.Join(names, ", ")
}

// Nearest returns the word that text was probably meant to be, or "".
func Nearest(text string, words []string) string {
	nearest, least := "", max(2, len(text)/3)+1
	for _, word := range words {
		if d := distance(strings.ToLower(text), strings.ToLower(word)); d < least {
			nearest, least = word, d
		}
	}
	return nearest
}

// distance is Levenshtein's: how many bytes must be put in, taken out or
// changed to make b of a.
func distance(a, b string) int {
	const tooLong = 100
	if len(a) > tooLong || len(b) > tooLong {
		return tooLong
	}
	row := make([]int, len(b)+1) // of the distances from a[:i] to each b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
