package profiler

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Values of [Config.Profiler] that the user may write.
const (
	// KindNone turns profiling off; it is written null in JSON.
	KindNone = ""
	// KindTorch records operators and annotations into traces and tables.
	KindTorch = "torch"
	// KindCUDA starts and stops an external CUDA profiler and marks its ranges. It writes no files itself. A worker without
	// CUDA refuses the start.
	KindCUDA = "cuda"
)

// Values of [Config.Activities].
const (
	ActivityCPU  = "CPU"
	ActivityCUDA = "CUDA"
)

// RecorderStream is the value of [Config.Recorder] that the flight recorder needs.
const RecorderStream = "stream"

// Config says whether and how to profile. The names, defaults and rules of the torch_* and *_iterations fields are those of
// vLLM-Omni. Make one with [Default], [FromMap], [FromAny], [FromDir] or [Parse], then call [Config.Validate] once;
// after that it is read-only and can be shared.
type Config struct {
	// Profiler is KindNone, KindTorch or KindCUDA.
	Profiler string
	// TorchProfilerDir receives the files. Validate makes it absolute.
	TorchProfilerDir string
	// TorchProfilerWithStack gives each operator the path of the module that ran it.
	TorchProfilerWithStack bool
	// TorchProfilerWithFLOPs adds estimated floating point operations to the table.
	TorchProfilerWithFLOPs bool
	// TorchProfilerUseGzip compresses the trace.
	TorchProfilerUseGzip bool
	// TorchProfilerDumpCUDATimeTotal writes the operator table, sorted by self device time, or by self CPU time if no
	// operator ran on a device.
	TorchProfilerDumpCUDATimeTotal bool
	// TorchProfilerRecordShapes adds shapes, types and scalar arguments to each operator.
	TorchProfilerRecordShapes bool
	// TorchProfilerWithMemory adds allocations to trace and table.
	TorchProfilerWithMemory bool
	// DelayIterations is the step in which recording begins; 0 begins at once.
	DelayIterations int
	// MaxIterations is the number of steps to record; 0 does not limit them. In a worker that has had nothing to do for
	// IdleLimit, recording ends before, unless MaxSeconds is set.
	MaxIterations int
	// WaitIterations and WarmupIterations, if one of them is not 0, put a schedule in front of the recording: after the
	// delay, WaitIterations steps pass, WarmupIterations steps run under a recorder whose results are thrown away, and
	// then ActiveIterations steps are recorded.
	WaitIterations   int
	WarmupIterations int
	ActiveIterations int
	// MaxSeconds ends recording after that time, also in a worker that has no work; 0 does not limit it.
	MaxSeconds float64
	// MaxEvents and MaxTraceMB end recording when a worker's trace holds so many events, or has grown to so many megabytes
	// (of 10^6 bytes, as they are on disk); 0 does not limit them.
	MaxEvents  int
	MaxTraceMB float64
	// Activities says what is recorded: ActivityCPU, ActivityCUDA or both. A worker that does not run on a CUDA device
	// leaves out ActivityCUDA.
	Activities []string
	// RingSeconds, if it is not 0, makes every worker record from its start on into memory that holds the last so many
	// seconds. Nothing is written until a dump is asked for. It needs the stream recorder.
	RingSeconds float64
	// RingSLOMS, if it is not 0, dumps the ring when a request has been running for more milliseconds than that.
	RingSLOMS float64
	// MergeProfiles makes, after each session, one trace of all workers and a page to look at.
	MergeProfiles bool
	// Detail is "ops" for every operator, or "modules" for steps and module scopes alone, which costs nearly nothing.
	Detail string
	// ProfilePrefix goes in front of the names of trace files.
	ProfilePrefix string
	// Recorder names the implementation: "stream" writes events while the model runs and stops at once; "kineto" is
	// torch's own profiler, which holds the same events and is slow to write them afterwards. A Config made by hand must name one; see Default.
	Recorder string
}

// activities lists the values of [Config.Activities].
var activities = []string{ActivityCPU, ActivityCUDA}

// recorders lists the values of [Config.Recorder].
var recorders = []string{"kineto", RecorderStream}

// details lists the values of [Config.Detail].
var details = []string{"ops", "modules"}

// PrefixPattern is what [Config.ProfilePrefix] may be: no path, nothing hidden, no name that tools would split.
const PrefixPattern = `^[A-Za-z0-9_-]{0,64}$`

var prefixes = regexp.MustCompile(PrefixPattern)

