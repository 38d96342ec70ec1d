package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// good are requests that each route takes; the sweep spoils them one field at a time.
var good = map[string]string{
	"reserve": `{"reservation_id":"sweep-0001","sale":"sweep","customer":"c","device":"d","client_ip":"10.0.0.1",
		"tier":"gold","admission":"a.b","lines":[{"sku":"SOCK","qty":1,"location":"main"}]}`,
	"reserve short": `{"reservation_id":"sweep-0002","sale":"sweep","customer":"c","sku":"SOCK","qty":1,"location":"main"}`,
	"confirm":       `{"sale":"sweep","reservation_id":"nobody-01","order_id":"o"}`,
	"release":       `{"sale":"sweep","reservation_id":"nobody-01","keep":[{"sku":"SOCK","location":"main","qty":1}]}`,
	"extend":        `{"sale":"sweep","reservation_id":"nobody-01","extension":1}`,
	"cancel":        `{"sale":"sweep","reservation_id":"nobody-01","restock":true,"reason":"r"}`,
	"adjust": `{"adjustment_id":"a","sale":"sweep","sku":"SOCK","location":"main","field":"on_hand","delta":-1000,
		"reason":"r","reference":"f"}`,
	"adjust set":  `{"adjustment_id":"a","sale":"sweep","sku":"SOCK","location":"main","set":5,"expected":1,"reason":"r"}`,
	"pause-sale":  `{"reason":"r"}`,
	"resume-sale": `{"reason":"r"}`,
	"close-sale":  `{"reason":"r"}`,

	"resolve-dead-letter": `{"reason":"r"}`,

	"set-room":   `{"mode":"open","admit_per_second":5,"reason":"r"}`,
	"join-queue": `{"sale":"sweep","customer":"c","device":"d","client_ip":"10.0.0.1"}`,

	"release full": `{"sale":"sweep","reservation_id":"nobody-01"}`,
}

func routeOf(name string) *route {
	name, _, _ = strings.Cut(name, " ")
	return &routes[slices.IndexFunc(routes, func(r route) bool { return r.name == name })]
}

