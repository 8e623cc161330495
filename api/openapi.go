package api

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline/media"
	"github.com/omni-run/omni/profiler/archive"
)

// operation is what the document says of a route beside what the table of routes does.
type operation struct {
	summary string
	query   []parameter
	request any // a value of the body's type, nil if there is none
	answers []answer
	fails   []int // statuses of errors, beside those that follow from what is said here
}

// parameter is one of an operation's query parameters.
type parameter struct {
	name, text string
	schema     object
	required   bool
	example    any // nil for none
}

// answer is one of an operation's good answers.
type answer struct {
	status int
	text   string
	media  string // application/json if empty
	body   any    // a value of the body's type; nil for raw content
}

// pathExamples are values of the parameters in paths.
var pathExamples = map[string]string{"session": "s1", "file": archive.MergedName}

// paramName is a parameter in a path of echo's.
var paramName = regexp.MustCompile(`:(\w+)`)

// openAPI makes the document of the server's routes.
func (s *Server) openAPI() object {
	limits := map[string]any{
		"tokens": s.cfg.Limits.MaxTokens, "stages": len(s.cfg.Engine.Stages()),
		"profile_seconds": s.cfg.Limits.ProfileSeconds,
	}
	out := &schemas{components: object{}, limits: limits}
	in := &schemas{components: object{}, limits: limits, request: true}
	paths := object{}
	for _, r := range s.routes() {
		if strings.HasSuffix(r.path, "*") {
			continue // what the page is made of
		}
		op := operations[r.method+" "+r.path]
		path := paramName.ReplaceAllString(r.path, "{$1}")
		item, ok := paths[path].(object)
		if !ok {
			item = object{}
			paths[path] = item
		}
		item[strings.ToLower(r.method)] = s.describe(r, op, in, out)
	}
	for name, schema := range in.components {
		out.components[name] = schema
	}
	document := object{
		"openapi": "3.0.3",
		"info": object{
			"title": "omni", "version": s.cfg.Version,
			"description": "Any-to-any models: OpenAI's routes for text and speech, metrics, and control of profiling.",
		},
		"paths":      paths,
		"components": object{"schemas": out.components},
	}
	if s.cfg.APIKey != "" || s.cfg.ProfileKey != "" {
		document["components"].(object)["securitySchemes"] = object{"key": object{"type": "http", "scheme": "bearer"}}
	}
	return document
}

// content1 is a content of one media type.
func content1(media string, schema object) object { return object{media: object{"schema": schema}} }

// failures says what the statuses of errors mean.
var failures = map[int]string{
	http.StatusBadRequest:                   "the request is at fault; error.param says where",
	http.StatusUnauthorized:                 "no key, or a wrong one",
	http.StatusForbidden:                    "sent by a page of another site, or to a name that is not this machine's",
	http.StatusNotFound:                     "there is no such thing",
	http.StatusRequestTimeout:               "the body did not arrive in time",
	http.StatusConflict:                     "it cannot be done at the moment; the message says why",
	http.StatusPreconditionFailed:           "the file is another than the request supposes",
	http.StatusRequestEntityTooLarge:        "the body is too large",
	http.StatusUnsupportedMediaType:         "the body is no JSON",
	http.StatusRequestedRangeNotSatisfiable: "the file has no such part",
	http.StatusTooManyRequests:              "as many requests wait as may; Retry-After says when to try again",
	http.StatusInternalServerError:          "the server has a fault",
	http.StatusNotImplemented:               "the machine or the model cannot do this",
	http.StatusServiceUnavailable:           "a worker died, or the server is about to end",
	http.StatusGatewayTimeout:               "the request took too long",
}

