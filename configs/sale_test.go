package configs

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

func TestExampleSalesAreValid(t *testing.T) {
	paths, err := filepath.Glob("sales/*.yaml")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(paths), 2)
	for _, path := range paths {
		c, err := LoadSale(path)
		require.NoError(t, err)
		require.Equal(t, strings.TrimSuffix(filepath.Base(path), ".yaml"), c.Sale)
		c.Resolve(1_800_000_000_000, nil)
		require.Empty(t, c.Validate(), path)
		embedded, err := fs.ReadFile(SaleFiles, path)
		require.NoError(t, err)
		again, err := DecodeSaleYAML(path, embedded)
		require.NoError(t, err)
		require.Equal(t, c.Items, again.Items)
	}
}

// Every field of the schema is in the annotated example, so that nobody has to read Go to find it.
func TestAnnotatedSaleNamesEveryField(t *testing.T) {
	b, err := os.ReadFile("sales/sneaker-drop.yaml")
	require.NoError(t, err)
	_, lines, err := yamlToJSON(b)
	require.NoError(t, err)
	for _, at := range schemaPointers(reflect.TypeFor[sale.Config](), "") {
		require.Contains(t, lines, at)
	}
}

// schemaPointers lists every field of a schema, through the first entry of its lists.
func schemaPointers(typ reflect.Type, at string) (all []string) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		if typ.Kind() == reflect.Slice {
			return schemaPointers(typ.Elem(), at+"/0")
		}
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return []string{at}
	}
	for i, name := range fieldNames(typ) {
		all = append(all, schemaPointers(typ.Field(i).Type, at+"/"+name)...)
	}
	return all
}

const okYAML = `sale: s
opens_at: 2026-11-27T10:00:00Z
closes_at: '2026-11-27T13:00:00+01:00' # an hour later
hold_seconds: 30
items:
  - sku: "A"
    stock:
      - {location: main, on_hand: 5}
      - location: two
        on_hand: 6
`

func TestYAMLAndJSONAreOneSchema(t *testing.T) {
	fromYAML, err := DecodeSaleYAML("s.yaml", []byte("\ufeff---\n"+okYAML+"...\n"))
	require.NoError(t, err)
	fromJSON, err := DecodeSaleJSON([]byte(`{"sale":"s","opens_at":"2026-11-27T10:00:00Z",
		"closes_at":"2026-11-27T12:00:00.000Z","hold_seconds":30,"items":[{"sku":"A","stock":
		[{"location":"main","on_hand":5},{"location":"two","on_hand":6}]}]}`))
	require.NoError(t, err)
	require.Equal(t, fromJSON, fromYAML)
	crlf, err := DecodeSaleYAML("s.yaml", []byte(strings.ReplaceAll(okYAML, "\n", "\r\n")))
	require.NoError(t, err)
	require.Equal(t, fromJSON, crlf)
}

