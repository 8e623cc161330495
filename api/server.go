package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/api/page"
)

// Config is what a [Server] is made of.
type Config struct {
	// Engine generates.
	Engine Engine
	// Profiler controls profile sessions; nil for a server without the routes for that.
	Profiler Profiler
	// Models are the names that requests may give the model, the first is the one that answers have.
	Models []string
	// Version is the program's.
	Version string
	// APIKey is wanted of every request but those for /health; empty for none.
	APIKey string
	// ProfileKey is wanted instead of APIKey by the routes that control profiling; empty for APIKey.
	ProfileKey string
	// Local refuses requests that name the server otherwise than by its own machine (localhost, 127.0.0.1, ::1). A server
	// that listens there alone and wants no key is then safe from web pages whose names point to it.
	Local bool
	// Limits bound requests.
	Limits Limits
	// Log gets a line for each request; nil for none.
	Log *slog.Logger
}

// Server answers HTTP requests. Its methods may be called from any goroutine.
type Server struct {
	cfg      Config
	echo     *echo.Echo
	metrics  *collectors
	document func() object // of OpenAPI, made when it is first asked for
	started  time.Time
	inside   atomic.Int64 // generations that run or wait
	draining atomic.Bool
	analyses *analyses
}

// route is an endpoint.
type route struct {
	method, path string
	key          key
	handler      echo.HandlerFunc
}

// routes is the table of all endpoints. Those of the second part exist only where a profiler is configured.
func (s *Server) routes() []route {
	files := page.Handler()
	showPage := func(c echo.Context) error { return fromLibrary(c, files) }
	table := []route{
		{http.MethodPost, "/v1/chat/completions", keyAPI, s.admit(s.chatCompletions)},
		{http.MethodPost, "/v1/audio/speech", keyAPI, s.admit(s.speech)},
		{http.MethodGet, "/v1/audio/voices", keyAPI, s.voices},
		{http.MethodGet, "/v1/models", keyAPI, s.models},
		{http.MethodGet, "/health", keyNone, s.health},
		{http.MethodGet, "/version", keyAPI, s.version},
		{http.MethodGet, "/metrics", keyAPI, s.metrics.serve},
		{http.MethodGet, "/openapi.json", keyAPI, s.openAPIDocument},
		{http.MethodGet, "/stages", keyAPI, s.stages},
		{http.MethodGet, "/", keyPage, showPage},
		{http.MethodGet, "/page/*", keyPage, showPage},
	}
	if s.cfg.Profiler == nil {
		return table
	}
	return append(table, []route{
		{http.MethodPost, "/start_profile", keyProfile, s.startProfile},
		{http.MethodPost, "/stop_profile", keyProfile, s.stopProfile},
		{http.MethodPost, "/dump_profile", keyProfile, s.dumpProfile},
		{http.MethodGet, "/profile_status", keyProfile, s.profileStatus},
		{http.MethodGet, "/profile", keyProfile, s.profileOnce},
		{http.MethodGet, "/profiles", keyProfile, s.listProfiles},
		{http.MethodGet, "/profiles/:session", keyProfile, s.showProfile},
		{http.MethodDelete, "/profiles/:session", keyProfile, s.deleteProfile},
		{http.MethodGet, "/profiles/:session/analysis", keyProfile, s.analyseProfile},
		{http.MethodGet, "/profiles/:session/flame", keyProfile, s.flameProfile},
		{http.MethodGet, "/profiles/:session/diff", keyProfile, s.diffProfiles},
		{http.MethodGet, "/profiles/:session/:file", keyProfile, s.profileFile},
		{http.MethodHead, "/profiles/:session/:file", keyProfile, s.profileFile},
	}...)
}

// New makes a server.
func New(cfg Config) (*Server, error) {
	if cfg.Engine == nil {
		return nil, errors.New("api: there is no engine to serve")
	}
	if len(cfg.Models) == 0 || cfg.Models[0] == "" {
		return nil, errors.New("api: the model has no name")
	}
	if err := cfg.Limits.Validate(); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, echo: echo.New(), started: time.Now(), analyses: newAnalyses()}
	s.metrics = newCollectors(s)
	s.echo.HTTPErrorHandler = s.writeError
	s.echo.Use(s.observe, s.guard)
	if err := s.checkOperations(); err != nil {
		return nil, err
	}
	s.document = sync.OnceValue(s.openAPI)
	for _, r := range s.routes() {
		s.echo.Add(r.method, r.path, s.authorize(r))
	}
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// Serve answers on a listener, which it closes, until ctx ends. Then it takes no new requests, lets those that run end for
// as long as Limits.Drain says, cancels the rest, and returns when all are gone.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	requests, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	server := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: s.cfg.Limits.Body,
		IdleTimeout:       s.cfg.Limits.Idle,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	s.cfg.Log.Info("server ends", slog.Int64("running", s.inside.Load()))
	drain, stop := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Limits.Drain)
	defer stop()
	err := server.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("serve: requests still ran %v after the server was told to end", s.cfg.Limits.Drain)
		cancel(errDraining)
		err = errors.Join(err, server.Close())
	}
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
