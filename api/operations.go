package api

import (
	"maps"
	"slices"
	"strings"

	"github.com/omni-run/omni/profiler/analysis"
)

// stagesParameter chooses stages in a query.
var stagesParameter = parameter{
	name: "stages", text: "ids with commas between; all if left out",
	schema: object{"type": "string", "pattern": `^[0-9]{1,6}(,[0-9]{1,6})*$`},
}

// settingParameters are the settings of a session in a query.
func settingParameters() []parameter {
	var list []parameter
	for name, schema := range (givenSettings{}).properties() {
		p := parameter{name: name, text: "a setting of this session", schema: maps.Clone(schema.(object))}
		delete(p.schema, "nullable")
		switch {
		case p.schema["type"] == "array":
			word := "(" + strings.Join(p.schema["items"].(object)["enum"].([]string), "|") + ")"
			p.schema = object{"type": "string", "pattern": "^" + word + "(," + word + ")*$"}
		case p.schema["enum"] != nil:
			p.schema["enum"] = p.schema["enum"].([]any)[1:] // without null
		}
		if alias := profileAliases[name]; alias != "" {
			p.text += ": " + alias
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	return list
}

// profileAnswers are those of the routes that control sessions.
var profileAnswers = []answer{
	{status: 200, text: "every worker did what was asked", body: profileResponse{}},
	{status: 202, text: "files are still being written", body: profileResponse{}},
	{status: 207, text: "some workers failed", body: profileResponse{}},
}

// Statuses of errors of several routes.
var (
	generationFails = []int{404, 429, 501, 503, 504} // 404 is the model's
	controlFails    = []int{404, 409, 501, 503}      // 404 is a server's that cannot record
	fileFails       = []int{412, 416}
)

// fileAnswers are the files of a session.
func fileAnswers(status int, text string) []answer {
	list := []answer{{status: status, text: text, media: "application/octet-stream"}, {status: 304, text: "it has not changed"}}
	for _, kind := range profileTypes {
		kind, _, _ = strings.Cut(kind, ";")
		list = append(list, answer{status: status, text: text, media: kind})
	}
	return list
}

// operations describes every route of the table in server.go.
var operations = map[string]operation{
	"POST /v1/chat/completions": {
		summary: "Answer a conversation with text and speech, whole or as a stream of server-sent events.",
		request: chatRequest{},
		answers: []answer{
			{status: 200, text: "the answer", body: chatResponse{}},
			{status: 200, text: "the answer", media: "text/event-stream"},
		},
		fails: generationFails,
	},
	"POST /v1/audio/speech": {
		summary: "Speak a text: a file, as it is made, or server-sent events.",
		request: speechRequest{}, answers: audioAnswers("the speech"), fails: generationFails,
	},
	"GET /v1/audio/voices": {
		summary: "The voices of the checkpoint.",
		answers: []answer{{status: 200, text: "the voices", body: voiceList{}}},
	},
	"GET /v1/models": {
		summary: "The names that requests may give the model.",
		answers: []answer{{status: 200, text: "the names", body: modelList{}}},
	},
	"GET /health": {
		summary: "Whether every stage is ready.",
		answers: []answer{
			{status: 200, text: "every stage is ready", body: healthResponse{}},
			{status: 503, text: "a stage is not ready, or the server is about to end", body: healthResponse{}},
		},
	},
	"GET /version": {
		summary: "The version of the program.",
		answers: []answer{{status: 200, text: "the version", body: versionResponse{}}},
	},
	"GET /metrics": {
		summary: "Metrics in Prometheus' text format.",
		answers: []answer{{status: 200, text: "the metrics", media: "text/plain"}},
	},
	"GET /openapi.json": {
		summary: "This document.",
		answers: []answer{{status: 200, text: "the document", body: object{}}},
	},
	"GET /stages": {
		summary: "What every stage has to do at the moment.",
		answers: []answer{{status: 200, text: "the stages", body: stagesResponse{}}},
	},
	"GET /": {
		summary: "A page to look at.",
		answers: []answer{{status: 200, text: "the page", media: "text/html"}},
	},

	"POST /start_profile": {
		summary: "Begin a profile session, with settings laid over the configuration.",
		request: startProfileRequest{}, answers: profileAnswers, fails: controlFails,
	},
	"POST /stop_profile": {
		summary: "End a profile session; its files are complete, or with wait=false being written.",
		request: stopProfileRequest{}, answers: profileAnswers, fails: controlFails,
	},
	"POST /dump_profile": {
		summary: "Make a session of what the flight recorder holds.",
		request: dumpProfileRequest{}, answers: profileAnswers, fails: controlFails,
	},
	"GET /profile_status": {
		summary: "The current or last profile session.",
		answers: []answer{{status: 200, text: "the session", body: profileStatusResponse{}}}, fails: []int{503},
	},
	"GET /profile": {
		summary: "Profile for some seconds and answer with the merged trace.",
		query: append([]parameter{
			{name: "seconds", text: "how long; 5 if left out", schema: object{"type": "number", "minimum": 0, "exclusiveMinimum": true, "maximum": "@profile_seconds"}},
			stagesParameter,
			{
				name: "request_ids", text: "the only requests whose times are kept, with commas between; all if left out",
				schema: object{"type": "string", "minLength": 1},
			},
		}, settingParameters()...),
		answers: []answer{{status: 200, text: "the merged trace", media: "application/gzip"}}, fails: controlFails,
	},
	"GET /profiles": {
		summary: "The profile sessions, the newest first.",
		answers: []answer{{status: 200, text: "the sessions", body: profileList{}}}, fails: []int{503},
	},
	"GET /profiles/:session": {
		summary: "One profile session and its files.",
		answers: []answer{{status: 200, text: "the session", body: profileDetail{}}}, fails: []int{503},
	},
	"DELETE /profiles/:session": {
		summary: "Remove the files of a profile session.",
		answers: []answer{{status: 204, text: "they are gone"}}, fails: []int{409, 503},
	},
	"GET /profiles/:session/analysis": {
		summary: "Where the time of a profile session went.",
		query: []parameter{
			{name: "top", text: "how many operators of each worker", schema: object{"type": "integer", "minimum": 1, "maximum": 10_000}},
			{name: "requests", text: "how many requests", schema: object{"type": "integer", "minimum": 0, "maximum": 10_000}},
		},
		answers: []answer{{status: 200, text: "the analysis", body: analysisResponse{}}}, fails: []int{409},
	},
	"GET /profiles/:session/flame": {
		summary: "The operators of a session, or of one stage of it, as a tree.",
		query:   []parameter{{name: "stage", text: "its id", schema: object{"type": "integer", "minimum": -1, "maximum": 1 << 20}}},
		answers: []answer{{status: 200, text: "the tree", body: analysis.Flame{}}}, fails: []int{409},
	},
	"GET /profiles/:session/diff": {
		summary: "What has changed from one profile session to another.",
		query:   []parameter{{name: "after", text: "the other session", schema: object{"type": "string", "minLength": 1}, required: true, example: "s1"}},
		answers: []answer{{status: 200, text: "the changes", body: analysis.Diff{}}}, fails: []int{409},
	},
	"GET /profiles/:session/:file": {
		summary: "One file of a profile session, or a range of it.",
		answers: append(fileAnswers(206, "the range"), fileAnswers(200, "the file")...), fails: fileFails,
	},
	"HEAD /profiles/:session/:file": {
		summary: "What there is to know of a file without its content.",
		answers: fileAnswers(200, "the file"), fails: fileFails,
	},
}
