package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong, or worth a warning, in a configuration.
type Problem struct {
	// File with Line and Column, counted from 1, say where; without a Line the
	// whole file is meant. Variable is set instead when the value came from the
	// environment.
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Variable string `json:"variable,omitempty"`

	Path   string `json:"path,omitempty"` // of the key, such as sources[0].start
	What   string `json:"what"`           // is wrong
	Remedy string `json:"remedy,omitempty"`
}

// String is one line: place: path: what; remedy.
func (p Problem) String() string {
	var b strings.Builder
	switch {
	case p.Variable != "":
		b.WriteString(p.Variable + ": ")
	case p.Line > 0:
		fmt.Fprintf(&b, "%s:%d:%d: ", p.File, p.Line, p.Column)
	case p.File != "":
		b.WriteString(p.File + ": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.What)
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// Problems is the error of [Load]: everything that is wrong, in the order of
// the file, with what came from the environment at the end.
type Problems []Problem

func (ps Problems) Error() string {
	if len(ps) == 1 {
		return "configuration refused: " + ps[0].String()
	}
	lines := []string{fmt.Sprintf("configuration refused, %d problems:", len(ps))}
	for _, p := range ps {
		lines = append(lines, "  "+p.String())
	}
	return strings.Join(lines, "\n")
}

func sortProblems(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.Variable, b.Variable), // "" first: the file before the environment
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path),
			cmp.Compare(a.What, b.What),
		)
	})
}

// place is where a value came from.
type place struct {
	line, column int
	variable     string
}

// ledger collects problems and warnings, and knows where each value came from.
// One load uses one ledger, in one goroutine.
type ledger struct {
	file     string
	places   map[string]place // by path
	problems []Problem
	warnings []Problem
	spoilt   map[string]bool // paths whose value could not be taken
}

func newLedger(file string) *ledger {
	return &ledger{file: file, places: map[string]place{}, spoilt: map[string]bool{}}
}

// spoil reports a problem that leaves the value at path unknown. Rules that
// would judge the default in its place stay silent.
func (l *ledger) spoil(at place, path, what, remedy string) {
	l.spoilt[path] = true
	l.problems = append(l.problems, l.problem(at, path, what, remedy))
}

// refuse reports a rule that the value at path breaks. A missing value is
// placed at the section that it is missing from.
func (l *ledger) refuse(path, what, remedy string) {
	if l.isSpoilt(path) {
		return
	}
	l.problems = append(l.problems, l.problem(l.placeOf(path), path, what, remedy))
}

func (l *ledger) warn(path, what, remedy string) {
	l.warnings = append(l.warnings, l.problem(l.placeOf(path), path, what, remedy))
}

func (l *ledger) problem(at place, path, what, remedy string) Problem {
	p := Problem{File: l.file, Line: at.line, Column: at.column, Path: path, What: what, Remedy: remedy}
	if at.variable != "" {
		return Problem{Variable: at.variable, Path: path, What: what, Remedy: remedy}
	}
	return p
}

// isSpoilt reports whether the value at path, or a section around it, could not
// be taken.
func (l *ledger) isSpoilt(path string) bool {
	for ; path != ""; path = parentOf(path) {
		if l.spoilt[path] {
			return true
		}
	}
	return l.spoilt[""]
}

// placeOf returns where the value at path, or the nearest section around it,
// was written.
func (l *ledger) placeOf(path string) place {
	for ; path != ""; path = parentOf(path) {
		if at, found := l.places[path]; found {
			return at
		}
	}
	return l.places[""]
}

// parentOf cuts the last key or index off: a.b[2] -> a.b -> a -> "".
func parentOf(path string) string { return path[:max(strings.LastIndexAny(path, ".["), 0)] }

// childOf is the path of a key in the section at path.
func childOf(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// itemOf is the path of an item of the list at path.
func itemOf(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
