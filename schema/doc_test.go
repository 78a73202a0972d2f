package schema

import (
	"os"
	"strings"
	"testing"
	"text/template"
)

// TestEventDoc holds docs/event.md against the table and its template.
func TestEventDoc(t *testing.T) {
	functions := template.FuncMap{
		"marks": func(f Field) string { return "`" + strings.ReplaceAll(f.Absent.String(), " ", "` `") + "`" },
		"cell":  docCell,
	}
	text, err := os.ReadFile("testdata/event.md.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := template.Must(template.New("event.md").Funcs(functions).Parse(string(text))).Execute(&out, map[string]any{
		"Name": recordNamespace + "." + recordName, "Count": fieldCount, "MaxDepth": maxDepth, "Fields": Fields(),
		"KeysFrom": "`" + strings.Join([]string{FromCorrelationID.String(), FromInteractionID.String(), FromReportID.String()}, "`, `") + "`",
	}); err != nil {
		t.Fatal(err)
	}
	for _, cause := range Causes() {
		if !strings.Contains(out.String(), "`"+cause.String()+"`") {
			t.Errorf("the document lacks the cause %s", cause)
		}
	}
	golden(t, "../docs/event.md", []byte(out.String()))
}

// docCell returns the last cell of a field's row.
func docCell(f Field) string {
	doc := strings.ReplaceAll(f.Doc, "|", `\|`)
	if len(f.Values) == 0 {
		return doc
	}
	return doc + " Known values: `" + strings.Join(f.Values, "`, `") + "`."
}
