package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/gpu"
)

// The groups of flags in --help.
const (
	modelGroup     = "Model"
	inputGroup     = "Input"
	outputGroup    = "Output"
	samplingGroup  = "Sampling"
	profilingGroup = "Profiling"
)

// generateFlags are the flags of the default action, in the order of --help.
func generateFlags() []cli.Flag {
	return append(modelFlags(config.ModeFull), []cli.Flag{
		&cli.StringSliceFlag{Name: "prompt", Category: inputGroup, Usage: "`TEXT` what to say to the model; give it again for more requests"},
		&cli.StringFlag{Name: "prompts-file", Category: inputGroup, Usage: "`FILE` read prompts from a file, see below; - is standard input"},
		&cli.StringFlag{Name: "system", Category: inputGroup, Usage: "`TEXT` system message; default: the model's own"},

		&cli.StringFlag{Name: "modalities", Category: outputGroup, Usage: "`LIST` what to make: text,audio; default: all that the model makes"},
		&cli.StringFlag{Name: "speaker", Category: outputGroup, Usage: "`NAME` voice; default: the model's own"},
		&cli.StringFlag{Name: "output-dir", Category: outputGroup, Value: "output", Usage: "`DIR` folder for {request_id}.txt and output_{request_id}.wav (output); no file is replaced"},
		&cli.StringFlag{Name: "format", Category: outputGroup, Value: "text", Usage: "`FORMAT` what standard output gets: text (the default), or json: one object with everything"},
		&cli.BoolFlag{Name: "log-stats", Category: outputGroup, Usage: "print where the time went, by request and by stage"},

		&cli.Int64Flag{Name: "seed", Category: samplingGroup, Usage: "`N` make every request repeatable, with the reference's own draws for this seed"},
		&cli.IntFlag{Name: "max-tokens", Category: samplingGroup, Usage: "`N` end the text after so many tokens; default: the model's limit"},
		&cli.StringFlag{Name: "sampling-params", Category: samplingGroup, Usage: "`LIST` JSON with one object per stage: temperature (0 is greedy), top_p, top_k (-1 is off), max_tokens, min_tokens, repetition_penalty, seed, stop_token_ids"},

		&cli.StringFlag{Name: "profile-dir", Category: profilingGroup, Usage: "`DIR` record each stage and write its trace and operator table there"},
		&cli.StringFlag{Name: "profile-stages", Category: profilingGroup, Usage: "`LIST` record only these stages: ids such as 0,2"},
		&cli.StringSliceFlag{Name: "profiler-config", Category: profilingGroup, Usage: "`NAME=VALUE` a profiler setting (lists: activities=CPU,CUDA), or all of them as one JSON object; --profiler-config.NAME=VALUE means the same"},
	}...)
}

// modelFlags say what to open, for every command that opens a pipeline. usualMode is the mode of speech where nothing else
// is said.
func modelFlags(usualMode string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "model", Category: modelGroup, Usage: "`DIR|ID` a checkpoint's folder, or a hub id that lies in the local Hugging Face cache"},
		&cli.StringFlag{Name: "dtype", Category: modelGroup, Value: "auto", Usage: "`TYPE` element type of every stage: auto (the checkpoint's, the default), float32, bfloat16"},
		&cli.StringFlag{Name: "device", Category: modelGroup, Usage: "`DEVICE` device of every stage: auto, cpu, cuda:0, ...; default: as the stage config says, else auto: spread over the GPUs, the CPU where there is none"},
		&cli.StringFlag{Name: "speech-mode", Category: modelGroup, Usage: "`MODE` full: speech is made when all of its codes are there, equal to the reference; stream: in chunks while they come, so that it begins early; default: as the stage config says, else " + usualMode},
		&cli.IntFlag{Name: "max-concurrency", Category: modelGroup, Value: 16, Usage: "`N` let so many requests in at once (16); the others wait"},
		&cli.StringFlag{Name: "stage-configs-path", Category: modelGroup, Usage: "`FILE` YAML with the stages' devices, threads, batch sizes and sampling; default: built in"},
	}
}

