package gateway

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

// spec is the published description, as a program reads it.
type spec struct {
	doc *openapi3.T
	// refused counts refusals per operation and code: a sweep makes thousands that are alike.
	mu      sync.Mutex
	refused map[string]int
}

const refusalsChecked = 20 // in full, per operation and code

func loadSpec(t testing.TB, text []byte) *spec {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(text)
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	return &spec{doc: doc, refused: map[string]int{}}
}

// check holds an answer to the description: status, media type, body and headers. Paths that are in
// no route are described by nothing.
func (s *spec) check(req *http.Request, res reply) error {
	item, path := s.find(req.URL.Path)
	if item == nil {
		return nil
	}
	op := item.Operations()[req.Method]
	if op == nil {
		return nil
	}
	described := op.Responses.Status(res.StatusCode)
	if described == nil {
		return fmt.Errorf("%s %s answers %d, which is not described: %s", req.Method, path, res.StatusCode, res.text)
	}
	if res.StatusCode >= 400 && strings.HasPrefix(res.Header.Get("Content-Type"), "application/problem") {
		c, _, _ := strings.Cut(strings.SplitAfter(string(res.text), `"code":"`)[1], `"`)
		codes := strings.FieldsFunc(*described.Value.Description, func(r rune) bool { return strings.ContainsRune(" ,.", r) })
		if !slices.Contains(codes, c) {
			return fmt.Errorf("%s %s answers %s, which is not described", req.Method, path, c)
		}
		s.mu.Lock()
		s.refused[path+c]++
		enough := s.refused[path+c] > refusalsChecked
		s.mu.Unlock()
		if enough {
			return nil
		}
	}
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, Route: &routers.Route{
			Spec: s.doc, Path: path, PathItem: item, Method: req.Method, Operation: op,
		}},
		Status: res.StatusCode, Header: res.Header, Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	in.SetBodyBytes(res.text)
	if media, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";"); !strings.Contains(media, "json") {
		if described.Value.Content.Get(media) == nil {
			return fmt.Errorf("%s %s answers %s, which is not described", req.Method, path, media)
		}
		return nil
	}
	return openapi3filter.ValidateResponse(context.Background(), in)
}

// find matches like the server does: fixed paths first, a parameter is one segment.
func (s *spec) find(path string) (*openapi3.PathItem, string) {
	for _, r := range routes {
		if matches(r.path, path) {
			return s.doc.Paths.Value(r.path), r.path
		}
	}
	return nil, ""
}

func matches(template, path string) bool {
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i] != got[i] && (!strings.HasPrefix(want[i], "{") || got[i] == "") {
			return false
		}
	}
	return true
}

// The description is complete: every route, and for each of its codes the status.
func TestDescription(t *testing.T) {
	r := newRig(t, mini(t), nil)
	res := r.get("/openapi.yaml")
	require.Equal(t, "application/yaml", res.Header.Get("Content-Type"))
	require.Contains(t, string(res.text), "openapi: 3.1.0")
	doc := loadSpec(t, res.text).doc
	n := 0
	for i := range routes {
		route := &routes[i]
		op := doc.Paths.Value(route.path).GetOperation(route.method)
		require.NotNil(t, op, route.path)
		require.NotEmpty(t, op.OperationID)
		require.NotEmpty(t, op.Summary)
		require.NotEmpty(t, op.Tags)
		require.Equal(t, len(route.roles) > 0, len(*op.Security) > 0)
		for _, c := range route.allCodes() {
			answer := op.Responses.Status(problems[c].status)
			require.NotNil(t, answer, "%s %s", route.path, c)
			require.Contains(t, *answer.Value.Description, string(c))
		}
		if route.body != nil {
			require.NotNil(t, op.RequestBody, route.path)
		}
		n++
	}
	described := 0
	for _, item := range doc.Paths.Map() {
		described += len(item.Operations())
	}
	require.Equal(t, n, described)
}

// Only the codes of the contract are used, and three for what the contract says nothing of: a path
// that is not there, a failure of ours, and a verb on what still waits.
func TestCodesAreThoseOfTheContract(t *testing.T) {
	contract := strings.Fields(`400 malformed-body missing-reservation-id 401 unauthenticated 403 forbidden customer-mismatch challenge-required admission-invalid
		404 unknown-sale unknown-sku unknown-location unknown-reservation unknown-ticket not-found
		405 method-not-allowed 413 body-too-large 415 unsupported-media-type 431 request-too-large
		409 insufficient-stock cap-exceeded sale-not-open sale-paused already-confirmed already-released
		already-cancelled not-confirmed still-waiting extension-limit version-conflict
		410 reservation-expired sale-ended ticket-expired 412 version-mismatch 428 if-match-required
		422 invalid-request reservation-id-reused field-locked 500 internal
		429 rate-limited queue-full
		503 unavailable sale-recovering overloaded`)
	status, seen := 0, 0
	for _, word := range contract {
		if _, err := fmt.Sscanf(word, "%d", &status); err == nil {
			continue
		}
		require.Equal(t, status, problems[code(word)].status, word)
		seen++
	}
	require.Len(t, problems, seen)
	used := map[code]bool{codeNotFound: true, codeMethodNotAllowed: true}
	for i := range routes {
		for _, c := range routes[i].allCodes() {
			require.Contains(t, problems, c)
			used[c] = true
		}
	}
	for c, info := range problems {
		require.True(t, used[c], "no route answers %s", c)
		require.NotEmpty(t, info.title+info.meaning+info.remedy)
	}
}

func TestEveryOutcomeIsMapped(t *testing.T) {
	for _, o := range sale.Outcomes {
		to, mapped := outcomes[o]
		require.True(t, mapped, o)
		require.NotEqual(t, to.status == 0, to.code == "", o)
		if to.code != "" {
			require.Contains(t, problems, to.code)
		}
	}
	require.Len(t, outcomes, len(sale.Outcomes))
}
