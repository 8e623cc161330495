package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/media"
	"github.com/omni-run/omni/profiler"
)

// The groups of serve's own flags.
const (
	serverGroup = "Server"
	limitGroup  = "Limits"
)

// serveCommand answers HTTP requests until it is told to end.
func serveCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "serve",
		Usage:     "serve the model over HTTP: OpenAI's routes for text and speech, metrics, profiling",
		UsageText: "omni-run serve --model DIR|ID [--host ADDRESS] [--port N] [flags]",
		Description: `Opens the model and answers until SIGTERM or SIGINT comes; then requests that run may end (--drain-timeout), profile
files are completed, and the workers stop. Standard output gets one line, the address, when everything is ready;
standard error gets the log, a line a request.

  POST /v1/chat/completions     text and speech, whole or streamed     GET /v1/models        names of the model
  POST /v1/audio/speech         speech alone                           GET /v1/audio/voices  names of the voices
  GET  /health                  200 when every stage is ready          GET /metrics          for Prometheus
  GET  /                        a page to look at                      GET /openapi.json     all routes, exactly
  POST /start_profile, /stop_profile and the rest of profile control exist with --profile-dir or --profiler-config.

Examples:
  omni-run serve --model ./checkpoint
  omni-run serve --model ./checkpoint --port 8091 --served-model-name Qwen/Qwen2.5-Omni-7B
  omni-run serve --model ./checkpoint --profiler-config profiler=torch,torch_profiler_dir=./profiles
  OMNI_API_KEY=secret omni-run serve --model ./checkpoint --host 0.0.0.0

  curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \
    -d '{"messages":[{"role":"user","content":"Hello"}],"modalities":["text"]}'

The server speaks plain HTTP and by default to this machine alone. To open it to others, set a key, and put a proxy
that speaks TLS in front of it. Keys are better set in the environment than by flags, which other users can see:
OMNI_API_KEY and OMNI_PROFILE_API_KEY.`,
		Flags:  serveFlags(),
		Action: func(c *cli.Context) error { return serve(c, env) },
	}
}

func serveFlags() []cli.Flag {
	limits := api.DefaultLimits()
	return append(modelFlags(config.ModeStream), []cli.Flag{
		&cli.StringFlag{Name: "host", Category: serverGroup, Value: "127.0.0.1", Usage: "`ADDRESS` where to listen (127.0.0.1: this machine alone; 0.0.0.0: everywhere)"},
		&cli.IntFlag{Name: "port", Category: serverGroup, Value: 8000, Usage: "`N` port to listen on (8000); 0 takes a free one"},
		&cli.StringSliceFlag{Name: "served-model-name", Category: serverGroup, Usage: "`NAME` what requests call the model; give it again for more names; default: what --model says"},
		&cli.StringFlag{Name: "api-key", Category: serverGroup, Usage: "`KEY` wanted of every request but for /health; default: OMNI_API_KEY, else no key"},
		&cli.StringFlag{Name: "profile-api-key", Category: serverGroup, Usage: "`KEY` wanted by profile control in place of --api-key; default: OMNI_PROFILE_API_KEY"},
		&cli.StringFlag{Name: "log-format", Category: serverGroup, Value: "json", Usage: "`FORMAT` of the log: json (the default) or text"},

		&cli.IntFlag{Name: "max-queue", Category: limitGroup, Value: limits.Waiting, Usage: fmt.Sprintf("`N` requests that may wait beside those that run (%d); one more gets 429", limits.Waiting)},
		&cli.Int64Flag{Name: "max-body-bytes", Category: limitGroup, Value: limits.BodyBytes, Usage: fmt.Sprintf("`N` size of a request (%d)", limits.BodyBytes)},
		&cli.IntFlag{Name: "max-prompt-bytes", Category: limitGroup, Value: limits.PromptBytes, Usage: fmt.Sprintf("`N` size of the text in a request (%d)", limits.PromptBytes)},
		&cli.Float64Flag{Name: "max-audio-seconds", Category: limitGroup, Value: limits.AudioSeconds, Usage: fmt.Sprintf("`X` speech of a request ends there (%v)", limits.AudioSeconds)},
		&cli.DurationFlag{Name: "request-timeout", Category: limitGroup, Value: limits.Request, Usage: fmt.Sprintf("`TIME` for a request, with its wait (%v)", limits.Request)},
		&cli.DurationFlag{Name: "drain-timeout", Category: limitGroup, Value: limits.Drain, Usage: fmt.Sprintf("`TIME` for the requests that run when the server is told to end (%v)", limits.Drain)},

		&cli.StringFlag{Name: "profile-dir", Category: profilingGroup, Usage: "`DIR` let requests start profiling; its files go there"},
		&cli.StringSliceFlag{Name: "profiler-config", Category: profilingGroup, Usage: "`NAME=VALUE` a profiler setting (lists: activities=CPU,CUDA), or all of them as one JSON object; --profiler-config.NAME=VALUE means the same"},
		&cli.StringFlag{Name: "keep-profile-settings", Category: profilingGroup, Usage: "`LIST` settings that no start may change, such as recorder,detail,torch_profiler_with_stack; default: none"},
		&cli.Float64Flag{Name: "max-profile-seconds", Category: profilingGroup, Usage: "`X` recording of a session ends there, whatever its start says; default: no limit, an hour for GET /profile"},
		&cli.IntFlag{Name: "max-profile-events", Category: profilingGroup, Usage: "`N` likewise, events in the trace of a stage; default: no limit"},
		&cli.Float64Flag{Name: "max-profile-mb", Category: profilingGroup, Usage: "`X` likewise, megabytes of the trace of a stage; default: no limit"},
	}...)
}