// hostile are texts that break what is careless.
var hostile = []string{
	`"`, `'`, `{}`, `{"a":1}`, `}{`, `[`, "\n", "a\nb", "\r\n", "\x00", "a\x00b", "\x7f", "\u0085", "\u2028", "é", "日本", "🎟️",
	"%00", "%0a", "../..", "*", "fg:{x}", "a;b", "a/b=1", " ", "", `\`, "<script>", "${x}", "%s%d", "KEYS[1]", "\u202e",
	strings.Repeat("a", 65), strings.Repeat("a", 129), strings.Repeat("x", 501), strings.Repeat("é", 10_000),
}

// wrongTypes are JSON texts that no field of text takes.
var wrongTypes = []string{"1", "-1", "1.5", "true", "null", "[]", "{}", `["a"]`, `{"a":"b"}`}

// numbers are JSON texts for a field of a number.
var numberTexts = []string{
	`"1"`, "null", "true", "[]", "{}", "1.0", "1.5", "1e2", "-1", "0", "-0", "1001", "1000001", "1000000001", "9223372036854775807",
	"9223372036854775808", "-9223372036854775809", "1e400", "12345678901234567890123456789012345678901234567890", `""`, `"NaN"`,
}

// allowed tells from the tags of a field, which are what is published, whether a text may stand
// there.
func allowed(f reflect.StructField, s string) bool {
	if strings.ContainsFunc(s, func(r rune) bool {
		return r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029'
	}) {
		return false
	}
	if p := f.Tag.Get("pattern"); p != "" && !regexp.MustCompile(p).MatchString(s) {
		return false
	}
	if e := f.Tag.Get("enum"); e != "" && !slices.Contains(strings.Split(e, ","), s) {
		return false
	}
	least, _ := strconv.Atoi(f.Tag.Get("minLength"))
	most, err := strconv.Atoi(f.Tag.Get("maxLength"))
	n := utf8.RuneCountInString(s)
	return n >= least && (err != nil || n <= most)
}

// spoiled is a body with one thing changed, and what the door must say of it: a code, and for an
// invalid request the pointer. An empty code is a body that the rules allow.
type spoiled struct {
	name, body string
	code       code
	pointer    string
}

// spoil makes all bad versions of an object by the type that it is decoded into.
func spoil(t reflect.Type, at string, object map[string]json.RawMessage, put func(map[string]json.RawMessage) string) []spoiled {
	var out []spoiled
	add := func(name, value string, bad bool, field, where string) {
		changed := map[string]json.RawMessage{}
		for k, v := range object {
			changed[k] = v
		}
		changed[field] = json.RawMessage(value)
		s := spoiled{name: where + " = " + name, body: put(changed), pointer: where}
		if bad {
			s.code = codeInvalidRequest
		}
		out = append(out, s)
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		where := at + "/" + name
		value, there := object[name]
		if !there {
			continue
		}
		// Missing.
		less := map[string]json.RawMessage{}
		for k, v := range object {
			if k != name {
				less[k] = v
			}
		}
		if !strings.Contains(rest, "omitempty") {
			s := spoiled{where + " missing", put(less), codeInvalidRequest, where}
			if name == "reservation_id" {
				s.code = codeMissingReservationID
			}
			out = append(out, s)
		}
		// Twice.
		twice := put(object)
		text := string(mustJSON(name)) + ":" + string(value)
		out = append(out, spoiled{where + " twice", strings.Replace(twice, text, text+","+text, 1), codeInvalidRequest, where})
		kind := f.Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		switch kind.Kind() {
		case reflect.String:
			for _, bad := range wrongTypes {
				add(bad, bad, true, name, where)
			}
			for _, s := range hostile {
				ok := allowed(f, s)
				if name == "client_ip" || name == "admission" {
					ok = ok && (name == "client_ip" && checkClientIP(s) == "" || name == "admission" && checkAdmission(s) == "")
				}
				add(fmt.Sprintf("%.20q", s), string(mustJSON(s)), !ok, name, where)
			}
		case reflect.Int64:
			least, _ := strconv.ParseInt(f.Tag.Get("minimum"), 10, 64)
			most, _ := strconv.ParseInt(f.Tag.Get("maximum"), 10, 64)
			for _, s := range numberTexts {
				n, err := strconv.ParseInt(s, 10, 64)
				add(s, s, err != nil || n < least || n > most || name == "delta" && n == 0, name, where)
			}
		case reflect.Bool:
			for _, s := range []string{`"true"`, "1", "0", "null", "[]", `""`} {
				add(s, s, true, name, where)
			}
		case reflect.Slice:
			var list []map[string]json.RawMessage
			if err := json.Unmarshal(value, &list); err != nil {
				panic(err)
			}
			item := string(mustJSON(list[0]))
			for _, s := range []string{`"x"`, "1", "null", "{}", "true", "[]", "[" + strings.Repeat(item+",", 20) + item + "]"} {
				add(fmt.Sprintf("%.20s", s), s, true, name, where)
			}
			for _, s := range []string{"[null]", "[1]", `["x"]`, "[[]]", "[" + item + ",2]"} {
				n := strings.Count(s, ",2]")
				changed := spoiled{name: where + " = " + s, code: codeInvalidRequest, pointer: where + "/" + strconv.Itoa(n)}
				more := map[string]json.RawMessage{}
				for k, v := range object {
					more[k] = v
				}
				more[name] = json.RawMessage(s)
				changed.body = put(more)
				out = append(out, changed)
			}
			out = append(out, spoil(kind.Elem(), where+"/0", list[0], func(o map[string]json.RawMessage) string {
				more := map[string]json.RawMessage{}
				for k, v := range object {
					more[k] = v
				}
				more[name] = json.RawMessage("[" + string(mustJSON(o)) + "]")
				return put(more)
			})...)
		}
	}
	for _, name := range []string{"unknown", "Sale", "sale ", "__proto__", "", "a/b~c", strings.Repeat("n", 5000), "\u0000"} {
		add("new "+name[:min(len(name), 9)], "1", true, name, at+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
	}
	return out
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// broken are bodies that are not one JSON document, or not an object.
func broken(body string) []spoiled {
	var out []spoiled
	for _, b := range []string{
		"", " ", "{", "}", `"`, "nul", "{]", "[}", "{,}", `{"a"}`, `{"a":}`, `{"a":1,}`, `{'a':1}`, "{\"a\":\"\n\"}", "{\"a\":\"\xff\"}",
		`{"a":"\ud800"}`, `{"a":"\x"}`, `{"a":01}`, `{"a":+1}`, `{"a":.5}`, `{"a":NaN}`, "\ufeff{}", body + body, body + "x", body + ",",
		strings.Repeat("[", 20_000), strings.Repeat(`{"a":`, 11_000), "\x00", "PK\x03\x04", "<xml/>", "a=b&c=d",
	} {
		out = append(out, spoiled{fmt.Sprintf("%.20q", b), b, codeMalformedBody, ""})
	}
	for n := 1; n < len(body); n += max(len(body)/25, 1) {
		out = append(out, spoiled{"cut at " + strconv.Itoa(n), body[:n], codeMalformedBody, ""})
	}
	for _, b := range []string{"[]", "1", `"text"`, "true", "null", "[" + body + "]"} {
		out = append(out, spoiled{b[:min(len(b), 20)], b, codeInvalidRequest, ""})
	}
	return out
}

