package api

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"
)

// eventStream writes server-sent events. Nothing is sent before the first event, so an error until then has its own status.
type eventStream struct {
	c     echo.Context
	begun bool
}

func newEventStream(c echo.Context) *eventStream { return &eventStream{c: c} }

// send writes one event with v as its data and flushes it.
func (e *eventStream) send(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return e.write(text)
}

// done writes the mark of a stream's proper end.
func (e *eventStream) done() error { return e.write([]byte("[DONE]")) }

func (e *eventStream) write(data []byte) error {
	response := e.c.Response()
	if !e.begun {
		e.begun = true
		response.Header().Set(echo.HeaderContentType, "text/event-stream; charset=utf-8")
		response.Header().Set(echo.HeaderCacheControl, "no-cache")
		response.Header().Set("X-Accel-Buffering", "no") // or nginx would collect
		response.WriteHeader(http.StatusOK)
	}
	return send(response, fmt.Appendf(nil, "data: %s\n\n", data))
}

// send writes a piece of an answer and flushes it. Whatever goes wrong, the client does not take it.
func send(response *echo.Response, data []byte) error {
	_, err := response.Write(data)
	if err == nil {
		err = http.NewResponseController(response).Flush()
	}
	if err != nil {
		return &failure{code: codeGone, err: fmt.Errorf("the client does not take the answer: %w", err)}
	}
	return nil
}

// fail ends the stream with an error: as its last event, or as the whole answer if nothing has been sent. It returns the error,
// for the log.
func (e *eventStream) fail(err error) error {
	if e.begun && e.c.Request().Context().Err() == nil {
		// If this cannot be written either, the client sees the stream end without its mark.
		_ = e.send(classify(err).body(entryOf(e.c).id))
	}
	return err
}
