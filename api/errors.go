package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/media"
	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
)

// code names a kind of error, for programs.
type code string

// The kinds of errors; statuses says what each means in HTTP.
const (
	codeInvalid      code = "invalid_request"
	codeUnauthorized code = "invalid_api_key"
	codeForbidden    code = "forbidden"
	codeNotFound     code = "not_found"
	codeNoModel      code = "model_not_found"
	codeMethod       code = "method_not_allowed"
	codeTimeout      code = "request_timeout"
	codeBusy         code = "conflict"
	codeTooLarge     code = "request_too_large"
	codeMediaType    code = "unsupported_media_type"
	codePrecondition code = "precondition_failed"
	codeRange        code = "range_not_satisfiable"
	codeQueueFull    code = "rate_limit_exceeded"
	codeGone         code = "client_closed_request"
	codeInternal     code = "internal_error"
	codeUnsupported  code = "not_supported"
	codeUnavailable  code = "service_unavailable"
	codeDeadline     code = "deadline_exceeded"
)

// statusClientGone is what a request whose client went away has in the log and the metrics; nobody receives it.
const statusClientGone = 499

// statuses maps each kind of error to its HTTP status and to the type that OpenAI's clients know.
var statuses = map[code]struct {
	status int
	kind   string
}{
	codeInvalid:      {http.StatusBadRequest, "invalid_request_error"},
	codeUnauthorized: {http.StatusUnauthorized, "authentication_error"},
	codeForbidden:    {http.StatusForbidden, "permission_error"},
	codeNotFound:     {http.StatusNotFound, "invalid_request_error"},
	codeNoModel:      {http.StatusNotFound, "invalid_request_error"},
	codeMethod:       {http.StatusMethodNotAllowed, "invalid_request_error"},
	codeTimeout:      {http.StatusRequestTimeout, "invalid_request_error"},
	codeBusy:         {http.StatusConflict, "invalid_request_error"},
	codeTooLarge:     {http.StatusRequestEntityTooLarge, "invalid_request_error"},
	codeMediaType:    {http.StatusUnsupportedMediaType, "invalid_request_error"},
	codePrecondition: {http.StatusPreconditionFailed, "invalid_request_error"},
	codeRange:        {http.StatusRequestedRangeNotSatisfiable, "invalid_request_error"},
	codeQueueFull:    {http.StatusTooManyRequests, "rate_limit_error"},
	codeGone:         {statusClientGone, "invalid_request_error"},
	codeInternal:     {http.StatusInternalServerError, "server_error"},
	codeUnsupported:  {http.StatusNotImplemented, "server_error"},
	codeUnavailable:  {http.StatusServiceUnavailable, "server_error"},
	codeDeadline:     {http.StatusGatewayTimeout, "server_error"},
}

// failure is an error that says itself what it is in HTTP.
type failure struct {
	code  code
	param string // place in the request: messages[0].content; may be empty
	retry time.Duration
	err   error
}

// Error is what the client reads.
func (f *failure) Error() string { return f.err.Error() }

// Unwrap returns the cause.
func (f *failure) Unwrap() error { return f.err }

// fail makes a failure.
func fail(c code, format string, args ...any) *failure {
	return &failure{code: c, err: fmt.Errorf(format, args...)}
}

// invalid makes the failure of a field of the request.
func invalid(param, format string, args ...any) *failure {
	return &failure{code: codeInvalid, param: param, err: fmt.Errorf(format, args...)}
}

// together makes one error of the faults of a request, which are all told; nil if there are none.
func together(faults ...error) error {
	faults = slices.DeleteFunc(faults, func(err error) bool { return err == nil })
	switch len(faults) {
	case 0:
		return nil
	case 1:
		return faults[0]
	}
	return &failure{code: codeInvalid, err: errors.Join(faults...)}
}

// errTooLong is the cause of the context of a request that has taken longer than it may.
var errTooLong = errors.New("the request took longer than the server allows")

// sentinels says what the errors of the packages below are, in the order of asking.
var sentinels = []struct {
	is   error
	code code
}{
	{errTooLong, codeDeadline},
	{errDraining, codeUnavailable},
	{media.ErrNoEncoder, codeUnsupported},
	{pipeline.ErrUnknownStage, codeInvalid},
	{pipeline.ErrProfileActive, codeBusy},
	{profiler.ErrNotEnabled, codeNotFound},
	{pipeline.ErrInvalidRequest, codeInvalid},
	{pipeline.ErrClosed, codeUnavailable},
	{pipeline.ErrWorkerDied, codeUnavailable},
	{context.DeadlineExceeded, codeDeadline},
	{context.Canceled, codeGone},
}

// faults says what a stage's error is by its code.
var faults = map[message.Code]code{
	message.InvalidArgument:    codeInvalid,
	message.NotFound:           codeNotFound,
	message.FailedPrecondition: codeBusy,
	message.Unimplemented:      codeUnsupported,
	message.ResourceExhausted:  codeUnavailable,
	message.Cancelled:          codeGone,
	message.DeviceLost:         codeUnavailable,
}

// classify finds out what an error is in HTTP.
func classify(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return fail(codeTooLarge, "the body is larger than %d bytes", large.Limit)
	}
	var routing *echo.HTTPError
	if errors.As(err, &routing) {
		return failedWith(routing.Code)
	}
	for _, s := range sentinels {
		if errors.Is(err, s.is) {
			return &failure{code: s.code, err: err}
		}
	}
	if c, ok := faults[pipeline.CodeOf(err)]; ok {
		return &failure{code: c, err: err}
	}
	return &failure{code: codeInternal, err: err}
}

// errorBody is an error in OpenAI's shape.
type errorBody struct {
	Error errorDetail `json:"error"`
}

// errorDetail is the only member of an errorBody.
type errorDetail struct {
	Message   string  `json:"message"`
	Type      string  `json:"type"`
	Param     *string `json:"param"`
	Code      code    `json:"code"`
	RequestID string  `json:"request_id"`
}

// body is what the client gets of a failure.
func (f *failure) body(requestID string) errorBody {
	detail := errorDetail{Message: f.Error(), Type: statuses[f.code].kind, Code: f.code, RequestID: requestID}
	if f.param != "" {
		detail.Param = &f.param
	}
	return errorBody{detail}
}

// writeError is the server's only writer of errors. An answer that has begun cannot become one: its handler has written the
// error into it, or breaks it off.
func (s *Server) writeError(err error, c echo.Context) {
	f := classify(err)
	entry := entryOf(c)
	entry.err, entry.code = err, f.code
	if c.Response().Committed {
		return
	}
	header := c.Response().Header()
	if f.retry > 0 {
		header.Set("Retry-After", strconv.Itoa(int(max(1, f.retry.Round(time.Second)/time.Second))))
	}
	status := statuses[f.code].status
	if status == statusClientGone {
		c.Response().Status = status // for the log; there is nobody to write to
		return
	}
	if err := c.JSON(status, f.body(entry.id)); err != nil {
		s.cfg.Log.Debug("error could not be sent", slog.String("request", entry.id), slog.Any("error", err))
	}
}