// Every field of every route with what it must not have. No 5xx, the right problem, stock untouched.
func TestBadBodies(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("sweep", nil)
	before := r.get("/v1/availability?sale=sweep").want(t, http.StatusOK)
	covered := map[string]bool{"put-sale": true} // TestBadSales
	n := 0
	for name, body := range good {
		route := routeOf(name)
		covered[route.name] = true
		path := strings.NewReplacer("{sale}", "sweep", "{id}", "7").Replace(route.path)
		var object map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(body), &object), name)
		cases := spoil(route.bodyType(), "", object, func(o map[string]json.RawMessage) string { return string(mustJSON(o)) })
		for _, c := range append(cases, broken(string(mustJSON(object)))...) {
			n++
			if c.code == "" {
				c.checkAllowed(t, r, name, path)
				continue
			}
			res := r.post(path, c.body)
			doc := res.anyProblem(t)
			require.Equal(t, string(c.code), doc["code"], "%s: %s: %s", name, c.name, res.text)
			if c.code == codeInvalidRequest {
				at := c.pointer
				if len(at) > maxPointer {
					at = at[:maxPointer] + "..."
				}
				require.Contains(t, pointers(doc), at, "%s: %s: %s", name, c.name, res.text)
			}
		}
	}
	for i := range routes {
		require.True(t, routes[i].body == nil || covered[routes[i].name], routes[i].name)
	}
	after := r.get("/v1/availability?sale=sweep").want(t, http.StatusOK)
	delete(before, "as_of")
	delete(after, "as_of")
	require.Equal(t, before, after)
	require.Empty(t, r.logs.String())
	t.Logf("%d bodies", n)
}

// checkAllowed holds a body that no rule is against to its decoding only: sent, it would have its
// effect.
func (c *spoiled) checkAllowed(t *testing.T, r *rig, name, path string) {
	t.Helper()
	v, ok := reflect.New(routeOf(name).bodyType()).Interface().(body)
	require.True(t, ok)
	if p := decodeStrict([]byte(c.body), v, fields{}); p != nil {
		t.Errorf("%s: %s: refused: %v %v", name, c.name, p, p.errs)
	}
	if strings.HasPrefix(name, "confirm") || strings.HasPrefix(name, "extend") || strings.HasPrefix(name, "release") {
		r.post(path, c.body).anyProblem(t) // Of a reservation that does not exist.
	}
}

// The fast decoder never takes what the strict one refuses, nor reads it otherwise.
func TestFastDecodeAgreesWithStrict(t *testing.T) {
	for _, name := range []string{"reserve", "reserve short"} {
		var object map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(good[name]), &object))
		cases := spoil(reflect.TypeFor[ReserveRequest](), "", object, func(o map[string]json.RawMessage) string { return string(mustJSON(o)) })
		fast := 0
		for _, c := range append(cases, broken(good[name])...) {
			for _, key := range []string{"", "sweep-0001", "x"} {
				var a, b ReserveRequest
				p := decodeStrict([]byte(c.body), &b, fields{key: key})
				if decodeFast([]byte(c.body), &a, fields{key: key}) {
					require.Nil(t, p, "%s", c.body)
					require.Equal(t, b, a)
					fast++
				}
			}
		}
		require.Positive(t, fast)
		var v ReserveRequest
		require.True(t, decodeFast([]byte(good[name]), &v, fields{}))
	}
}

