package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"flashgate/sale"
)

const (
	maxFieldErrors = 100 // of one answer: a small body can be wrong in many places
	maxPointer     = 200 // bytes of a pointer that somebody made up
	maxAdmission   = 2048
)

// body is a request body that knows its rules.
type body interface{ check(f *fields) }

// fields collects what is wrong with the fields of a request. Without present, an optional field
// counts as given when it is not empty.
type fields struct {
	errs    []sale.FieldError
	bad     map[string]bool
	present map[string]bool
	// key is the Idempotency-Key of a reserve, which may stand for its reservation_id.
	key string
	// byToken: a customer asks for themselves.
	byToken bool
}

// wrong notes what is wrong with a field; only the first thing, and nothing below a wrong one.
func (f *fields) wrong(at, detail string, args ...any) {
	if len(f.errs) >= maxFieldErrors || f.isBad(at) {
		return
	}
	if f.bad == nil {
		f.bad = map[string]bool{}
	}
	f.bad[at] = true
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	if len(at) > maxPointer {
		at = strings.ToValidUTF8(at[:maxPointer], "") + "..."
	}
	f.errs = append(f.errs, sale.FieldError{Pointer: at, Detail: detail})
}

func (f *fields) isBad(at string) bool {
	if len(f.bad) == 0 {
		return false
	}
	for ; at != ""; at = at[:strings.LastIndexByte(at, '/')] {
		if f.bad[at] {
			return true
		}
	}
	return false
}

// must notes a detail that a check returned; "" is fine.
func (f *fields) must(at, detail string) {
	if detail != "" {
		f.wrong(at, "%s", detail)
	}
}

// required checks a field that must be there.
func (f *fields) required(at, value string, check func(string) string) {
	if f.given(at, value != "") {
		f.must(at, check(value))
		return
	}
	f.wrong(at, "is required")
}

// optional checks a field that may be absent.
func (f *fields) optional(at, value string, check func(string) string) {
	if f.given(at, value != "") {
		f.must(at, check(value))
	}
}

func (f *fields) given(at string, notEmpty bool) bool {
	if f.present == nil {
		return notEmpty
	}
	return f.present[at]
}

func (f *fields) between(at string, n, least, most int64) {
	if n < least || n > most {
		f.wrong(at, "must be %d to %d, is %d", least, most, n)
	}
}

func (f *fields) lines(at string, lines []sale.Line, open bool) {
	for _, e := range sale.CheckLines(lines, at, open) {
		f.wrong(e.Pointer, "%s", e.Detail)
	}
	if !open || len(f.present) == 0 {
		return
	}
	for i := range lines {
		if here := fmt.Sprintf("%s/%d/location", at, i); f.present[here] {
			f.must(here, sale.CheckName(lines[i].Location))
		}
	}
}

// decodeFast reads a body in one pass of the typed decoder, and answers ok only when nothing at
// all is wrong with it. Null, and empty text, which mean something else than an absent field, are
// left to decodeStrict too.
func decodeFast(b []byte, v body, f fields) (ok bool) {
	if bytes.Contains(b, []byte("null")) || bytes.Contains(b, []byte(`""`)) {
		return false
	}
	if json.Unmarshal(b, v, strictJSON) != nil {
		return false
	}
	v.check(&f)
	return len(f.errs) == 0
}

var strictJSON = json.RejectUnknownMembers(true)

// decodeStrict reads a body field by field and says everything that is wrong with it: fields that
// are unknown, repeated, of the wrong type or absent, and then what the fields say. v points at a
// struct of text, whole numbers, booleans, pointers to these, and lists of structs.
func decodeStrict(b []byte, v body, with fields) *problem {
	f := &with
	f.present = map[string]bool{}
	d := decoderPool.Get().(*jsontext.Decoder)
	defer decoderPool.Put(d)
	d.Reset(bytes.NewReader(b), jsontext.AllowDuplicateNames(true))
	if err := f.value(d, reflect.ValueOf(v).Elem(), ""); err != nil {
		return malformed(err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return refuse(codeMalformedBody, "Something follows the JSON document.")
	}
	if !f.bad[""] {
		v.check(f)
	}
	if len(f.errs) > 0 {
		if f.errs[0].Pointer == "/reservation_id" && f.errs[0].Detail == missingID {
			return refuse(codeMissingReservationID, "The request names no reservation_id.")
		}
		return invalid(f.errs...)
	}
	return nil
}

// missingID is what check says of a reservation id that is not there: it has a code of its own.
const missingID = "is required: the reservation id"

var decoderPool = sync.Pool{New: func() any { return jsontext.NewDecoder(bytes.NewReader(nil)) }}

func malformed(err error) *problem {
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return refuse(codeMalformedBody, "The JSON ends too early.")
	case errors.As(err, &syntactic):
		return refuse(codeMalformedBody, "Not JSON at byte %d: %s", syntactic.ByteOffset,
			strings.ToValidUTF8(fmt.Sprintf("%.120s", syntactic.Err), "?"))
	case errors.Is(err, io.EOF):
		return refuse(codeMalformedBody, "The body is empty; it must be a JSON object.")
	default:
		return refuse(codeMalformedBody, "Not one JSON document: %.120s", err)
	}
}

