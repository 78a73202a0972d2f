package check

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// instructions reads the Dockerfile as pairs of instruction and rest, lines joined.
func instructions(t *testing.T) [][2]string {
	t.Helper()
	content, err := os.ReadFile(root + "deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	var list [][2]string
	for line := range strings.Lines(strings.ReplaceAll(string(content), "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		list = append(list, [2]string{word, strings.TrimSpace(rest)})
	}
	return list
}

func TestImage(t *testing.T) {
	var stages []string
	last := map[string]string{} // of the last stage
	for _, i := range instructions(t) {
		if i[0] == "FROM" {
			stages = append(stages, i[1])
			clear(last)
		}
		last[i[0]] = i[1]
		if i[0] == "RUN" && strings.Contains(i[1], "go build") && (!strings.Contains(i[1], "CGO_ENABLED=0") || !strings.Contains(i[1], "-trimpath")) {
			t.Errorf("the build is not static or not reproducible: %s", i[1])
		}
		if i[0] == "ENV" || i[0] == "ARG" && regexp.MustCompile(`(?i)token|secret|password`).MatchString(i[1]) {
			t.Errorf("%s %s may end up in the image", i[0], i[1])
		}
	}
	if len(stages) != 2 || !strings.Contains(stages[0], "golang:"+goVersion(t)+" ") {
		t.Errorf("stages are %q; go.mod asks for Go %s", stages, goVersion(t))
	}
	if !strings.Contains(stages[len(stages)-1], "distroless/static") || last["USER"] != "65532:65532" {
		t.Errorf("the image is made from %s for user %s", stages[len(stages)-1], last["USER"])
	}
	if last["ENTRYPOINT"] != `["/usr/local/bin/cdrbus"]` || last["CMD"] != `["run", "-c", "/etc/cdrbus/cdrbus.yaml"]` {
		t.Errorf("the image runs %s %s", last["ENTRYPOINT"], last["CMD"])
	}
}

// goVersion is the language version of the main module, such as 1.26.
func goVersion(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(root + "go.mod")
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(content)
	if match == nil {
		t.Fatal("go.mod names no Go version")
	}
	return string(match[1])
}
