package configs

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// MaxFileBytes bounds a YAML file: ten thousand items with their stock fit.
	MaxFileBytes = 1 << 20
	maxDepth     = 16  // our schemas nest 5 deep; a deeper document would exhaust the parser's stack
	maxIndent    = 256 // columns: one level of a block takes at least one
	// The parser takes quadratic time for long block lists and maps. A file of MaxFileBytes has no
	// room for so many items and places, and no struct has so many fields.
	maxEntries = 50_000
	maxFields  = 1000 // without a list entry between them
)

var (
	byteOrderMark = []byte("\ufeff")
	jsonNumber    = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)
)

// yamlToJSON translates one YAML document, and tells the line of every JSON pointer in it. It knows
// the part of YAML that JSON has: no anchors, aliases, tags, merge keys or several documents.
func yamlToJSON(b []byte) (out []byte, lines map[string]int, err error) {
	if len(b) > MaxFileBytes {
		return nil, nil, malformed("the file is larger than %d bytes", MaxFileBytes)
	}
	if !utf8.Valid(b) {
		return nil, nil, malformed("the file is not valid UTF-8")
	}
	b = bytes.TrimPrefix(b, byteOrderMark)
	// The parser is somebody else's and people's files are its input: a panic there is a bad file.
	defer func() {
		if r := recover(); r != nil {
			err = malformed("the file is not YAML that can be read: %.80v", r)
		}
	}()
	tokens := lexer.Tokenize(string(b))
	if err := checkTokens(tokens); err != nil {
		return nil, nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // walker.mapping finds them
	if err != nil {
		return nil, nil, yamlError(err)
	}
	w := walker{lines: map[string]int{}}
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if body != nil {
			return nil, nil, malformedAt(d.Body.GetToken(), "the file must have one document")
		}
		body = d.Body
	}
	if body == nil {
		return nil, nil, malformed("the file is empty")
	}
	w.lines[""] = body.GetToken().Position.Line
	if err := w.node(body, "", 0); err != nil {
		return nil, nil, err
	}
	return w.out, w.lines, nil
}

// checkTokens refuses what yamlToJSON does not know before the parser sees it, and the nesting
// that a parser which calls itself could not survive.
func checkTokens(tokens token.Tokens) error {
	flow, fields, entries, onLine, line := 0, 0, 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			onLine, line = 0, t.Position.Line
		}
		switch t.Type {
		case token.AnchorType, token.AliasType, token.TagType, token.MergeKeyType, token.DirectiveType,
			token.MappingKeyType:
			return malformedAt(t,
				"%.20q: anchors, aliases, tags, merge keys, ? keys and directives are not supported", t.Value)
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType:
			onLine++
			entries++
			fields = 0
		case token.MappingValueType:
			if flow == 0 {
				fields++
			}
		}
		if entries > maxEntries || fields > maxFields {
			return malformedAt(t, "more than %d list entries, or %d fields", maxEntries, maxFields)
		}
		if flow > maxDepth || onLine > maxDepth || t.Position.IndentNum > maxIndent {
			return malformedAt(t, "nested more than %d deep", maxDepth)
		}
	}
	return nil
}

// yamlError takes message and line out of the parser's error and leaves its picture of the source.
func yamlError(err error) error {
	var y yaml.Error
	if errors.As(err, &y) && y.GetToken() != nil {
		return malformedAt(y.GetToken(), "%.200s", y.GetMessage())
	}
	return malformed("%.200s", err.Error())
}

func malformedAt(t *token.Token, detail string, args ...any) *Error {
	e := malformed(detail, args...)
	if t != nil && t.Position != nil {
		e.Problems[0].Line = t.Position.Line
	}
	return e
}

// walker writes a YAML node as JSON.
type walker struct {
	out   []byte
	lines map[string]int
}

func (w *walker) node(n ast.Node, at string, depth int) error {
	if depth > maxDepth {
		return malformedAt(n.GetToken(), "nested more than %d deep", maxDepth)
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		return w.mapping(n.Values, at, depth)
	case *ast.MappingValueNode:
		return w.mapping([]*ast.MappingValueNode{n}, at, depth)
	case *ast.SequenceNode:
		return w.sequence(n, at, depth)
	case *ast.StringNode:
		if n.Token.Type == token.StringType && jsonNumber.MatchString(n.Value) {
			return w.number(n.Token) // the parser takes one that is beyond 64 bits for text
		}
		return w.text(n.Value)
	case *ast.LiteralNode:
		return w.text(n.Value.Value)
	case *ast.NullNode:
		w.out = append(w.out, "null"...)
	case *ast.BoolNode:
		w.out = strconv.AppendBool(w.out, n.Value)
	case *ast.IntegerNode:
		return w.number(n.Token)
	case *ast.FloatNode:
		return w.number(n.Token)
	default:
		return malformedAt(n.GetToken(), "%s: %s is not supported here", at, strings.ToLower(n.Type().YAMLName()))
	}
	return nil
}

func (w *walker) mapping(values []*ast.MappingValueNode, at string, depth int) error {
	w.out = append(w.out, '{')
	for i, v := range values {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		key, ok := v.Key.(*ast.StringNode)
		if !ok {
			return malformedAt(v.Key.GetToken(), "%s: a field name must be text, is %.40q", at, v.Key.String())
		}
		here := string(jsontext.Pointer(at).AppendToken(key.Value))
		if _, twice := w.lines[here]; twice {
			return malformedAt(key.Token, "%.200s: is there twice", here)
		}
		w.lines[here] = key.Token.Position.Line
		if err := w.text(key.Value); err != nil {
			return err
		}
		w.out = append(w.out, ':')
		if err := w.node(v.Value, here, depth+1); err != nil {
			return err
		}
	}
	w.out = append(w.out, '}')
	return nil
}

func (w *walker) sequence(n *ast.SequenceNode, at string, depth int) error {
	w.out = append(w.out, '[')
	for i, v := range n.Values {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		here := fmt.Sprintf("%s/%d", at, i)
		w.lines[here] = firstLine(v)
		if err := w.node(v, here, depth+1); err != nil {
			return err
		}
	}
	w.out = append(w.out, ']')
	return nil
}

// firstLine is where a node begins; the token of a block mapping is its first colon.
func firstLine(n ast.Node) int {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken().Position.Line
	}
	return n.GetToken().Position.Line
}

func (w *walker) text(s string) (err error) {
	w.out, err = jsontext.AppendQuote(w.out, s)
	if err != nil {
		return malformed("text is not valid UTF-8")
	}
	return nil
}

// number copies what JSON can say too; 0x1F, 1_000 and 007 would be read differently elsewhere.
func (w *walker) number(t *token.Token) error {
	if !jsonNumber.MatchString(t.Value) {
		return malformedAt(t, "%.40q: write a number in plain decimal digits, or text in quotes", t.Value)
	}
	w.out = append(w.out, t.Value...)
	return nil
}