// value reads the next JSON value into v. The error is only that of the JSON itself.
func (f *fields) value(d *jsontext.Decoder, v reflect.Value, at string) error {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	want, kinds := expected(v.Type())
	kind := d.PeekKind()
	if kind == 0 {
		_, err := d.ReadToken()
		return err
	}
	if !strings.ContainsRune(kinds, rune(kind)) {
		f.wrong(at, "must be %s, is %s", want, kindName(kind))
		return d.SkipValue()
	}
	switch v.Kind() {
	case reflect.Struct:
		return f.object(d, v, at)
	case reflect.Slice:
		return f.list(d, v, at)
	}
	t, err := d.ReadToken()
	if err != nil {
		return err
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(t.String())
	case reflect.Bool:
		v.SetBool(t.Bool())
	default:
		n, err := strconv.ParseInt(t.String(), 10, 64)
		if err != nil {
			f.wrong(at, "must be a whole number in plain digits, is %.40s", t.String())
		}
		v.SetInt(n)
	}
	return nil
}

func expected(t reflect.Type) (want, kinds string) {
	switch t.Kind() {
	case reflect.Struct:
		return "an object", "{"
	case reflect.Slice:
		return "a list", "["
	case reflect.String:
		return "text", `"`
	case reflect.Bool:
		return "true or false", "tf"
	default:
		return "a whole number", "0"
	}
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "true or false"
	case '"':
		return "text"
	case '0':
		return "a number"
	case '{':
		return "an object"
	default:
		return "a list"
	}
}

func (f *fields) object(d *jsontext.Decoder, v reflect.Value, at string) error {
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() == '"' {
		t, err := d.ReadToken()
		if err != nil {
			return err
		}
		name := t.String()
		here := string(jsontext.Pointer(at).AppendToken(name))
		field := fieldOf(v, name)
		switch {
		case !field.IsValid():
			f.wrong(here, "is not a field here; the fields are %s", strings.Join(fieldNames(v.Type()), ", "))
			err = d.SkipValue()
		case f.present[here]:
			f.wrong(here, "is there twice")
			err = d.SkipValue()
		default:
			f.present[here] = true
			err = f.value(d, field, here)
		}
		if err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

func (f *fields) list(d *jsontext.Decoder, v reflect.Value, at string) error {
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	n := 0
	for k := d.PeekKind(); k != ']' && k != 0; k = d.PeekKind() {
		// One more than allowed is enough for the check to refuse the list.
		if n > sale.MaxLines {
			if err := d.SkipValue(); err != nil {
				return err
			}
			continue
		}
		item := reflect.New(v.Type().Elem()).Elem()
		if err := f.value(d, item, at+"/"+strconv.Itoa(n)); err != nil {
			return err
		}
		v.Set(reflect.Append(v, item))
		n++
	}
	_, err := d.ReadToken()
	return err
}

func fieldOf(v reflect.Value, name string) reflect.Value {
	for i := range v.NumField() {
		if n, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); n == name {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

func fieldNames(t reflect.Type) []string {
	names := make([]string, t.NumField())
	for i := range names {
		names[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
	}
	return names
}

// checkClientIP returns what is wrong with the address of a shopper, or "".
func checkClientIP(s string) string {
	if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" {
		return "must be an IPv4 or IPv6 address"
	}
	return ""
}

// checkAdmission returns what is wrong with the form of an admission token, or "".
func checkAdmission(s string) string {
	if len(s) == 0 || len(s) > maxAdmission || strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~'
	}) {
		return fmt.Sprintf("must be 1 to %d visible ASCII characters", maxAdmission)
	}
	return ""
}

// isJSON tells whether a Content-Type is application/json; as charset only UTF-8 will do.
func isJSON(contentType string) bool {
	media, params, _ := strings.Cut(contentType, ";")
	if !strings.EqualFold(strings.TrimSpace(media), "application/json") {
		return false
	}
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		if strings.EqualFold(name, "charset") && !strings.EqualFold(strings.Trim(value, `"`), "utf-8") {
			return false
		}
	}
	return true
}

// printable keeps what a client made up short and harmless in a detail.
func printable(s string) string {
	const most = 64
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "?")
	}
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strconv.Quote(s)
}
