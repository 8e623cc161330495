// Package api serves a pipeline over HTTP: OpenAI's routes for text and speech, health and metrics, and control of
// profile sessions.
//
// [New] makes a [Server] of an [Engine], which generates, and optionally a [Profiler], which records; both are what an open
// pipeline offers, and tests stand in for them. The package knows no processes and decides nothing: a handler decodes a
// request, checks it, makes one call, and encodes the answer.
//
// # Routes
//
// The table in server.go has one row for each endpoint with the key that it needs. An endpoint is one file with its request
// and response types and its handler.
//
// # Requests
//
// Bodies are JSON and read strictly: a field that the endpoint does not know, a value of the wrong kind and a name that comes
// twice are errors that name the place, such as messages[0].content. What clients of OpenAI send as a matter of course and
// what has no meaning here is listed with the request's type. No body, an empty one and an empty chunked one are the same.
//
// # Errors
//
// Handlers return errors, and one function writes them, in OpenAI's shape. The table in errors.go says which status a kind of
// error has.
//
// # Limits
//
// Bodies, prompts, audio and time are bounded, and so is the number of requests that run or wait: one more is refused with
// 429 and Retry-After. A client that goes away cancels its request. See [Limits].
package api