func TestWrongSaleFileNamesFileLineFieldAndRule(t *testing.T) {
	edit := func(old, next string) string {
		require.Contains(t, okYAML, old)
		return strings.Replace(okYAML, old, next, 1)
	}
	for name, c := range map[string]struct {
		file string
		want string // the whole error, or its beginning when it ends with "..."
	}{
		"range":      {edit("on_hand: 6", "on_hand: -6"), "f.yaml:10: /items/0/stock/1/on_hand: must be 0 to 1000000000, is -6"},
		"flow":       {edit("on_hand: 5", "on_hand: 5, safety: 6"), "f.yaml:8: /items/0/stock/0/safety: must not be above on_hand (5), is 6"},
		"missing":    {edit("hold_seconds: 30\n", ""), "f.yaml:1: /hold_seconds: must be 5 to 86400, is 0"},
		"unknown":    {edit("hold_seconds", "hold_second"), "f.yaml:4: /hold_second: is not a field here; the fields are sale, title, ..."},
		"deep":       {edit("on_hand: 6", "onhand: 6"), "f.yaml:10: /items/0/stock/1/onhand: is not a field here; the fields are location, on_hand, safety"},
		"text":       {edit("30", "soon"), "f.yaml:4: /hold_seconds: must be a whole number, is text"},
		"fraction":   {edit("30", "30.5"), "f.yaml:4: /hold_seconds: must be a whole number, is the number 30.5"},
		"huge":       {edit("30", "99999999999999999999"), "f.yaml:4: /hold_seconds: must be a whole number, is the number 99999999999999999999"},
		"number":     {edit(`"A"`, "42"), "f.yaml:6: /items/0/sku: must be text, is a number"},
		"bool":       {edit(`"A"`, "true"), "f.yaml:6: /items/0/sku: must be text, is true or false"},
		"list":       {edit("30", "[30]"), "f.yaml:4: /hold_seconds: must be a whole number, is a list"},
		"object":     {edit("30", "{a: 1}"), "f.yaml:4: /hold_seconds: must be a whole number, is an object"},
		"no list":    {"items: {}", "f.yaml:1: /items: must be a list, is an object"},
		"no object":  {"caps: 3", "f.yaml:1: /caps: must be an object with the fields per_customer, per_order, tiers, is a number"},
		"date":       {edit("2026-11-27T10:00:00Z", "tomorrow"), `f.yaml:2: /opens_at: must be a time such as 2026-11-27T10:00:00Z, now, or now+2h30m, is "tomorrow"`},
		"epoch":      {edit("2026-11-27T10:00:00Z", "1969-12-31T23:59:59.999Z"), "f.yaml:2: /opens_at: must be a time such as ..."},
		"no time":    {edit("2026-11-27T10:00:00Z", "5"), "f.yaml:2: /opens_at: must be text: a time such as 2026-11-27T10:00:00Z, now, or now+2h30m"},
		"octal":      {edit("30", "0o36"), `f.yaml:4: "0o36": write a number in plain decimal digits, or text in quotes`},
		"twice":      {edit("hold_seconds: 30\n", "hold_seconds: 30\nhold_seconds: 31\n"), "f.yaml:5: /hold_seconds: is there twice"},
		"alias":      {edit("main", "&a main"), `f.yaml:8: "&": anchors, aliases, tags, merge keys, ? keys and directives are not supported`},
		"tag":        {edit("30", "!!int 30"), `f.yaml:4: "!!int": anchors, ...`},
		"second":     {okYAML + "---\n" + okYAML, "f.yaml:12: the file must have one document"},
		"tab":        {edit("  - sku", "\t- sku"), "f.yaml:6: ..."},
		"empty":      {"", "f.yaml: the file is empty"},
		"comment":    {"# nothing\n", "f.yaml: the file is empty"},
		"scalar":     {"sale", "f.yaml:1: must be an object with the fields sale, ..."},
		"binary":     {"\xff\xfe", "f.yaml: the file is not valid UTF-8"},
		"nested":     {strings.Repeat("[", 1000), "f.yaml:1: nested more than 16 deep"},
		"dashes":     {strings.Repeat("- ", 1000), "f.yaml:1: nested more than 16 deep"},
		"twice flow": {edit("on_hand: 5", "on_hand: 5, on_hand: 5"), "f.yaml:8: /items/0/stock/0/on_hand: is there twice"},
		"entries":    {strings.Repeat("-\n", 50_001), "f.yaml:50001: more than 50000 list entries, or 1000 fields"},
		"fields":     {strings.Repeat("a: {}\n", 1001), "f.yaml:1001: more than 50000 list entries, or 1000 fields"},
		"large":      {strings.Repeat("#", MaxFileBytes+1), "f.yaml: the file is larger than 1048576 bytes"},
		"not yaml":   {"sale: 'x\n", "f.yaml:1: ..."},
		"key":        {"1: x", `f.yaml:1: : a field name must be text, is "1"`},
		"infinity":   {edit("30", ".inf"), "f.yaml:4: /hold_seconds: ..."},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeSaleYAML("f.yaml", []byte(c.file))
			require.Error(t, err)
			if begin, cut := strings.CutSuffix(c.want, "..."); cut {
				require.True(t, strings.HasPrefix(err.Error(), begin), err.Error())
				return
			}
			got, _, _ := strings.Cut(err.Error(), "\n")
			require.Equal(t, c.want, got)
		})
	}
}

