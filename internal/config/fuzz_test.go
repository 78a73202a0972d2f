package config

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// FuzzParse wants no panic for any file and environment; every refusal to say
// where and what; and whatever is accepted to be shown, and read back, the same.
func FuzzParse(f *testing.F) {
	for _, folder := range []string{"bad", "good"} {
		entries, err := os.ReadDir("testdata/" + folder)
		if err != nil {
			f.Fatal(err)
		}
		for _, entry := range entries {
			if data, err := os.ReadFile("testdata/" + folder + "/" + entry.Name()); err == nil && strings.HasSuffix(entry.Name(), ".yaml") {
				f.Add(data, "")
			}
		}
	}
	const least = "sources: [{name: a, token_file: t, start: 24h}]\n"
	f.Add([]byte(least), "CDRBUS_KAFKA_BROKERS=a:1,b:2\nCDRBUS_SOURCES_A_SWEEPS=1h/2h")
	f.Add([]byte(least+"x-a: &a [*a]\nkafka: &k {<<: *k, brokers: [a:1], ? b : c}\nlog: *k\n"), "CDRBUS_SOURCES_1_TOKEN=x")
	f.Add([]byte(strings.Repeat("- ", 100_000)), "")
	f.Add([]byte(strings.Repeat("[", 100_000)), "")
	f.Add([]byte("? [a]\n: b\n*x : y\n~: z\n1: 2\n&a b: c\n"), "")
	f.Fuzz(func(t *testing.T, data []byte, environ string) {
		c, err := Parse("fuzz.yaml", data, strings.Split(environ, "\n"))
		if err != nil {
			var problems Problems
			if c != nil || !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("refused with %v, %v", c, err)
			}
			for _, p := range problems {
				if p.What == "" || p.File == "" && p.Variable == "" {
					t.Errorf("a problem without place or text: %+v", p)
				}
			}
			return
		}
		shown, err := c.Show()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(shown, "(hidden") {
			requireSame(t, c, shown)
		}
	})
}