// modelOptions reads modelFlags and reports all mistakes in them.
func modelOptions(c *cli.Context, env *environment, usualMode string) (pipeline.Config, error) {
	cfg := pipeline.Config{
		Model:             c.String("model"),
		StageConfigsPath:  c.String("stage-configs-path"),
		DType:             c.String("dtype"),
		Device:            c.String("device"),
		Machine:           machine(withCUDA, env.devices),
		MaxConcurrency:    c.Int("max-concurrency"),
		WorkerPath:        env.getenv("OMNI_WORKER"),
		Telemetry:         gpu.NewSource(),
		SpeechMode:        c.String("speech-mode"),
		DefaultSpeechMode: usualMode,
	}
	var faults []error
	if cfg.Model == "" {
		faults = append(faults, errors.New("--model is missing: want a checkpoint folder or a hub id"))
	}
	faults = append(faults, named("--dtype", config.CheckDType(cfg.DType)))
	if cfg.Device != "" {
		faults = append(faults, named("--device", config.CheckDevice(cfg.Device)))
	}
	if cfg.SpeechMode != "" {
		faults = append(faults, named("--speech-mode", config.CheckMode(cfg.SpeechMode)))
	}
	if cfg.MaxConcurrency < 1 {
		faults = append(faults, fmt.Errorf("--max-concurrency is %d, want 1 or more", cfg.MaxConcurrency))
	}
	return cfg, errors.Join(faults...)
}

// options are the flags of a generation, checked as far as that is possible without the model.
type options struct {
	pipeline      pipeline.Config
	requests      []pipeline.Request
	profileStages []int
	outputDir     string
	format        string
	logStats      bool
}

// readOptions reports all mistakes at once. Reading the prompts comes last: standard input may block.
func readOptions(c *cli.Context, env *environment) (*options, error) {
	o := &options{outputDir: c.String("output-dir"), format: c.String("format"), logStats: c.Bool("log-stats")}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	check := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}

	var err error
	o.pipeline, err = modelOptions(c, env, config.ModeFull)
	check(err)
	if o.format != "text" && o.format != "json" {
		fault("--format is %q, want text or json", o.format)
	}
	if o.outputDir == "" {
		fault("--output-dir is empty, want a folder")
	}
	o.pipeline.Log, err = newLogger(env)
	check(err)
	o.pipeline.Profiler, o.profileStages, err = profileOptions(c, env)
	check(err)
	defaults, err := requestDefaults(c)
	check(err)
	if len(faults) > 0 {
		return nil, &usageError{errors.Join(faults...)}
	}
	o.requests, err = readPrompts(promptSources{
		texts: c.StringSlice("prompt"), file: c.String("prompts-file"), args: c.Args().Slice(), stdin: env.stdin,
	}, defaults)
	return o, err
}

// requestDefaults is the request that the flags describe, without a prompt.
func requestDefaults(c *cli.Context) (pipeline.Request, error) {
	request := pipeline.Request{System: c.String("system"), Speaker: c.String("speaker"), MaxTokens: c.Int("max-tokens")}
	var faults []error
	if c.IsSet("max-tokens") && request.MaxTokens < 1 {
		faults = append(faults, fmt.Errorf("--max-tokens is %d, want 1 or more", request.MaxTokens))
	}
	if c.IsSet("seed") {
		seed := c.Int64("seed")
		request.Seed = &seed
		if seed < 0 {
			faults = append(faults, fmt.Errorf("--seed is %d, want 0 or more", seed))
		}
	}
	if c.IsSet("modalities") {
		for name := range strings.SplitSeq(c.String("modalities"), ",") {
			request.Modalities = append(request.Modalities, strings.TrimSpace(name))
		}
		faults = append(faults, named("--modalities", checkModalities(request.Modalities)))
	}
	if c.IsSet("sampling-params") {
		err := decodeStrictly([]byte(c.String("sampling-params")), &request.Sampling)
		if err != nil {
			err = fmt.Errorf(`want a JSON list with one object per stage, such as [{"temperature":0},{},{}]: %w`, err)
		} else {
			err = checkSampling(request.Sampling)
		}
		faults = append(faults, named("--sampling-params", err))
	}
	return request, errors.Join(faults...)
}

func checkModalities(names []string) error {
	if len(names) == 0 {
		return errors.New("the list is empty, want text, audio or both")
	}
	for _, name := range names {
		if name != pipeline.ModalityText && name != pipeline.ModalityAudio {
			return fmt.Errorf("unknown modality %q, want text, audio or both", name)
		}
	}
	return nil
}

func checkSampling(stages []config.SamplingParams) error {
	var faults []error
	for i, params := range stages {
		faults = append(faults, named(fmt.Sprintf("stage %d", i), params.Validate()))
	}
	return errors.Join(faults...)
}

// profileDirVariable names the directory of profiles where no flag does.
const profileDirVariable = "VLLM_TORCH_PROFILER_DIR"