// serveOptions are serve's flags, checked.
type serveOptions struct {
	pipeline pipeline.Config
	server   api.Config
	address  string
	open     bool // to other machines
}

// readServeOptions reports all mistakes at once.
func readServeOptions(c *cli.Context, env *environment) (*serveOptions, error) {
	if c.NArg() > 0 {
		return nil, usagef("unexpected argument %q", c.Args().First())
	}
	var faults []error
	check := func(err error) { faults = append(faults, err) }
	o := &serveOptions{}
	var err error
	o.pipeline, err = modelOptions(c, env, config.ModeStream)
	check(err)
	o.pipeline.Profiler, _, err = profileOptions(c, env)
	check(err)
	o.pipeline.Log, err = serveLogger(c, env)
	check(err)
	if port := c.Int("port"); port < 0 || port > 65535 {
		check(fmt.Errorf("--port is %d, want 0 to 65535", port))
	}
	o.address = net.JoinHostPort(c.String("host"), strconv.Itoa(c.Int("port")))
	o.open, err = opensToOthers(c.String("host"))
	check(named("--host", err))
	limits := api.DefaultLimits()
	limits.Running, limits.Waiting = o.pipeline.MaxConcurrency, c.Int("max-queue")
	limits.BodyBytes, limits.PromptBytes = c.Int64("max-body-bytes"), c.Int("max-prompt-bytes")
	limits.AudioSeconds = c.Float64("max-audio-seconds")
	limits.Request, limits.Drain = c.Duration("request-timeout"), c.Duration("drain-timeout")
	o.pipeline.ProfileCeilings, err = profileCeilings(c)
	check(err)
	if longest := o.pipeline.ProfileCeilings.MaxSeconds; longest > 0 {
		limits.ProfileSeconds = min(limits.ProfileSeconds, longest)
	}
	if o.pipeline.MaxConcurrency > 0 {
		check(limits.Validate())
	}
	o.server = api.Config{
		Models: c.StringSlice("served-model-name"), Version: version(), Limits: limits, Log: o.pipeline.Log,
		APIKey: c.String("api-key"), ProfileKey: c.String("profile-api-key"),
	}
	if o.server.APIKey == "" {
		o.server.APIKey = env.getenv("OMNI_API_KEY")
	}
	if o.server.ProfileKey == "" {
		o.server.ProfileKey = env.getenv("OMNI_PROFILE_API_KEY")
	}
	o.server.Local = !o.open && o.server.APIKey == ""
	if len(o.server.Models) == 0 {
		o.server.Models = []string{o.pipeline.Model}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, &usageError{err}
	}
	return o, nil
}

// profileCeilings reads what no session may exceed.
func profileCeilings(c *cli.Context) (profiler.Ceilings, error) {
	ceilings := profiler.Ceilings{MaxSeconds: c.Float64("max-profile-seconds"), MaxEvents: c.Int("max-profile-events"), MaxTraceMB: c.Float64("max-profile-mb")}
	var faults []error
	for name, good := range map[string]bool{
		"max-profile-seconds": ceilings.MaxSeconds > 0 && ceilings.MaxSeconds <= profiler.MaxAmount,
		"max-profile-events":  ceilings.MaxEvents > 0,
		"max-profile-mb":      ceilings.MaxTraceMB > 0 && ceilings.MaxTraceMB <= profiler.MaxAmount,
	} {
		if c.IsSet(name) && !good {
			faults = append(faults, fmt.Errorf("--%s is %v, want more than 0", name, c.Value(name)))
		}
	}
	if c.IsSet("keep-profile-settings") {
		for name := range strings.SplitSeq(c.String("keep-profile-settings"), ",") {
			ceilings.Kept = append(ceilings.Kept, strings.TrimSpace(name))
		}
		faults = append(faults, named("--keep-profile-settings", profiler.Ceilings{Kept: ceilings.Kept}.Validate()))
	}
	return ceilings, errors.Join(faults...)
}

