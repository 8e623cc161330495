package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"
)

// mediaTypes are the types of a body that is read as JSON. The last is what curl says unless told otherwise.
var mediaTypes = []string{"application/json", "application/x-www-form-urlencoded"}

// decode reads a request's body into a struct, strictly. Without a body, or with an empty one, the struct stays as it was.
func decode(c echo.Context, into any) error {
	body, err := io.ReadAll(c.Request().Body)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fail(codeTimeout, "the body did not arrive in time")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalid("", "the body ends before its announced length")
	case err != nil:
		return err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if text := c.Request().Header.Get(echo.HeaderContentType); text != "" {
		name, _, err := mime.ParseMediaType(text)
		if err != nil || name != mediaTypes[0] && name != mediaTypes[1] {
			return fail(codeMediaType, "the body is of type %q, want application/json", text)
		}
	}
	return decodeText(body, into)
}

// decodeText is decode for a body that has arrived.
func decodeText(body []byte, into any) error {
	err := json.Unmarshal(body, into, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	var f *failure
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.As(err, &syntactic):
		if errors.Is(syntactic.Err, jsontext.ErrDuplicateName) {
			return invalid(place(syntactic.JSONPointer), "%s comes twice", quotedPlace(syntactic.JSONPointer))
		}
		return invalid(place(syntactic.JSONPointer), "the body is no valid JSON at byte %d: %w", syntactic.ByteOffset, syntactic.Err)
	case errors.As(err, &semantic):
		param := place(semantic.JSONPointer)
		switch {
		case errors.Is(semantic.Err, json.ErrUnknownName):
			return invalid(param, "unknown field %s", quotedPlace(semantic.JSONPointer))
		case errors.As(semantic.Err, &f):
			return &failure{code: f.code, param: join(param, f.param), err: f.err}
		}
		return invalid(param, "%s: %w", quotedPlace(semantic.JSONPointer), mismatch(semantic))
	}
	return invalid("", "the body cannot be read: %w", err)
}

// numbers decodes a list of whole numbers, or null. A null in it, which a decoder takes for 0 otherwise, is an error.
func numbers[T int | int64](decoder *jsontext.Decoder) ([]T, error) {
	var pointers []*T
	if err := json.UnmarshalDecode(decoder, &pointers); err != nil || pointers == nil {
		return nil, err
	}
	list := make([]T, len(pointers))
	for i, p := range pointers {
		if p == nil {
			return nil, invalid(fmt.Sprintf("[%d]", i), "got null, want a whole number")
		}
		list[i] = *p
	}
	return list, nil
}

// mismatch says what was wrong with a value, without the names of Go types.
func mismatch(e *json.SemanticError) error {
	kind := "a value of another kind"
	if e.GoType != nil {
		switch name := e.GoType.Kind().String(); {
		case strings.HasPrefix(name, "int"), strings.HasPrefix(name, "uint"):
			kind = "a whole number"
		case strings.HasPrefix(name, "float"):
			kind = "a number"
		case name == "string":
			kind = "a string"
		case name == "bool":
			kind = "true or false"
		case name == "slice":
			kind = "a list"
		case name == "struct", name == "map":
			kind = "an object"
		}
	}
	got := map[jsontext.Kind]string{'n': "null", 'f': "false", 't': "true", '"': "a string", '0': "a number", '{': "an object", '[': "a list"}[e.JSONKind]
	if len(e.JSONValue) > 0 && len(e.JSONValue) < 40 {
		got = string(e.JSONValue)
	}
	if got == "" {
		return fmt.Errorf("want %s", kind)
	}
	return fmt.Errorf("got %s, want %s", got, kind)
}

// place writes a JSON pointer as programs do: messages[0].content.
func place(pointer jsontext.Pointer) string {
	var out strings.Builder
	for token := range pointer.Tokens() {
		if token != "" && strings.Trim(token, "0123456789") == "" {
			fmt.Fprintf(&out, "[%s]", token)
			continue
		}
		if out.Len() > 0 {
			out.WriteByte('.')
		}
		out.WriteString(token)
	}
	return out.String()
}

// quotedPlace is place for a sentence.
func quotedPlace(pointer jsontext.Pointer) string {
	if pointer == "" {
		return "the body"
	}
	return fmt.Sprintf("%q", place(pointer))
}

// join puts a place before one inside it.
func join(outer, inner string) string {
	switch {
	case outer == "":
		return inner
	case inner == "", inner[0] == '[':
		return outer + inner
	}
	return outer + "." + inner
}
