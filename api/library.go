package api

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

// fromLibrary runs a handler of the HTTP library's. Where that answers with an error, which would be plain text, the error is
// returned to be answered in this server's shape; the headers that the library has set for it stay, as Content-Range.
func fromLibrary(c echo.Context, handler http.Handler) error {
	w := &refusal{ResponseWriter: c.Response()}
	handler.ServeHTTP(w, c.Request())
	if w.status == 0 {
		return nil
	}
	for _, name := range []string{echo.HeaderContentType, echo.HeaderContentDisposition, echo.HeaderContentSecurityPolicy} { // of what is not sent
		w.Header().Del(name)
	}
	return failedWith(w.status)
}

// failedWith is the failure of a status.
func failedWith(status int) *failure {
	switch status {
	case http.StatusNotFound:
		return fail(codeNotFound, "there is no such route; GET /openapi.json lists those that there are")
	case http.StatusMethodNotAllowed:
		return fail(codeMethod, "this route does not take this method; the Allow header lists those that it takes")
	case http.StatusPreconditionFailed:
		return fail(codePrecondition, "the file is not the one that the If-Match or If-Unmodified-Since header names")
	case http.StatusRequestedRangeNotSatisfiable:
		return fail(codeRange, "the Range header names no part of the file; the Content-Range header says how long it is")
	}
	return fail(codeInternal, "the request failed: %s", http.StatusText(status))
}

// refusal is a ResponseWriter that keeps an error's status and drops its text.
type refusal struct {
	http.ResponseWriter
	status int // 0 until an error was written
}

// WriteHeader implements http.ResponseWriter.
func (r *refusal) WriteHeader(status int) {
	if status >= http.StatusBadRequest {
		r.status = status
		return
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (r *refusal) Write(p []byte) (int, error) {
	if r.status != 0 {
		return len(p), nil
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (r *refusal) Unwrap() http.ResponseWriter { return r.ResponseWriter }
