package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// outputFlag is -o: text for a person, JSON for a program.
type outputFlag struct {
	json  bool
	human string // what the text is called; empty: text
}

func (o *outputFlag) register(cmd *cobra.Command) {
	cmd.Flags().VarP(o, "output", "o", o.text()+" or json")
}

func (o *outputFlag) text() string { return cmp.Or(o.human, "text") }

// String, Set and Type make an outputFlag a flag.
func (o *outputFlag) String() string {
	if o.json {
		return "json"
	}
	return o.text()
}

// Set implements pflag.Value.
func (o *outputFlag) Set(text string) error {
	switch text {
	case o.text(), "json":
		o.json = text == "json"
		return nil
	}
	return fmt.Errorf("want %s or json, not %q", o.text(), text)
}

// Type implements pflag.Value.
func (o *outputFlag) Type() string { return "format" }

// terminalWidth returns the width of the terminal that w is, or 0 if it is none.
func terminalWidth(w io.Writer) int {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// writeJSON writes a value for a program, and readable for a person who looks.
func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// withPath puts the configuration's path into the commands that a text tells, so that
// they can be copied.
func withPath(text, path string) string {
	if path == "" {
		return text
	}
	return strings.ReplaceAll(text, "-c FILE", "-c "+path)
}

// writeWithPath is withPath for what write writes.
func writeWithPath(w io.Writer, path string, write func(io.Writer) error) error {
	var text strings.Builder
	if err := write(&text); err != nil {
		return err
	}
	_, err := io.WriteString(w, withPath(text.String(), path))
	return err
}
