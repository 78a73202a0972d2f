package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// A configuration is small. The limits keep a wrong or hostile file from using
// up memory or stack.
const (
	limitFileBytes = 1 << 20
	limitValues    = 200_000 // an alias counts each time that it is used
	limitDepth     = 32      // of aliases and merges
	limitNesting   = 200     // of brackets and braces, and of lists begun on one line
)

// decoder takes a YAML file into the structs. goccy/go-yaml parses it; its own
// decoder stops at the first mistake, so the tree is walked here.
type decoder struct {
	*ledger
	anchors    map[string]ast.Node
	valuesLeft int
	depth      int // of merges; the structs themselves end all other recursion
}

// decode takes data into the config, and reports everything that is wrong with
// it to the ledger.
func decode(l *ledger, data []byte, into *Config) {
	if l.file != "" {
		l.places[""] = place{line: 1, column: 1}
	}
	if len(data) > limitFileBytes {
		l.spoil(place{}, "", fmt.Sprintf("the file is larger than %d bytes", limitFileBytes), "check that it is the configuration")
		return
	}
	if nestingOf(data) > limitNesting {
		l.spoil(place{}, "", "lists or sections are nested too deeply", "check that it is the configuration")
		return
	}
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		l.spoilSyntax(err)
		return
	}
	d := &decoder{ledger: l, anchors: map[string]ast.Node{}, valuesLeft: limitValues}
	var body ast.Node
	for _, document := range file.Docs {
		if document.Body == nil {
			continue
		}
		if body != nil {
			l.spoil(placeOfNode(document.Body), "", "a second document begins here", "keep everything in one")
			return
		}
		body = document.Body
	}
	if body == nil {
		return
	}
	ast.Walk(anchorCollector(d.anchors), body)
	d.value(body, "", reflect.ValueOf(into).Elem())
}

func (l *ledger) spoilSyntax(err error) {
	var syntax yaml.Error
	if errors.As(err, &syntax) && syntax.GetToken() != nil {
		l.spoil(placeOfToken(syntax.GetToken()), "", "this is not YAML: "+syntax.GetMessage(), "check indentation, quotes and brackets around this place")
		return
	}
	l.spoil(place{}, "", "this is not YAML", "check indentation, quotes and brackets")
}

// nestingOf returns how deeply lists and sections may be nested at most, taking
// signs in quotes and comments for real ones: the parser's stack grows with it.
func nestingOf(data []byte) int {
	depth, deepest := 0, 0
	for line := range bytes.Lines(data) {
		deepest = max(deepest, bytes.Count(line, []byte("- ")), bytes.Count(line, []byte("? ")))
	}
	for _, c := range data {
		switch c {
		case '[', '{':
			depth++
			deepest = max(deepest, depth)
		case ']', '}':
			depth = max(depth-1, 0)
		}
	}
	return deepest
}

// anchorCollector notes every anchor by its name.
type anchorCollector map[string]ast.Node

