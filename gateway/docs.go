package gateway

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsTemplate string

var docsHTML = template.Must(template.New("docs").Parse(docsTemplate))

// The page for people is made from the same description that programs read.
type docsView struct {
	Title, Version, Intro string
	Groups                []docsGroup
	Problems              []docsProblem
}

type docsGroup struct {
	Name, Doc  string
	Operations []docsOperation
}

type docsOperation struct {
	ID, Method, Path, Summary, Doc string
	Params                         []docsField
	Body                           []docsField
	BodyExample                    string
	Answers                        []docsAnswer
}

type docsField struct {
	Name, Type, Rules, Doc string
	Required               bool
}

type docsAnswer struct {
	Status, Doc, Example string
	Fields               []docsField
}

type docsProblem struct {
	Code                   code
	Status                 int
	Title, Meaning, Remedy string
}

func docsPage(spec *huma.OpenAPI) ([]byte, error) {
	v := docsView{Title: spec.Info.Title, Version: spec.Info.Version, Intro: spec.Info.Description}
	all := spec.Components.Schemas.Map()
	for _, tag := range spec.Tags {
		group := docsGroup{Name: tag.Name, Doc: tag.Description}
		for i := range routes {
			if r := &routes[i]; r.tag == tag.Name {
				group.Operations = append(group.Operations, r.view(spec, all))
			}
		}
		v.Groups = append(v.Groups, group)
	}
	for c, info := range problems {
		v.Problems = append(v.Problems, docsProblem{c, info.status, info.title, info.meaning, info.remedy})
	}
	slices.SortFunc(v.Problems, func(a, b docsProblem) int {
		if a.Status != b.Status {
			return a.Status - b.Status
		}
		return strings.Compare(string(a.Code), string(b.Code))
	})
	var b bytes.Buffer
	err := docsHTML.Execute(&b, v)
	return b.Bytes(), err
}

func (r *route) view(spec *huma.OpenAPI, all map[string]*huma.Schema) docsOperation {
	item := spec.Paths[r.path]
	op := map[string]*huma.Operation{
		"GET": item.Get, "PUT": item.Put, "POST": item.Post, "DELETE": item.Delete,
	}[r.method]
	v := docsOperation{ID: op.OperationID, Method: r.method, Path: r.path, Summary: op.Summary, Doc: op.Description}
	for _, p := range op.Parameters {
		v.Params = append(v.Params, docsField{p.Name, p.In, "", p.Description, p.Required})
	}
	if op.RequestBody != nil {
		s := op.RequestBody.Content["application/json"].Schema
		v.Body, v.BodyExample = fieldsView(all, s), exampleText(all, s)
	}
	for _, a := range r.answers {
		view := docsAnswer{Status: strconv.Itoa(a.status), Doc: a.doc}
		if a.body != nil {
			s := spec.Components.Schemas.Schema(reflect.TypeOf(a.body), true, "")
			view.Fields, view.Example = fieldsView(all, s), exampleText(all, s)
		}
		v.Answers = append(v.Answers, view)
	}
	seen := map[string]bool{}
	for _, a := range v.Answers {
		seen[a.Status] = true
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		if !seen[status] {
			v.Answers = append(v.Answers, docsAnswer{Status: status, Doc: op.Responses[status].Description})
		}
	}
	return v
}

// deref follows a reference to its schema.
func deref(all map[string]*huma.Schema, s *huma.Schema) *huma.Schema {
	if s.Ref != "" {
		return all[strings.TrimPrefix(s.Ref, schemas)]
	}
	return s
}

func fieldsView(all map[string]*huma.Schema, s *huma.Schema) []docsField {
	s = deref(all, s)
	fields := make([]docsField, 0, len(s.Properties))
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		fields = append(fields, docsField{
			Name: name, Type: typeName(p), Rules: rules(p), Doc: p.Description,
			Required: slices.Contains(s.Required, name),
		})
	}
	slices.SortStableFunc(fields, func(a, b docsField) int {
		switch {
		case a.Required == b.Required:
			return 0
		case a.Required:
			return -1
		default:
			return 1
		}
	})
	return fields
}

func typeName(s *huma.Schema) string {
	if s.Ref != "" {
		return strings.TrimPrefix(s.Ref, schemas)
	}
	if s.Type == "array" {
		return "list of " + typeName(s.Items)
	}
	return s.Type
}

func rules(s *huma.Schema) string {
	var out []string
	if s.Pattern != "" {
		out = append(out, s.Pattern)
	}
	if len(s.Enum) > 0 {
		b, _ := json.Marshal(s.Enum)
		out = append(out, "one of "+string(b))
	}
	for _, limit := range []struct {
		name string
		n    *float64
	}{{"at least", s.Minimum}, {"at most", s.Maximum}} {
		if limit.n != nil {
			b, _ := json.Marshal(int64(*limit.n))
			out = append(out, limit.name+" "+string(b))
		}
	}
	return strings.Join(out, ", ")
}

// exampleText is an example made of those of the fields.
func exampleText(all map[string]*huma.Schema, s *huma.Schema) string {
	b, err := json.MarshalIndent(exampleOf(all, s, 0), "", "  ")
	if err != nil {
		return ""
	}
	return string(b)
}

func exampleOf(all map[string]*huma.Schema, s *huma.Schema, depth int) any {
	s = deref(all, s)
	switch {
	case len(s.Examples) > 0:
		return s.Examples[0]
	case s.Const != nil:
		return s.Const
	case len(s.Enum) > 0:
		return s.Enum[0]
	case s.Type == "array":
		return []any{exampleOf(all, s.Items, depth+1)}
	case s.Type == "object" && depth < 5:
		out := map[string]any{}
		for name, p := range s.Properties {
			if slices.Contains(s.Required, name) {
				out[name] = exampleOf(all, p, depth+1)
			}
		}
		return out
	case s.Type == "integer":
		return 1
	case s.Type == "boolean":
		return true
	default:
		return "..."
	}
}

const problemTemplate = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{.Code}} - Flashgate</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem;color:#1b1f24}
code{background:#f2f4f7;padding:.1em .3em;border-radius:4px}</style></head>
<body><p><code>{{.Status}} {{.Code}}</code></p><h1>{{.Title}}</h1><p>{{.Meaning}}</p>
<h2>What to do</h2><p>{{.Remedy}}</p><p><a href="/docs">All operations and problems</a></p></body></html>
`

var problemHTML = template.Must(template.New("problem").Parse(problemTemplate))

func problemPage(c code, info codeInfo) ([]byte, error) {
	var b bytes.Buffer
	err := problemHTML.Execute(&b, docsProblem{c, info.status, info.title, info.meaning, info.remedy})
	return b.Bytes(), err
}