// Choices lists the values that a setting, or an element of one that is a list, may have; nil if it is no choice.
func Choices(name string) []string {
	return slices.Clone(map[string][]string{"activities": activities, "detail": details, "recorder": recorders}[name])
}

// Default returns a Config with every default and profiling off.
func Default() Config {
	return Config{
		TorchProfilerWithStack:         true,
		TorchProfilerUseGzip:           true,
		TorchProfilerDumpCUDATimeTotal: true,
		ActiveIterations:               5,
		MergeProfiles:                  true,
		Activities:                     []string{ActivityCPU, ActivityCUDA},
		Detail:                         "ops",
		Recorder:                       RecorderStream,
	}
}

// FromDir returns the Config that a bare directory stands for (--profile-dir): every default, profiler torch.
func FromDir(dir string) Config {
	c := Default()
	c.Profiler = KindTorch
	c.TorchProfilerDir = dir
	return c
}

// clone returns a copy that shares nothing with c.
func (c Config) clone() Config {
	c.Activities = slices.Clone(c.Activities)
	return c
}

// Enabled reports whether the Config asks for profiling.
func (c Config) Enabled() bool { return c.Profiler != KindNone }

// Checked returns the Config validated; one that is off, the zero value included, as [Default]. All faults are reported.
// Something that is set without a profiler to use it is one.
func (c Config) Checked() (Config, error) {
	if !c.Enabled() {
		return Default().Override(c.changed())
	}
	c = c.clone()
	err := c.Validate()
	return c, err
}

// changed returns what is neither at its default nor at its zero value.
func (c Config) changed() map[string]any {
	changed, zero, defaults := c.ToMap(), Config{}.ToMap(), Default().ToMap()
	maps.DeleteFunc(changed, func(name string, value any) bool {
		return reflect.DeepEqual(value, zero[name]) || reflect.DeepEqual(value, defaults[name])
	})
	return changed
}

// Override returns c with settings laid over it, validated: those of a stage over those of its pipeline, say. If they choose
// another profiler, or none, what is for the old one alone stays behind. All faults are reported. Settings without a
// profiler to use them are one, unless they say in so many words that there is none.
func (c Config) Override(settings map[string]any) (Config, error) {
	laid, err := c.With(settings)
	if laid.Profiler != c.Profiler {
		c.TorchProfilerDir, c.RingSeconds, c.RingSLOMS = "", 0, 0
		laid, err = c.With(settings)
	}
	err = errors.Join(err, laid.Validate(), laid.checkUse(settings))
	return laid, err
}

// checkUse reports settings that nothing uses, since there is no profiler. Validate says it of the directory.
func (c Config) checkUse(settings map[string]any) error {
	if _, chosen := settings["profiler"]; chosen || c.Enabled() {
		return nil
	}
	var unused []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if known(name) && name != "torch_profiler_dir" {
			unused = append(unused, name)
		}
	}
	if len(unused) == 0 {
		return nil
	}
	return fmt.Errorf("%s: nothing would be recorded, since no profiler is chosen; add profiler=torch and torch_profiler_dir=DIR (--profile-dir DIR is the same), or profiler=null to leave it off",
		strings.Join(unused, ", "))
}

// Validate reports all faults at once and makes the directory absolute, with ~ standing for the user's home.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	switch c.Profiler {
	case KindNone, KindTorch, KindCUDA:
	default:
		fault(`profiler: got %q, want "torch", "cuda" or null`, c.Profiler)
	}
	if err := c.validateDir(); err != nil {
		faults = append(faults, err)
	}
	faults = append(faults, c.validateCounts()...)
	if !slices.Contains(details, c.Detail) {
		fault("detail: got %q, want one of %q", c.Detail, details)
	}
	if !prefixes.MatchString(c.ProfilePrefix) {
		fault("profile_prefix: got %q, want at most 64 letters, digits, _ and -", c.ProfilePrefix)
	}
	if !slices.Contains(recorders, c.Recorder) {
		fault("recorder: got %q, want one of %q", c.Recorder, recorders)
	}
	if len(c.Activities) == 0 {
		fault("activities: the list is empty, want some of %q", activities)
	}
	for i, a := range c.Activities {
		switch {
		case !slices.Contains(activities, a):
			fault("activities: got %q, want some of %q", a, activities)
		case slices.Contains(c.Activities[:i], a):
			fault("activities: %q is listed twice", a)
		}
	}
	faults = append(faults, c.validateRing()...)
	return errors.Join(faults...)
}

