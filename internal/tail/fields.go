package tail

import (
	"fmt"

	"cdrbus/internal/config"
	"cdrbus/internal/status"
	"cdrbus/schema"
)

// AvroNames finds the fields that are named as in Avro or as in the feed, in any
// case and with or without spaces; nil if none is named.
func AvroNames(names []string) (found []string, err error) {
	known, all := fieldNames()
	for _, name := range names {
		avroName, ok := known[status.FoldName(name)]
		if !ok {
			if nearest := config.Nearest(name, all); nearest != "" {
				return nil, fmt.Errorf("%s: there is no such field; did you mean %s?", name, nearest)
			}
			return nil, fmt.Errorf("%s: there is no such field; docs/event.md lists them", name)
		}
		found = append(found, avroName)
	}
	return found, nil
}

// fieldNames returns the Avro name of each folded name, and all Avro names.
func fieldNames() (byFolded map[string]string, all []string) {
	byFolded = map[string]string{status.FoldName(schema.UnmappedName): schema.UnmappedName}
	all = []string{schema.UnmappedName}
	for _, field := range schema.Fields() {
		byFolded[status.FoldName(field.FeedName)], byFolded[status.FoldName(field.AvroName)] = field.AvroName, field.AvroName
		all = append(all, field.AvroName)
	}
	return byFolded, all
}
