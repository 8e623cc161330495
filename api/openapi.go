package api

import (
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline/media"
)

// operation is what the document says of a route beside what the table of routes does.
type operation struct {
	summary string
	query   []parameter
	request any // a value of the body's type, nil if there is none
	answers []answer
}

// parameter is one of an operation's query parameters.
type parameter struct {
	name, text string
	schema     object
	required   bool
}

// answer is one of an operation's good answers.
type answer struct {
	status int
	text   string
	media  string // application/json if empty
	body   any    // a value of the body's type; nil for raw content
}

// paramName is a parameter in a path of echo's.
var paramName = regexp.MustCompile(`:(\w+)`)

// openAPI makes the document of the server's routes.
func (s *Server) openAPI() object {
	limits := map[string]any{
		"tokens": s.cfg.Limits.MaxTokens, "characters": s.cfg.Limits.PromptBytes / 8, "stages": len(s.cfg.Engine.Stages()),
	}
	out := &schemas{components: object{}, limits: limits}
	in := &schemas{components: object{}, limits: limits, request: true}
	failed := object{"description": "what went wrong", "content": content1("application/json", out.of(reflect.TypeFor[errorBody]()))}
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
		item[strings.ToLower(r.method)] = s.describe(r, op, in, out, failed)
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

// describe is one operation of the document.
func (s *Server) describe(r route, op operation, in, out *schemas, failed object) object {
	responses := object{"default": failed}
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
		parameters = append(parameters, object{"name": name[1], "in": "path", "required": true, "schema": object{"type": "string", "minLength": 1}})
	}
	for _, p := range op.query {
		parameters = append(parameters, object{"name": p.name, "in": "query", "required": p.required, "description": p.text, "schema": p.schema})
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
