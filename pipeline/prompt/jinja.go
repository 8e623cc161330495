package prompt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/exec"
)

// maxRange bounds the numbers that all calls of range in one rendering may give together. Templates come from
// downloaded files: this is the only loop that their own text does not bound.
const maxRange = 100_000

// environment is what templates can use: gonja's own, and what Jinja or transformers do differently.
func environment() (*exec.Environment, error) {
	filters := exec.NewFilterSet(map[string]exec.FilterFunction{}).Update(builtins.Filters)
	if err := filters.Replace("tojson", toJSON); err != nil {
		return nil, err
	}
	methods := builtins.Methods
	methods.Str = stringMethods()
	return &exec.Environment{
		Context: exec.EmptyContext().Update(builtins.GlobalFunctions).Update(exec.NewContext(map[string]any{
			"strftime_now": func(format string) (string, error) { return strftime(time.Now(), format) },
		})),
		Filters:           filters,
		Tests:             builtins.Tests,
		ControlStructures: builtins.ControlStructures,
		Methods:           methods,
	}, nil
}

// stringMethods are gonja's, and a replace whose count may be left out as in Python.
func stringMethods() *exec.MethodSet[string] {
	set := map[string]exec.Method[string]{}
	for _, name := range []string{
		"capitalize", "capwords", "casefold", "center", "count", "encode", "endswith", "expandtabs", "find", "format", "format_map",
		"isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper",
		"join", "ljust", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "rfind", "rjust", "rpartition", "rsplit", "rstrip",
		"split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill",
	} {
		if method, ok := builtins.Methods.Str.Get(name); ok {
			set[name] = method
		}
	}
	set["replace"] = func(self string, _ *exec.Value, args *exec.VarArgs) (any, error) {
		var before, after string
		count := -1
		if err := args.Take(
			exec.PositionalArgument("old", nil, exec.StringArgument(&before)),
			exec.PositionalArgument("new", nil, exec.StringArgument(&after)),
			exec.PositionalArgument("count", exec.AsValue(-1), exec.IntArgument(&count)),
		); err != nil {
			return nil, exec.ErrInvalidCall(err)
		}
		return strings.Replace(self, before, after, count), nil
	}
	return exec.NewMethodSet(set)
}

// boundedRange is Python's range. (gonja's own one leaves a goroutine behind when a loop is left early.)
func boundedRange() func(args ...int) ([]int, error) {
	left := maxRange
	return func(args ...int) ([]int, error) {
		start, stop, step := 0, 0, 1
		switch len(args) {
		case 1:
			stop = args[0]
		case 2:
			start, stop = args[0], args[1]
		case 3:
			start, stop, step = args[0], args[1], args[2]
		default:
			return nil, fmt.Errorf("range takes 1 to 3 numbers, got %d", len(args))
		}
		if step == 0 {
			return nil, fmt.Errorf("range: the step is 0")
		}
		out := []int{}
		for i := start; (step > 0 && i < stop) || (step < 0 && i > stop); i += step {
			if left == 0 {
				return nil, fmt.Errorf("range: more than %d numbers in one prompt", maxRange)
			}
			left--
			out = append(out, i)
		}
		return out, nil
	}
}

// toJSON writes JSON as Python does, with blanks after commas and colons; the keys of objects are sorted.
func toJSON(_ *exec.Evaluator, in *exec.Value, args *exec.VarArgs) *exec.Value {
	if in.IsError() {
		return in
	}
	indent := 0
	for name, value := range args.KwArgs {
		switch {
		case name == "indent" && value.IsInteger():
			indent = value.Integer()
		case name == "ensure_ascii" && !value.IsTrue(), name == "indent" && value.IsNil(), name == "sort_keys":
		default:
			return exec.AsValue(fmt.Errorf("tojson: %s=%s is not supported", name, value.String()))
		}
	}
	plain := in.ToGoSimpleType(false)
	if err, ok := plain.(error); ok {
		return exec.AsValue(fmt.Errorf("tojson: %w", err))
	}
	var compact bytes.Buffer
	enc := json.NewEncoder(&compact)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(plain); err != nil {
		return exec.AsValue(fmt.Errorf("tojson: %w", err))
	}
	data := bytes.TrimSpace(compact.Bytes())
	if indent > 0 {
		var out bytes.Buffer
		if err := json.Indent(&out, data, "", strings.Repeat(" ", indent)); err != nil {
			return exec.AsValue(fmt.Errorf("tojson: %w", err))
		}
		return exec.AsSafeValue(out.String())
	}
	return exec.AsSafeValue(spaced(data))
}

// spaced puts a blank after every comma and colon outside strings.
func spaced(data []byte) string {
	out := make([]byte, 0, len(data)+len(data)/8)
	inString := false
	for i := 0; i < len(data); i++ {
		c := data[i]
		out = append(out, c)
		switch {
		case inString && c == '\\':
			i++
			out = append(out, data[i])
		case c == '"':
			inString = !inString
		case !inString && (c == ',' || c == ':'):
			out = append(out, ' ')
		}
	}
	return string(out)
}
