package configs

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

const envPrefix = "FLASHGATE_"

// DevKeyEnv names the variable with the API key of the embedded stack; it is no part of Config.
const DevKeyEnv = envPrefix + "DEV_KEY"

// serviceLink matches the variables that Kubernetes sets for a service whose name begins with
// flashgate. They are nobody's typo.
var serviceLink = regexp.MustCompile(
	`_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// applyEnv sets what FLASHGATE_* variables name, a list separated by commas, and notes each as the
// source of its field. An empty variable counts as not set; one that nobody knows is a problem.
func applyEnv(c *Config, environ []string, from sources) error {
	known := map[string]field{}
	for _, f := range c.fields() {
		known[f.env] = f
	}
	var e Error
	for _, pair := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, envPrefix) || name == DevKeyEnv || value == "" {
			continue
		}
		f, ok := known[name]
		if !ok {
			if !serviceLink.MatchString(name) {
				e.Problems = append(e.Problems, Problem{
					Source: name, Detail: "no such setting; did you mean " + nearest(name, known) + "?",
				})
			}
			continue
		}
		from[f.pointer] = source{name: name}
		// One variable at a time, so that an error can name it.
		key := strings.ToLower(strings.TrimPrefix(name, envPrefix))
		err := env.ParseWithOptions(c, env.Options{Environment: map[string]string{key: value}, TagName: "json"})
		if err != nil {
			e.Problems = append(e.Problems, Problem{Source: name, Detail: envExpectation(f, value)})
		}
	}
	if len(e.Problems) > 0 {
		return &e
	}
	return nil
}

func envExpectation(f field, value string) string {
	want := "text"
	switch f.value.Kind() {
	case reflect.Int64:
		want = "a whole number"
	case reflect.Bool:
		want = "true or false"
	}
	return fmt.Sprintf("must be %s, is %.40q", want, value)
}

// nearest is the known name with the fewest edits from a wrong one.
func nearest(name string, known map[string]field) (best string) {
	least := -1
	for _, k := range append([]string{DevKeyEnv}, sortedKeys(known)...) {
		if d := edits(name, k); least < 0 || d < least {
			best, least = k, d
		}
	}
	return best
}

func sortedKeys(m map[string]field) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
