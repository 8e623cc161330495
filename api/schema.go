package api

import (
	"encoding"
	"encoding/json"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// object is a piece of an OpenAPI document.
type object = map[string]any

// schemas makes JSON schemas of Go types. Named structs become components and are referred to, so the document is true by
// construction: what it says of a body is what the decoder takes or the encoder writes.
//
// A request's field may carry a tag schema:"..." with more than its type says, parts with semicolons between: min=0, max=1,
// minLength=1, required, enum= with JSON values and commas between, and example= with a JSON value.
type schemas struct {
	components object
	limits     map[string]any // values of parts such as max=@tokens
	request    bool           // fields may be left out and be null, and others are refused
}

// describer is a type that says itself how it looks in JSON.
type describer interface{ schema(*schemas) object }

// embedded is a map whose entries stand among the fields of the struct around it, and that says itself which there may be.
type embedded interface{ properties() object }

var (
	describerType = reflect.TypeFor[describer]()
	marshalerType = reflect.TypeFor[json.Marshaler]()
	textType      = reflect.TypeFor[encoding.TextMarshaler]()
)

// of returns the schema of a type.
func (s *schemas) of(t reflect.Type) object {
	switch {
	case t.Kind() == reflect.Pointer:
		return nullable(s.of(t.Elem()))
	case t.Implements(describerType):
		return reflect.Zero(t).Interface().(describer).schema(s)
	case t.Implements(textType):
		return object{"type": "string"}
	case t.Implements(marshalerType), t.PkgPath() != "" && strings.HasSuffix(t.PkgPath(), "/jsontext"):
		return object{"nullable": true}
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if s.request {
			return object{"type": "integer", "minimum": math.MinInt64, "maximum": math.MaxInt64}
		}
		return object{"type": "integer"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Slice:
		return object{"type": "array", "items": s.of(t.Elem()), "nullable": true}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem()), "nullable": true}
	case reflect.Struct:
		return s.component(t)
	default:
		return object{"nullable": true} // an interface: anything
	}
}

// nullable lets a value be null too. A reference cannot say so itself.
func nullable(schema object) object {
	if _, reference := schema["$ref"]; reference {
		return object{"allOf": []object{schema}, "nullable": true}
	}
	schema["nullable"] = true
	return schema
}

// component puts a struct among the components and returns a reference to it.
func (s *schemas) component(t reflect.Type) object {
	name := t.Name()
	if name == "" {
		return s.fields(t)
	}
	if path := t.PkgPath(); !strings.HasSuffix(path, "/api") {
		name = path[strings.LastIndex(path, "/")+1:] + "." + name
	}
	if _, known := s.components[name]; !known {
		s.components[name] = nil // types may refer to themselves
		s.components[name] = s.fields(t)
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// fields is the schema of a struct itself.
func (s *schemas) fields(t reflect.Type) object {
	properties, required := object{}, []string{}
	s.collect(t, properties, &required)
	schema := object{"type": "object", "properties": properties}
	if s.request {
		schema["additionalProperties"] = false
	}
	if len(required) > 0 {
		schema["required"] = required
	}
	return schema
}

// collect adds a struct's fields, with those of the structs and maps in it that have no name of their own.
func (s *schemas) collect(t reflect.Type, properties object, required *[]string) {
	var named []reflect.StructField
	for field := range structFields(t) {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		kind := field.Type
		if kind.Kind() == reflect.Pointer && field.Anonymous {
			kind = kind.Elem()
		}
		switch {
		case name == "-":
		case options == "embed":
			maps.Copy(properties, reflect.Zero(kind).Interface().(embedded).properties())
		case field.Anonymous && name == "":
			s.collect(kind, properties, required)
		case name != "":
			named = append(named, field)
		}
	}
	for _, field := range named { // they hide what was embedded
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		schema := s.of(field.Type)
		if s.request {
			schema = nullable(schema)
		}
		must := s.tagged(schema, field.Tag.Get("schema")) || !s.request && !strings.Contains(options, "omit")
		if must && !slices.Contains(*required, name) {
			*required = append(*required, name)
		}
		properties[name] = schema
	}
}

// structFields are those that JSON sees.
func structFields(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for field := range t.Fields() {
			if (field.IsExported() || field.Anonymous) && !yield(field) {
				return
			}
		}
	}
}

// tagValue is a JSON value in a tag.
func tagValue(text string) (value any) {
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		panic("schema tag: " + text + ": " + err.Error())
	}
	return value
}

// tagged adds what a tag says and reports whether the field is required, which also means that it cannot be null.
func (s *schemas) tagged(schema object, tag string) (required bool) {
	for part := range strings.SplitSeq(tag, ";") {
		name, text, _ := strings.Cut(part, "=")
		value := s.limits[strings.TrimPrefix(text, "@")]
		if number, err := strconv.ParseFloat(text, 64); err == nil {
			value = number
		}
		switch name {
		case "required":
			required = true
			delete(schema, "nullable")
		case "min":
			schema["minimum"] = value
		case "max":
			schema["maximum"] = value
		case "minLength", "maxLength", "minItems", "maxItems":
			schema[name] = value
		case "enum":
			values := tagValue("[" + text + "]").([]any)
			schema["enum"] = append(values, nil)
			if required {
				schema["enum"] = values
			}
		case "example":
			schema["example"] = tagValue(text)
		}
	}
	return required
}