// opensToOthers reports whether an address to listen on can be reached from other machines.
func opensToOthers(host string) (bool, error) {
	if host == "localhost" {
		return false, nil
	}
	ip := net.ParseIP(host)
	if ip == nil {
		return false, fmt.Errorf("%q is no address, want one such as 127.0.0.1, ::1 or 0.0.0.0", host)
	}
	return !ip.IsLoopback(), nil
}

// serveLogger logs from info on, as JSON; OMNI_LOG sets another level.
func serveLogger(c *cli.Context, env *environment) (*slog.Logger, error) {
	level := slog.LevelInfo
	if text := env.getenv("OMNI_LOG"); text != "" {
		if err := level.UnmarshalText([]byte(text)); err != nil {
			return nil, fmt.Errorf("OMNI_LOG is %q, want debug, info, warn or error", text)
		}
	}
	options := &slog.HandlerOptions{Level: level}
	switch format := c.String("log-format"); format {
	case "json":
		return slog.New(slog.NewJSONHandler(env.stderr, options)), nil
	case "text":
		return slog.New(slog.NewTextHandler(env.stderr, options)), nil
	default:
		return nil, fmt.Errorf("--log-format is %q, want json or text", format)
	}
}

// serve opens the pipeline, then the address, and serves until the context ends.
func serve(c *cli.Context, env *environment) (err error) {
	options, err := readServeOptions(c, env)
	if err != nil {
		return err
	}
	if dir := options.pipeline.Profiler.TorchProfilerDir; dir != "" {
		if err := makeWritable("--profile-dir", dir); err != nil {
			return err
		}
	}
	var listening net.ListenConfig
	listener, err := listening.Listen(c.Context, "tcp", options.address)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	defer listener.Close() //nolint:errcheck // Serve has closed it, or err says more
	progress := newProgress(env.stderr, env.terminal)
	options.pipeline.Progress = progress.loading
	omni, err := env.open(c.Context, options.pipeline)
	if err != nil {
		progress.stop()
		return err
	}
	defer func() { err = errors.Join(err, omni.Close()) }()
	progress.loaded()
	options.server.Engine = omni
	if len(omni.ProfileConfigs()) > 0 {
		options.server.Profiler = omni
	}
	server, err := api.New(options.server)
	if err != nil {
		return err
	}
	options.warn(omni)
	defer dumpOnSignal(c.Context, omni, options.logDump)()
	options.server.Log.Info("serving", slog.String("address", listener.Addr().String()), slog.Any("models", options.server.Models))
	fmt.Fprintf(env.stdout, "http://%s\n", listener.Addr())
	began := time.Now()
	err = server.Serve(c.Context, listener)
	options.server.Log.Info("served", slog.Float64("seconds", time.Since(began).Seconds()))
	return err
}

// logDump logs what came of a dump of the flight recorders.
func (o *serveOptions) logDump(report *pipeline.ProfileReport, err error) {
	if err != nil {
		o.server.Log.Error("flight recorder could not be dumped", slog.Any("error", err))
		return
	}
	o.server.Log.Info("flight recorder is dumped", slog.String("session", report.Session), slog.Int("files", len(report.Files)),
		slog.String("folder", profileFolder(report)))
}

// profileFolder is where a session's files are.
func profileFolder(report *pipeline.ProfileReport) string {
	if len(report.Files) == 0 {
		return ""
	}
	return filepath.Dir(report.Files[0].Path)
}

// warn logs what may surprise the owner of the machine.
func (o *serveOptions) warn(omni engine) {
	log := o.server.Log
	var profilers []string
	for _, config := range omni.ProfileConfigs() {
		profilers = append(profilers, config.Profiler)
	}
	if slices.Sort(profilers); len(profilers) > 0 {
		log.Warn("profiling is enabled: whoever may use its routes can slow the model down and fill the folder",
			slog.String("profiler", strings.Join(slices.Compact(profilers), ",")), slog.String("folder", omni.ProfileDir()))
	}
	if err := media.CanEncode(media.Encoding{Format: media.MP3}); err != nil {
		log.Warn("speech as flac, mp3, opus and aac, and at other speeds than 1, will be refused: ffmpeg is not on the PATH; on Debian: apt-get install ffmpeg")
	}
	switch {
	case o.open && o.server.APIKey == "":
		log.Warn("the server is open to other machines without a key: set OMNI_API_KEY or --api-key", slog.String("address", o.address))
	case o.open:
		log.Warn("the server is open to other machines over plain HTTP: put a proxy that speaks TLS in front of it", slog.String("address", o.address))
	}
}