func (c anchorCollector) Visit(node ast.Node) ast.Visitor {
	if anchor, ok := node.(*ast.AnchorNode); ok {
		c[anchor.Name.GetToken().Value] = anchor.Value
	}
	return c
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// value takes a node into the value at path.
func (d *decoder) value(node ast.Node, path string, into reflect.Value) {
	if d.valuesLeft--; d.valuesLeft < 0 {
		d.tooMuch(node)
		return
	}
	if _, found := d.places[path]; !found {
		d.places[path] = placeOfNode(node)
	}
	node = d.resolve(node, path)
	if text, ok := splitScalar(node); ok && into.Kind() == reflect.String {
		into.SetString(text)
		return
	}
	switch node := node.(type) {
	case nil, *ast.NullNode: // nothing written: the default stays
	case *ast.MappingNode:
		if into.Kind() != reflect.Struct || isText(into) && into.Type() != reflect.TypeFor[Sweep]() {
			d.wrongKind(node, path, into)
			return
		}
		d.mapping(node, path, into)
	case *ast.SequenceNode:
		if into.Kind() != reflect.Slice {
			d.wrongKind(node, path, into)
			return
		}
		d.sequence(node, path, into)
	default:
		d.scalar(node, path, into)
	}
}

// tooMuch reports once that a limit is passed.
func (d *decoder) tooMuch(node ast.Node) {
	if !d.spoilt[""] {
		d.spoil(placeOfNode(node), "", "the file holds too many values, or nests or repeats them too deeply", "check its anchors and aliases")
	}
}

// resolve follows anchors, aliases and tags to the node that they stand for.
func (d *decoder) resolve(node ast.Node, path string) ast.Node {
	for range limitDepth {
		switch wrapped := node.(type) {
		case *ast.AnchorNode:
			node = wrapped.Value
		case *ast.AliasNode:
			name := wrapped.Value.GetToken().Value
			target, found := d.anchors[name]
			if !found {
				d.spoil(placeOfNode(wrapped), path, fmt.Sprintf("alias *%s has no anchor &%s", name, name), "write the anchor, or the value itself")
				return nil
			}
			node = target
		case *ast.TagNode:
			d.spoil(placeOfNode(wrapped), path, "YAML tags are not used here", "write the plain value")
			return nil
		default:
			return node
		}
	}
	d.tooMuch(node)
	return nil
}

// mapping takes the pairs of a section into the fields of a struct.
func (d *decoder) mapping(node *ast.MappingNode, path string, into reflect.Value) {
	known := fieldsOf(into)
	firstLine := map[string]int{}
	for _, pair := range d.pairs(node, path) {
		at := placeOfToken(pair.key)
		key := pair.key.Value
		if line, twice := firstLine[key]; twice && !pair.merged {
			d.spoil(at, childOf(path, key), fmt.Sprintf("key given twice, first on line %d", line), "keep one of the two")
			continue
		} else if twice {
			continue // what is written here wins over what is merged in
		}
		firstLine[key] = at.line
		field, found := known[key]
		switch {
		case found:
			d.places[childOf(path, key)] = at
			d.value(pair.value, childOf(path, key), field)
		case path == "" && strings.HasPrefix(key, "x-"): // a place for anchors
		default:
			what, remedy := explainUnknownKey(path, key, known)
			d.spoil(at, childOf(path, key), what, remedy)
			d.spoilt[childOf(path, key+"_file")] = true // probably meant
		}
	}
}

// pair is one entry of a mapping, its own or merged into it by "<<".
type pair struct {
	key    *token.Token
	value  ast.Node
	merged bool
}

// pairs lists a mapping's own entries, then those merged into it.
func (d *decoder) pairs(node *ast.MappingNode, path string) []pair {
	d.depth++
	defer func() { d.depth-- }()
	var own, merged []pair
	for _, entry := range node.Values {
		if d.valuesLeft--; d.valuesLeft < 0 || d.depth > limitDepth {
			d.tooMuch(node)
			return nil
		}
		if !entry.Key.IsMergeKey() {
			own = append(own, pair{key: keyToken(entry.Key), value: entry.Value})
			continue
		}
		for _, source := range d.mergeSources(entry.Value, path) {
			for _, p := range d.pairs(source, path) {
				p.merged = true
				merged = append(merged, p)
			}
		}
	}
	return append(own, merged...)
}

// mergeSources returns the mappings that "<<" names: one, or a list of them.
func (d *decoder) mergeSources(node ast.Node, path string) []*ast.MappingNode {
	at := placeOfNode(node)
	node = d.resolve(node, path)
	items := []ast.Node{node}
	if list, ok := node.(*ast.SequenceNode); ok {
		items = list.Values
	}
	var sources []*ast.MappingNode
	for _, item := range items {
		source, ok := d.resolve(item, path).(*ast.MappingNode)
		if !ok {
			d.spoil(at, path, "<< merges sections only", "name the anchor of a section, such as <<: *defaults")
			continue
		}
		sources = append(sources, source)
	}
	return sources
}

// sequence takes a list into a slice, item by item.
func (d *decoder) sequence(node *ast.SequenceNode, path string, into reflect.Value) {
	list := reflect.MakeSlice(into.Type(), 0, min(len(node.Values), limitValues))
	for i, item := range node.Values {
		if d.valuesLeft < 0 {
			return
		}
		element := reflect.New(into.Type().Elem()).Elem()
		setItemDefaults(element)
		if _, isNull := item.(*ast.NullNode); isNull || item == nil {
			d.spoil(placeOfItem(node, i), itemOf(path, i), "the item is empty", "write it, or take its dash away")
			continue
		}
		d.value(item, itemOf(path, i), element)
		list = reflect.Append(list, element)
	}
	into.Set(list)
}

// splitScalar mends what goccy/go-yaml makes of a:1 in brackets inside braces,
// {brokers: [localhost:9092]}: it takes it for a mapping, although YAML 1.2.2
// §7.3.3 wants a blank after the colon for that (its issue 832).
func splitScalar(node ast.Node) (text string, ok bool) {
	mapping, isMapping := node.(*ast.MappingNode)
	if !isMapping || mapping.IsFlowStyle || len(mapping.Values) != 1 {
		return "", false
	}
	pair := mapping.Values[0]
	key, value := pair.Key.GetToken(), pair.Value.GetToken()
	_, kind := scalarText(pair.Value)
	if kind == reflect.Invalid || key.Type != token.StringType || pair.Start.Position.Line != value.Position.Line || pair.Start.Position.Column+1 != value.Position.Column {
		return "", false
	}
	return key.Value + ":" + value.Value, true
}

// scalar takes a single value.
func (d *decoder) scalar(node ast.Node, path string, into reflect.Value) {
	text, kind := scalarText(node)
	if !fitsKind(kind, text, into) {
		d.wrongKind(node, path, into)
		return
	}
	if err := setText(into, text); err != nil {
		d.spoil(placeOfNode(node), path, err.Error(), "")
	}
}

// scalarText returns a scalar as it was written, without quotes, and its kind.
func scalarText(node ast.Node) (string, reflect.Kind) {
	switch node := node.(type) {
	case *ast.StringNode:
		return node.Value, reflect.String
	case *ast.LiteralNode:
		return node.Value.Value, reflect.String
	case *ast.IntegerNode:
		return node.GetToken().Value, reflect.Int
	case *ast.BoolNode:
		return node.GetToken().Value, reflect.Bool
	case *ast.FloatNode:
		return node.GetToken().Value, reflect.Float64
	default:
		return "", reflect.Invalid
	}
}

// fitsKind reports whether a scalar of that kind may be written for into.
func fitsKind(kind reflect.Kind, text string, into reflect.Value) bool {
	switch {
	case into.Type() == reflect.TypeFor[time.Duration]():
		return kind == reflect.String || text == "0"
	case into.Type() == reflect.TypeFor[Bytes]():
		return kind == reflect.String || kind == reflect.Int
	case isText(into) || into.Kind() == reflect.String:
		return kind == reflect.String
	default:
		return kind == into.Kind()
	}
}

func (d *decoder) wrongKind(node ast.Node, path string, into reflect.Value) {
	_, kind := scalarText(node)
	remedy := ""
	switch {
	case kind != reflect.Invalid && kind != reflect.String && wanted(into) == wantText:
		remedy = "put it in quotes"
	case kind != reflect.Invalid && into.Kind() == reflect.Slice:
		remedy = "put it in brackets"
	}
	d.spoil(placeOfNode(node), path, "wants "+wanted(into)+", not "+kindOf(node), remedy)
}

const wantText = "text"

// wanted names what may be written for a value.
func wanted(into reflect.Value) string {
	switch {
	case into.Type() == reflect.TypeFor[time.Duration]():
		return "a duration, such as 30s or 12h"
	case into.Type() == reflect.TypeFor[Bytes]():
		return "a number of bytes, such as 32MiB"
	case into.Type() == reflect.TypeFor[Secret]():
		return "the path of a file"
	case isText(into) && into.Kind() != reflect.Slice, into.Kind() == reflect.String:
		return wantText
	case into.Kind() == reflect.Bool:
		return "true or false"
	case into.Kind() == reflect.Int:
		return "a whole number"
	case into.Kind() == reflect.Slice:
		return "a list"
	default:
		return "a section of keys"
	}
}

func kindOf(node ast.Node) string {
	switch node.(type) {
	case *ast.MappingNode:
		return "a section of keys"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.IntegerNode:
		return "a number"
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number with a fraction"
	case *ast.BoolNode:
		return "true or false"
	default:
		return "this"
	}
}

func isText(v reflect.Value) bool { return reflect.PointerTo(v.Type()).Implements(textUnmarshaler) }

// setText takes text, from the file or the environment, into a single value or
// a list. Its errors say what is wanted and do not quote the text, which might
// be a secret in the wrong place.
func setText(into reflect.Value, text string) error {
	if unmarshaler, ok := into.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return unmarshaler.UnmarshalText([]byte(text))
	}
	if known, ok := into.Interface().(enum); ok {
		return setEnum(into, text, known.known())
	}
	switch {
	case into.Type() == reflect.TypeFor[time.Duration]():
		parsed, err := ParseDuration(text)
		into.SetInt(int64(parsed))
		return err
	case into.Kind() == reflect.String:
		into.SetString(text)
		return nil
	case into.Kind() == reflect.Bool && (text == "true" || text == "false"):
		into.SetBool(text == "true")
		return nil
	case into.Kind() == reflect.Int:
		number, err := strconv.Atoi(text)
		into.SetInt(int64(number))
		if err == nil {
			return nil
		}
	case into.Kind() == reflect.Slice:
		return setList(into, splitList(text))
	}
	return errors.New("wants " + wanted(into))
}

