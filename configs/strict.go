package configs

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"flashgate/sale"
)

// decodeJSON reads one JSON document into v and refuses unknown and repeated fields, wrong types and
// numbers that are not whole. It stops at the first of these.
func decodeJSON(b []byte, v any) error {
	err := json.Unmarshal(b, v, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	var syntactic *jsontext.SyntacticError
	var semantic *json.SemanticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntactic):
		return fieldError(syntactic.JSONPointer, "is there twice")
	case errors.As(err, &semantic):
		return fieldError(semantic.JSONPointer, expectation(semantic))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return malformed("the JSON ends too early")
	case errors.As(err, &syntactic):
		return malformed("not JSON at byte %d: %.120s", syntactic.ByteOffset, syntactic.Err)
	default:
		return malformed("not JSON: %.120s", err)
	}
}

func fieldError(at jsontext.Pointer, detail string) error {
	return newError([]sale.FieldError{{Pointer: short(string(at)), Detail: detail}})
}

// short keeps a name that somebody made up from filling the answer.
func short(at string) string {
	const most = 200
	if len(at) > most {
		return strings.ToValidUTF8(at[:most], "") + "..."
	}
	return at
}

// expectation says what is allowed where err happened.
func expectation(err *json.SemanticError) string {
	if errors.Is(err.Err, json.ErrUnknownName) {
		return "is not a field here; the fields are " + strings.Join(fieldNames(err.GoType), ", ")
	}
	var want string
	switch t := err.GoType; {
	case t == nil:
		return fmt.Sprintf("%.120s", err.Err)
	case reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()): // its own words
		return err.Err.Error()
	case t.Kind() == reflect.Int64, t.Kind() == reflect.Int, t.Kind() == reflect.Uint64:
		want = "a whole number"
	case t.Kind() == reflect.Float64:
		want = "a number"
	case t.Kind() == reflect.Bool:
		want = "true or false"
	case t.Kind() == reflect.String:
		want = "text"
	case t.Kind() == reflect.Slice:
		want = "a list"
	default:
		want = "an object with the fields " + strings.Join(fieldNames(t), ", ")
	}
	return fmt.Sprintf("must be %s, is %s", want, found(err))
}

func found(err *json.SemanticError) string {
	switch err.JSONKind {
	case '"':
		return "text"
	case '0':
		if err.JSONValue == nil {
			return "a number"
		}
		return fmt.Sprintf("the number %.40s", err.JSONValue)
	case 't', 'f':
		return "true or false"
	case '{', '}':
		return "an object"
	case '[', ']':
		return "a list"
	default:
		return "null"
	}
}

// fieldNames lists the JSON names of a struct, in its order.
func fieldNames(t reflect.Type) []string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	names := make([]string, t.NumField())
	for i := range names {
		names[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
	}
	return names
}