// validateDir checks torch_profiler_dir against the kind of profiler and makes it absolute.
func (c *Config) validateDir() error {
	switch {
	case c.TorchProfilerDir == "":
		if c.Profiler == KindTorch {
			return errors.New(`torch_profiler_dir must be set when profiler is "torch"`)
		}
		return nil
	case c.Profiler != KindTorch:
		return errors.New(`torch_profiler_dir is only applicable when profiler is "torch"`)
	case strings.Contains(c.TorchProfilerDir, "://"):
		return fmt.Errorf("torch_profiler_dir: got %q, want a local directory", c.TorchProfilerDir)
	}
	dir, err := expand(c.TorchProfilerDir)
	if err != nil {
		return fmt.Errorf("torch_profiler_dir: %w", err)
	}
	c.TorchProfilerDir = dir
	return nil
}

// validateCounts checks the numbers.
func (c *Config) validateCounts() (faults []error) {
	for _, count := range []struct {
		name         string
		got, atLeast int
	}{
		{"delay_iterations", c.DelayIterations, 0},
		{"max_iterations", c.MaxIterations, 0},
		{"wait_iterations", c.WaitIterations, 0},
		{"warmup_iterations", c.WarmupIterations, 0},
		{"active_iterations", c.ActiveIterations, 1},
		{"max_events", c.MaxEvents, 0},
	} {
		if count.got < count.atLeast {
			faults = append(faults, fmt.Errorf("%s: got %d, want at least %d", count.name, count.got, count.atLeast))
		}
	}
	for _, amount := range []struct {
		name string
		got  float64
	}{
		{"max_seconds", c.MaxSeconds},
		{"max_trace_mb", c.MaxTraceMB},
		{"ring_seconds", c.RingSeconds},
		{"ring_slo_ms", c.RingSLOMS},
	} {
		if !(amount.got >= 0 && amount.got <= MaxAmount) { // so that NaN is refused as well
			faults = append(faults, fmt.Errorf("%s: got %v, want 0 to %v", amount.name, amount.got, MaxAmount))
		}
	}
	return faults
}

// validateRing checks what the flight recorder needs.
func (c *Config) validateRing() (faults []error) {
	if c.RingSLOMS > 0 && c.RingSeconds == 0 {
		faults = append(faults, errors.New("ring_slo_ms needs ring_seconds: without a ring there is nothing to dump"))
	}
	if c.RingSeconds > 0 && c.Profiler != KindTorch {
		faults = append(faults, errors.New(`ring_seconds is only applicable when profiler is "torch"`))
	}
	if c.RingSeconds > 0 && c.Recorder != RecorderStream {
		faults = append(faults, fmt.Errorf("ring_seconds needs recorder %q, got %q", RecorderStream, c.Recorder))
	}
	return faults
}

// scheduled reports whether wait, warm-up and active steps follow the delay.
func (c Config) scheduled() bool { return c.WaitIterations > 0 || c.WarmupIterations > 0 }

// limit returns how many steps to record, 0 for any number, and the name of the setting that says so.
func (c Config) limit() (steps int, reason string) {
	if c.scheduled() && (c.MaxIterations == 0 || c.ActiveIterations < c.MaxIterations) {
		return c.ActiveIterations, EndActiveIterations
	}
	return c.MaxIterations, EndMaxIterations
}

// IdleLimit is how long a session that is to end after a number of steps waits for the next one, unless max_seconds limits it:
// a stage that gets no work would never come to its last.
const IdleLimit = 5 * time.Minute

// idleLimit is IdleLimit if it holds, else 0.
func (c Config) idleLimit() time.Duration {
	if steps, _ := c.limit(); steps == 0 || c.MaxSeconds > 0 {
		return 0
	}
	return IdleLimit
}

// MaxCount is the most that a setting that counts may be: every reader of JSON keeps it exact.
const MaxCount = 1<<53 - 1

// MaxAmount is the most that a setting of seconds, milliseconds or megabytes may be: a timer can hold that many seconds, and an
// int64 that many megabytes.
const MaxAmount = 1e9

// expand makes path absolute and replaces a leading ~.
func expand(path string) (string, error) {
	if path == "~" || strings.HasPrefix(path, "~/") {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("expand %q: %w", path, err)
		}
		path = filepath.Join(home, path[1:])
	}
	return filepath.Abs(path)
}