func setList(into reflect.Value, parts []string) error {
	list := reflect.MakeSlice(into.Type(), len(parts), len(parts))
	for i, part := range parts {
		if err := setText(list.Index(i), part); err != nil {
			return fmt.Errorf("item %d: %w", i+1, err)
		}
	}
	into.Set(list)
	return nil
}

func setEnum(into reflect.Value, text string, known []string) error {
	if text == into.String() || slices.Contains(known, text) {
		into.SetString(text)
		return nil
	}
	message := fmt.Sprintf("unknown value %s", quoteShort(text))
	if nearest := Nearest(text, known); nearest != "" {
		message += fmt.Sprintf(", did you mean %q?", nearest)
	}
	return fmt.Errorf("%s; known are %s", message, strings.Join(known, ", "))
}

// quoteShort quotes what may be a mistyped word; anything longer is not one.
func quoteShort(text string) string {
	if len(text) > 20 {
		return fmt.Sprintf("of %d characters", len(text))
	}
	return strconv.Quote(text)
}

// fieldsOf maps the keys of a section to the struct's fields, those of inlined
// structs included.
func fieldsOf(section reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range section.NumField() {
		key, option, _ := strings.Cut(section.Type().Field(i).Tag.Get("yaml"), ",")
		if option == "inline" {
			for inlined, field := range fieldsOf(section.Field(i)) {
				fields[inlined] = field
			}
		} else if key != "" {
			fields[key] = section.Field(i)
		}
	}
	return fields
}

func keyToken(key ast.MapKeyNode) *token.Token {
	if explicit, ok := key.(*ast.MappingKeyNode); ok && explicit.Value != nil {
		return explicit.Value.GetToken()
	}
	return key.GetToken()
}

// placeOfNode returns where a node begins: a section at its first key.
func placeOfNode(node ast.Node) place {
	if section, ok := node.(*ast.MappingNode); ok && len(section.Values) > 0 && !section.IsFlowStyle {
		return placeOfToken(keyToken(section.Values[0].Key))
	}
	if node == nil {
		return place{}
	}
	return placeOfToken(node.GetToken())
}

// placeOfItem returns where an item of a list begins, be it empty.
func placeOfItem(list *ast.SequenceNode, i int) place {
	if i < len(list.Entries) {
		return placeOfToken(list.Entries[i].Start)
	}
	return placeOfToken(list.Start)
}

func placeOfToken(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{}
	}
	return place{line: t.Position.Line, column: t.Position.Column}
}