// A sale has a schema of its own; every value in it is spoiled.
func TestBadSales(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("sweep", nil)
	body := saleJSON("sweep", nil)
	put := func(text string) reply { return r.call("PUT", "/v1/admin/sales/sweep", text) }
	put(body).problem(t, codeIfMatchRequired) // Nothing is wrong with it but that.
	var values []string
	var doc any
	require.NoError(t, json.Unmarshal([]byte(body), &doc))
	for _, s := range hostile {
		values = append(values, string(mustJSON(s)))
	}
	values = append(append(values, numberTexts...), wrongTypes...)
	n := 0
	for _, at := range places(doc, nil) {
		for _, v := range append(values, "REMOVED") {
			n++
			res := put(string(mustJSON(replace(doc, at, v))))
			bad := res.anyProblem(t)
			require.Contains(t, []any{"invalid-request", "if-match-required"}, bad["code"], "%v = %s: %s", at, v, res.text)
		}
	}
	for _, part := range []string{`"sale":"sweep"`, `"sku":"SOCK"`, `"location":"main"`, `"on_hand":10`, `"hold_seconds":300`} {
		require.Contains(t, body, part)
		put(strings.Replace(body, part, part+","+part, 1)).problem(t, codeInvalidRequest)
	}
	for _, c := range broken(body) {
		// It stops at the first thing, which may be a field before the place where the JSON breaks.
		require.Contains(t, []any{string(c.code), string(codeInvalidRequest)}, put(c.body).anyProblem(t)["code"], c.name)
	}
	versions := r.get("/v1/admin/sales/sweep/versions").want(t, http.StatusOK)["versions"].([]any)
	require.Len(t, versions, 1)
	require.Empty(t, r.logs.String())
	for _, id := range []string{"UPPER", "a%22b", "%00", "-a", strings.Repeat("a", 64), "a.b", "%F0%9F%8E%9F"} {
		r.call("PUT", "/v1/admin/sales/"+id, body).problem(t, codeUnknownSale)
		r.get("/v1/admin/sales/"+id).problem(t, codeUnknownSale)
		r.get("/v1/admin/sales/"+id+"/versions").problem(t, codeUnknownSale)
		r.post("/v1/admin/sales/"+id+"/pause", `{"reason":"r"}`).problem(t, codeUnknownSale)
	}
	t.Logf("%d sales", n)
}

// places lists the path of every value in a document.
func places(v any, at []any) (out [][]any) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			out = append(out, places(e, append(slices.Clone(at), k))...)
		}
	case []any:
		for i, e := range v {
			out = append(out, places(e, append(slices.Clone(at), i))...)
		}
	}
	if len(at) > 0 {
		out = append(out, at)
	}
	return out
}

// replace copies a document with another value, as JSON text, at one place.
func replace(v any, at []any, value string) any {
	if len(at) == 0 {
		return json.RawMessage(value)
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			out[k] = e
		}
		k, _ := at[0].(string)
		if len(at) == 1 && value == "REMOVED" {
			delete(out, k)
			return out
		}
		out[k] = replace(v[k], at[1:], value)
		return out
	case []any:
		out := slices.Clone(v)
		i, _ := at[0].(int)
		if len(at) == 1 && value == "REMOVED" {
			return slices.Delete(out, i, i+1)
		}
		out[i] = replace(v[i], at[1:], value)
		return out
	}
	return v
}