func TestAllRulesThatAreBrokenAreNamedAtOnce(t *testing.T) {
	_, err := DecodeSaleJSON([]byte(`{"sale":"S!","items":[{"sku":"","stock":[]}]}`))
	var e *Error
	require.ErrorAs(t, err, &e)
	require.False(t, e.Malformed)
	var at []string
	for _, f := range e.Fields() {
		at = append(at, f.Pointer)
	}
	require.Equal(t, []string{"/sale", "/opens_at", "/closes_at", "/hold_seconds", "/items/0/sku", "/items/0/stock"}, at)

	_, err = DecodeSaleJSON([]byte(`{"items":[` + strings.Repeat(`{},`, 5000) + `{}]}`))
	require.ErrorAs(t, err, &e)
	require.Len(t, e.Problems, maxProblems)
	require.Contains(t, err.Error(), fmt.Sprintf("and %d more", e.More))
}

func TestMalformedJSON(t *testing.T) {
	for _, body := range []string{"", "{", `{"sale":`, "nope", `{"sale":"x"} {}`, "{\"sale\":\"\xff\"}", strings.Repeat("[", 100_000)} {
		_, err := DecodeSaleJSON([]byte(body))
		var e *Error
		require.ErrorAs(t, err, &e, "%.40q", body)
	}
	_, err := DecodeSaleJSON([]byte(`{"sale":"a","sale":"b"}`))
	require.EqualError(t, err, "/sale: is there twice")
	_, err = DecodeSaleJSON([]byte(`{"` + strings.Repeat("x", 10_000) + `":1}`))
	require.Less(t, len(err.Error()), 500)
	_, err = DecodeSaleJSON([]byte("null"))
	require.Error(t, err)
}

func TestLoadSaleWithoutFile(t *testing.T) {
	_, err := LoadSale(filepath.Join(t.TempDir(), "none.yaml"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = LoadSale(t.TempDir())
	require.Error(t, err)
}

func FuzzDecodeSaleYAML(f *testing.F) {
	for _, path := range []string{"sales/demo.yaml", "sales/sneaker-drop.yaml"} {
		b, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add([]byte(okYAML))
	f.Add([]byte("a: |\n  b\n? c\n: &d [*d, !!int 5]\n<<: {}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkDecoded(t, func() (sale.Config, error) { return DecodeSaleYAML("f", b) })
	})
}

func FuzzDecodeSaleJSON(f *testing.F) {
	f.Add([]byte(`{"sale":"s","opens_at":"now","closes_at":"now+2h","hold_seconds":30,"items":[{"sku":"A","stock":[{"location":"main","on_hand":5}]}]}`))
	f.Add([]byte(`{"caps":{"per_customer":-1,"per_customer":1e3},"limits":{"ip":null},"queue":{"waitlist":{}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkDecoded(t, func() (sale.Config, error) { return DecodeSaleJSON(b) })
	})
}

// checkDecoded: whatever comes in, the outcome is a valid config that survives being written and
// read again, or an *Error with problems.
func checkDecoded(t *testing.T, decode func() (sale.Config, error)) {
	t.Helper()
	c, err := decode()
	if err != nil {
		var e *Error
		require.ErrorAs(t, err, &e)
		require.NotEmpty(t, e.Problems)
		require.NotEmpty(t, err.Error())
		return
	}
	require.Empty(t, c.Validate())
	b, err := json.Marshal(c)
	require.NoError(t, err)
	again, err := DecodeSaleJSON(b)
	require.NoError(t, err)
	require.Equal(t, c, again)
}
