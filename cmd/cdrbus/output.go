package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// outputFlag is -o: text for a person, JSON for a program.
type outputFlag struct{ json bool }

func (o *outputFlag) register(cmd *cobra.Command) {
	cmd.Flags().VarP(o, "output", "o", "text or json")
}

// String, Set and Type make an outputFlag a flag.
func (o *outputFlag) String() string {
	if o.json {
		return "json"
	}
	return "text"
}

// Set implements pflag.Value.
func (o *outputFlag) Set(text string) error {
	switch text {
	case "text", "json":
		o.json = text == "json"
		return nil
	}
	return fmt.Errorf("want text or json, not %q", text)
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