// fails lists the statuses of errors that an operation can have.
func (s *Server) fails(r route, op operation) []int {
	list := append(slices.Clone(op.fails), http.StatusInternalServerError)
	if s.wantedKey(r) != "" {
		list = append(list, http.StatusUnauthorized)
	}
	if s.cfg.Local || r.method != http.MethodGet && r.method != http.MethodHead {
		list = append(list, http.StatusForbidden)
	}
	if op.request != nil {
		list = append(list, http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if len(op.query) > 0 {
		list = append(list, http.StatusBadRequest)
	}
	if paramName.MatchString(r.path) {
		list = append(list, http.StatusNotFound)
	}
	return list
}

// describe is one operation of the document.
func (s *Server) describe(r route, op operation, in, out *schemas) object {
	responses := object{}
	for _, status := range s.fails(r, op) {
		response := object{"description": failures[status]}
		if r.method != http.MethodHead {
			response["content"] = content1("application/json", out.of(reflect.TypeFor[errorBody]()))
		}
		responses[strconv.Itoa(status)] = response
	}
	for _, a := range op.answers {
		kind := a.media
		if kind == "" {
			kind = "application/json"
		}
		schema := object{"type": "string"}
		if kind == "text/event-stream" {
			schema = object{} // what a schema of a stream describes is not agreed
		}
		if a.body != nil {
			schema = out.of(reflect.TypeOf(a.body))
		}
		status := strconv.Itoa(a.status)
		response, ok := responses[status].(object)
		if !ok {
			response = object{"description": a.text, "content": object{}}
			responses[status] = response
		}
		if a.status != http.StatusNoContent && a.status != http.StatusNotModified && r.method != http.MethodHead {
			response["content"].(object)[kind] = object{"schema": schema}
		}
	}
	described := object{"summary": op.summary, "responses": responses, "operationId": operationID(r)}
	parameters := []object{}
	for _, name := range paramName.FindAllStringSubmatch(r.path, -1) {
		parameters = append(parameters, object{
			"name": name[1], "in": "path", "required": true, "schema": object{"type": "string", "minLength": 1}, "example": pathExamples[name[1]],
		})
	}
	for _, p := range op.query {
		schema := maps.Clone(p.schema)
		for name, value := range schema {
			if text, ok := value.(string); ok && strings.HasPrefix(text, "@") {
				schema[name] = in.limits[text[1:]]
			}
		}
		query := object{"name": p.name, "in": "query", "required": p.required, "description": p.text, "schema": schema}
		if p.example != nil {
			query["example"] = p.example
		}
		parameters = append(parameters, query)
	}
	if len(parameters) > 0 {
		described["parameters"] = parameters
	}
	if op.request != nil {
		schema := in.of(reflect.TypeOf(op.request))
		body := object{"content": content1("application/json", schema)}
		name := strings.TrimPrefix(schema["$ref"].(string), "#/components/schemas/")
		_, required := in.components[name].(object)["required"]
		body["required"] = required
		if !required {
			body["content"] = content1("application/json", nullable(schema))
		}
		described["requestBody"] = body
	}
	if r.key != keyNone && s.wantedKey(r) != "" {
		described["security"] = []object{{"key": []string{}}}
	}
	return described
}

// operationID is the path and the method as one name.
func operationID(r route) string {
	words := strings.FieldsFunc(r.path, func(c rune) bool { return c == '/' || c == ':' || c == '*' })
	return strings.ToLower(r.method) + "_" + strings.Join(words, "_")
}

// openAPIDocument answers GET /openapi.json.
func (s *Server) openAPIDocument(c echo.Context) error { return c.JSON(http.StatusOK, s.document()) }

// audioAnswers are the files that speech can be answered with.
func audioAnswers(text string) []answer {
	list := []answer{{status: 200, text: text, media: "text/event-stream"}}
	for _, format := range media.Formats {
		list = append(list, answer{status: 200, text: text, media: format.MediaType()})
	}
	return list
}

// checkOperations returns an error if a route has no operation: the table and the document are changed together.
func (s *Server) checkOperations() error {
	for _, r := range s.routes() {
		if _, ok := operations[r.method+" "+r.path]; !ok && !strings.HasSuffix(r.path, "*") {
			return fmt.Errorf("api: the route %s %s is not described", r.method, r.path)
		}
	}
	return nil
}
