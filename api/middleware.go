package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

// headerRequestID carries a request's id in both directions.
const headerRequestID = "X-Request-Id"

// entryKey is where a request's logEntry is kept.
const entryKey = "omni.entry"

// logEntry is what is known of a request for the log and the metrics.
type logEntry struct {
	id   string
	err  error
	code code
	// breakOff says that the answer has begun and cannot be completed: the connection is to show it.
	breakOff bool
}

// entryOf returns the request's entry.
func entryOf(c echo.Context) *logEntry {
	entry, ok := c.Get(entryKey).(*logEntry)
	if !ok {
		return &logEntry{} // only outside of observe, whose answer nobody reads
	}
	return entry
}

// requestID takes the client's id if it has one that is fit, else makes one.
func requestID(r *http.Request) string {
	if id := r.Header.Get(headerRequestID); fitRequestID(id) {
		return id
	}
	return "req-" + strings.ToLower(rand.Text()[:20])
}

// The ids that are fit for logs and file names: those that match the pattern and are no longer than that.
const (
	requestIDPattern = `^[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*$`
	maxRequestIDSize = 128
)

var requestIDForm = regexp.MustCompile(requestIDPattern)

// fitRequestID reports whether a request may have the id.
func fitRequestID(id string) bool {
	return len(id) <= maxRequestIDSize && requestIDForm.MatchString(id)
}

// observe is around everything: it names the request, catches panics, writes the answer of an error, and logs.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		began := time.Now()
		entry := &logEntry{id: requestID(c.Request())}
		c.Set(entryKey, entry)
		header := c.Response().Header()
		header.Set(headerRequestID, entry.id)
		header.Set("X-Content-Type-Options", "nosniff")
		if err := s.recovered(next, c); err != nil {
			c.Error(err)
		}
		s.log(c, entry, time.Since(began))
		s.metrics.answered(c)
		if entry.breakOff {
			panic(http.ErrAbortHandler)
		}
		return nil
	}
}

// recovered turns a panic of a handler into its error.
func (s *Server) recovered(next echo.HandlerFunc, c echo.Context) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler { //nolint:errorlint,err113 // it is that value by contract of net/http
			panic(p)
		}
		s.cfg.Log.Error("handler panicked", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		err = fail(codeInternal, "the server has a fault: %v", p)
	}()
	return next(c)
}

// polled are the routes that are asked again and again, by the page, by probes and by collectors of metrics.
var polled = []string{"/health", "/metrics", "/profile_status", "/profiles", "/stages"}

// log writes a request's line. Good answers of what is polled are for who looks for them.
func (s *Server) log(c echo.Context, entry *logEntry, took time.Duration) {
	request, response := c.Request(), c.Response()
	level := slog.LevelInfo
	if request.Method == http.MethodGet && response.Status < http.StatusBadRequest && slices.Contains(polled, request.URL.Path) {
		level = slog.LevelDebug
	}
	attributes := []slog.Attr{
		slog.String("request", entry.id),
		slog.String("remote", request.RemoteAddr),
		slog.String("method", request.Method),
		slog.String("path", request.URL.Path),
		slog.Int("status", response.Status),
		slog.Int64("bytes", response.Size),
		slog.Float64("ms", float64(took.Microseconds())/1e3),
	}
	if entry.err != nil {
		attributes = append(attributes, slog.String("code", string(entry.code)), slog.Any("error", entry.err))
		if status := statuses[entry.code].status; status >= http.StatusInternalServerError {
			level = slog.LevelError
		}
	}
	s.cfg.Log.LogAttrs(request.Context(), level, "request", attributes...)
}

// guard refuses what a foreign web page makes a browser send, and bounds the body.
func (s *Server) guard(next echo.HandlerFunc) echo.HandlerFunc {
	origins := http.NewCrossOriginProtection()
	return func(c echo.Context) error {
		request := c.Request()
		if err := origins.Check(request); err != nil {
			return &failure{code: codeForbidden, err: fmt.Errorf("a page of another origin may not do this: %w", err)}
		}
		if s.cfg.Local && !namesThisMachine(request.Host) {
			return fail(codeForbidden, "the server is for this machine alone, and %q is none of its names: use localhost or 127.0.0.1, "+
				"or start the server with a key", request.Host)
		}
		connection := http.NewResponseController(c.Response().Writer)
		c.Response().Writer = &deadlineWriter{c.Response().Writer, connection, s.cfg.Limits.Write}
		if request.Body != nil && request.Body != http.NoBody {
			request.Body = &body{
				ReadCloser: http.MaxBytesReader(c.Response(), request.Body, s.cfg.Limits.BodyBytes),
				connection: connection,
			}
			setDeadline(connection.SetReadDeadline, time.Now().Add(s.cfg.Limits.Body))
		}
		return next(c)
	}
}

// namesThisMachine reports whether a request's Host is localhost or an address of the loopback.
func namesThisMachine(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// body lifts the deadline of reading once all has come: while an answer is made the server reads on, to see whether the client
// is still there, and a deadline would look like its end.
type body struct {
	io.ReadCloser
	connection *http.ResponseController
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		setDeadline(b.connection.SetReadDeadline, time.Time{})
	}
	return n, err
}

// deadlineWriter gives the client a time for each piece of an answer.
type deadlineWriter struct {
	http.ResponseWriter
	connection *http.ResponseController
	limit      time.Duration
}

// Write implements io.Writer.
func (w *deadlineWriter) Write(p []byte) (int, error) {
	setDeadline(w.connection.SetWriteDeadline, time.Now().Add(w.limit))
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *deadlineWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// setDeadline sets a deadline of the connection; what has no connection, as in tests, needs none.
func setDeadline(set func(time.Time) error, at time.Time) { _ = set(at) }

// retryAfter is what a client that is refused for load should wait.
const retryAfter = time.Second

// admit wraps a handler of generations: it bounds their number and their time.
func (s *Server) admit(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if s.draining.Load() {
			return &failure{code: codeUnavailable, retry: retryAfter, err: errDraining}
		}
		limits := s.cfg.Limits
		if n := s.inside.Add(1); n > int64(limits.Running+limits.Waiting) {
			s.inside.Add(-1)
			return &failure{code: codeQueueFull, retry: retryAfter, err: fmt.Errorf(
				"%d requests run and %d wait, which is all that the server takes: try again later", limits.Running, limits.Waiting)}
		}
		defer s.inside.Add(-1)
		ctx, cancel := context.WithTimeoutCause(c.Request().Context(), limits.Request,
			fmt.Errorf("%w: %v", errTooLong, limits.Request))
		defer cancel()
		c.SetRequest(c.Request().WithContext(ctx))
		return next(c)
	}
}

// errDraining is the error of new generations after the server was told to end.
var errDraining = errors.New("the server is about to end and takes no new requests")