// Every parameter of every query and path.
func TestBadParameters(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("sweep", nil)
	for i := range routes {
		route := &routes[i]
		if len(route.roles) == 0 || route.method != "GET" {
			continue
		}
		path := strings.NewReplacer("{sale}", "sweep", "{reservation}", "nobody-01").Replace(route.path)
		for _, q := range append(route.query, param{name: "unknown", check: func(string) string { return "bad" }}) {
			base := path + "?"
			for _, other := range route.query {
				if other.required && other.name != q.name {
					base += other.name + "=sweep&"
				}
			}
			for _, s := range hostile {
				if len(s) > 1000 || q.check(s) == "" {
					continue
				}
				doc := r.get(base+q.name+"="+percent(s)).problem(t, codeInvalidRequest)
				require.Contains(t, pointers(doc), "/"+q.name)
			}
			if q.name != "unknown" {
				fine := []string{"sweep", "7", "true"}
				v := fine[slices.IndexFunc(fine, func(v string) bool { return q.check(v) == "" })]
				doc := r.get(base+q.name+"="+v+"&"+q.name+"="+v).problem(t, codeInvalidRequest)
				require.Equal(t, []string{"/" + q.name}, pointers(doc))
			}
		}
		if !strings.Contains(route.path, "{") {
			continue
		}
		for _, s := range hostile {
			if s == "" || len(s) > 1000 {
				continue
			}
			bad := strings.NewReplacer("{sale}", percent(s), "{reservation}", percent(s)).Replace(route.path)
			if len(route.query) > 0 {
				bad += "?sale=sweep"
			}
			require.Equal(t, http.StatusNotFound, r.get(bad).StatusCode, bad)
		}
	}
	for _, key := range []string{"short", `"sweep-9999`, "a b c d e f g", strings.Repeat("a", 65), `"`, "ümlaut-ümlaut"} {
		res := r.call("POST", "/v1/reserve", `{"sale":"sweep","customer":"c","sku":"SOCK","qty":1}`, "Idempotency-Key", key)
		require.Equal(t, []string{"/reservation_id"}, pointers(res.problem(t, codeInvalidRequest)))
	}
	for _, tag := range []string{"*x", `"`, `"1`, `W/"1"`, "1", `""`, `"01"`, strings.Repeat(`"9",`, 1000), "\xff"} {
		r.call("PUT", "/v1/admin/sales/sweep", saleJSON("sweep", nil), "If-Match", tag).problem(t, codeVersionMismatch)
	}
	require.Empty(t, r.logs.String())
}

// percent encodes every byte.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

// The header stands for the id, and must not contradict it.
func TestIdempotencyKey(t *testing.T) {
	r := newRig(t, mini(t), nil)
	r.putSale("key", nil)
	without := `{"sale":"key","customer":"c","sku":"SOCK","qty":1}`
	r.post("/v1/reserve", without).problem(t, codeMissingReservationID)
	r.post("/v1/reserve", `{}`).problem(t, codeMissingReservationID)
	res := r.call("POST", "/v1/reserve", without, "Idempotency-Key", `"key-00001"`)
	require.Equal(t, "key-00001", res.want(t, http.StatusCreated)["reservation_id"])
	for _, body := range []string{without, `{"reservation_id":"key-00001",` + without[1:]} {
		res = r.call("POST", "/v1/reserve", body, "Idempotency-Key", "key-00001")
		res.want(t, http.StatusCreated)
		require.Equal(t, "true", res.Header.Get("Idempotent-Replayed"))
	}
	res = r.call("POST", "/v1/reserve", `{"reservation_id":"key-00001",`+without[1:], "Idempotency-Key", "key-00002")
	require.Equal(t, []string{"/reservation_id"}, pointers(res.problem(t, codeInvalidRequest)))
	both := `{"reservation_id":"key-00003","sale":"key","customer":"c","sku":"SOCK","lines":[{"sku":"SOCK","qty":1}]}`
	require.Equal(t, []string{"/lines"}, pointers(r.post("/v1/reserve", both).problem(t, codeInvalidRequest)))
	doc := r.post("/v1/reserve", `{"reservation_id":"key-00003","sale":"key","customer":"c"}`).problem(t, codeInvalidRequest)
	require.Equal(t, []string{"/lines"}, pointers(doc))
	doc = r.post("/v1/reserve", `{"reservation_id":"x","sale":"K","customer":"","lines":[{"sku":"!","qty":0,"location":""},{}],"a":1}`).problem(t, codeInvalidRequest)
	require.Equal(t, []string{
		"/a", "/reservation_id", "/sale", "/customer", "/lines/0/sku", "/lines/0/qty", "/lines/1/sku", "/lines/1/qty", "/lines/0/location",
	}, pointers(doc))
}