// profileOptions combines --profile-dir, --profile-stages, --profiler-config and the environment, and reports all mistakes in
// them.
func profileOptions(c *cli.Context, env *environment) (cfg profiler.Config, stages []int, err error) {
	settings, settingsErr := profilerSettings(c.StringSlice("profiler-config"))
	base := profiler.Default()
	if dir := env.getenv(profileDirVariable); dir != "" {
		base = profiler.FromDir(dir)
	}
	var dirErr error
	if dir := c.String("profile-dir"); dir != "" {
		dirErr = setProfileDir(settings, dir)
	}
	cfg, cfgErr := base.Override(settings)
	stages, stagesErr := profileStages(c, cfg)
	if cfgErr != nil && !cfg.Enabled() {
		stagesErr = nil // whether stages can be chosen is not known
	}
	return cfg, stages, errors.Join(named("--profiler-config", errors.Join(settingsErr, cfgErr)), dirErr, stagesErr)
}

// profilerSettings reads the values of --profiler-config.
func profilerSettings(texts []string) (map[string]any, error) {
	for _, text := range texts {
		if len(texts) > 1 && strings.HasPrefix(strings.TrimSpace(text), "{") {
			return map[string]any{}, errors.New("a JSON object holds all settings; it cannot be combined with others")
		}
	}
	settings, err := profiler.Settings(strings.Join(texts, ","))
	if settings == nil {
		settings = map[string]any{}
	}
	return settings, err
}

// setProfileDir adds what --profile-dir stands for to the settings of --profiler-config, which must not say otherwise.
func setProfileDir(settings map[string]any, dir string) error {
	var faults []error
	if kind, given := settings["profiler"]; given && kind != profiler.KindTorch {
		if kind == nil || kind == profiler.KindNone {
			kind = "null"
		}
		faults = append(faults, fmt.Errorf("--profile-dir %s asks for profiler=torch, and --profiler-config for profiler=%v: leave one of them out", dir, kind))
	}
	if other, given := settings["torch_profiler_dir"]; given && !sameFolder(dir, other) {
		faults = append(faults, fmt.Errorf("--profile-dir %s and --profiler-config torch_profiler_dir=%v are two folders: leave one of them out", dir, other))
	}
	settings["profiler"], settings["torch_profiler_dir"] = profiler.KindTorch, dir
	return errors.Join(faults...)
}

// sameFolder reports whether a setting of torch_profiler_dir means dir.
func sameFolder(dir string, setting any) bool {
	text, ok := setting.(string)
	if !ok {
		return false
	}
	a, b := profiler.FromDir(dir), profiler.FromDir(text)
	return a.Validate() == nil && b.Validate() == nil && a.TorchProfilerDir == b.TorchProfilerDir
}

// profileStages reads --profile-stages.
func profileStages(c *cli.Context, cfg profiler.Config) (stages []int, err error) {
	if !c.IsSet("profile-stages") {
		return nil, nil
	}
	if !cfg.Enabled() {
		return nil, errors.New("--profile-stages needs --profile-dir, which says where the files go")
	}
	if cfg.RingSeconds > 0 {
		return nil, errors.New("--profile-stages does not go with ring_seconds: every stage has a flight recorder")
	}
	for text := range strings.SplitSeq(c.String("profile-stages"), ",") {
		id, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || id < 0 {
			return nil, fmt.Errorf("--profile-stages: %q is no stage id, want a list such as 0,2", text)
		}
		stages = append(stages, id)
	}
	return stages, nil
}

// newLogger writes warnings to standard error; OMNI_LOG sets another level.
func newLogger(env *environment) (*slog.Logger, error) {
	level := slog.LevelWarn
	if text := env.getenv("OMNI_LOG"); text != "" {
		if err := level.UnmarshalText([]byte(text)); err != nil {
			return nil, fmt.Errorf("OMNI_LOG is %q, want debug, info, warn or error", text)
		}
	}
	return slog.New(slog.NewTextHandler(env.stderr, &slog.HandlerOptions{Level: level})), nil
}

// dottedSettings rewrites --profiler-config.NAME=VALUE and --profiler-config.NAME VALUE, as vLLM spells them, to
// --profiler-config=NAME=VALUE.
func dottedSettings(args []string) []string {
	const prefix = "--profiler-config."
	var out []string
	for i := 0; i < len(args); i++ {
		setting, found := strings.CutPrefix(args[i], prefix)
		if !found {
			out = append(out, args[i])
			continue
		}
		if !strings.Contains(setting, "=") && i+1 < len(args) {
			i++
			setting += "=" + args[i]
		}
		out = append(out, "--profiler-config="+setting)
	}
	return out
}

// named puts the place of a fault before it.
func named(place string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", place, err)
}

// decodeStrictly decodes exactly one JSON value, without unknown keys.
func decodeStrictly(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the JSON value")
	}
	return nil
}
