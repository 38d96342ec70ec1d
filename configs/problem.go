package configs

import (
	"errors"
	"fmt"
	"strings"

	"flashgate/sale"
)

// maxProblems bounds an error: a small body can be wrong in tens of thousands of places.
const maxProblems = 100

// Problem is one thing that is wrong: where, and what is allowed there.
type Problem struct {
	// Source is the file or the environment variable that set the field; empty for a request.
	Source string
	// Line counts from 1; 0 when there is none.
	Line int
	// Pointer is the JSON pointer of the field; empty for the document as a whole.
	Pointer string
	Detail  string
}

// String writes "file.yaml:14: /items/0/stock/1/on_hand: must be ...".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Source)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	for _, part := range []string{p.Pointer, p.Detail} {
		if b.Len() > 0 && part != "" {
			b.WriteString(": ")
		}
		b.WriteString(part)
	}
	return b.String()
}

// Error is everything that is wrong with a document, at least one problem.
type Error struct {
	// Malformed is true when the document is not YAML or JSON at all, or is too large: then there
	// is one problem. It is false when only its fields are wrong.
	Malformed bool
	Problems  []Problem
	// More counts the problems that were left out.
	More int
}

// Error writes one problem a line.
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems)+1)
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	if e.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", e.More))
	}
	return strings.Join(lines, "\n")
}

// Fields returns the problems without source and line, as a problem document lists them.
func (e *Error) Fields() []sale.FieldError {
	fields := make([]sale.FieldError, len(e.Problems))
	for i, p := range e.Problems {
		fields[i] = sale.FieldError{Pointer: p.Pointer, Detail: p.Detail}
	}
	return fields
}

func newError(wrong []sale.FieldError) error {
	if len(wrong) == 0 {
		return nil
	}
	e := &Error{More: max(0, len(wrong)-maxProblems)}
	for _, w := range wrong[:len(wrong)-e.More] {
		e.Problems = append(e.Problems, Problem{Pointer: w.Pointer, Detail: w.Detail})
	}
	return e
}

func malformed(detail string, args ...any) *Error {
	return &Error{Malformed: true, Problems: []Problem{{Detail: fmt.Sprintf(detail, args...)}}}
}

// locate names the source of each problem, and its line where the document has the field.
func locate(err error, source string, lines map[string]int) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	for i := range e.Problems {
		p := &e.Problems[i]
		p.Source = source
		for at := p.Pointer; p.Line == 0; at = at[:strings.LastIndexByte(at, '/')] {
			p.Line = lines[at]
			if at == "" {
				break
			}
		}
	}
	return e
}
