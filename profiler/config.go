package profiler

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Values of [Config.Profiler] that the user may write.
const (
	// KindNone turns profiling off; it is written null in JSON.
	KindNone = ""
	// KindTorch records operators and annotations into traces and tables.
	KindTorch = "torch"
	// KindCUDA marks ranges for an external CUDA profiler. This build does not have it: Validate says so.
	KindCUDA = "cuda"
)

// Config says whether and how to profile. The names, defaults and rules of the torch_* and *_iterations fields are those of
// vLLM-Omni. Make one with [Default], [FromMap], [FromAny], [FromDir] or [Parse], then call [Config.Validate] once;
// after that it is read-only and can be shared.
type Config struct {
	// Profiler is KindNone or KindTorch.
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
	// MaxIterations is the number of steps to record; 0 does not limit them.
	MaxIterations int
	// WaitIterations and WarmupIterations, if one of them is not 0, put a schedule in front of the recording: after the
	// delay, WaitIterations steps pass, WarmupIterations steps run under a recorder whose results are thrown away, and
	// then ActiveIterations steps are recorded.
	WaitIterations   int
	WarmupIterations int
	ActiveIterations int
	// MaxSeconds ends recording after that time, also in a worker that has no work; 0 does not limit it.
	MaxSeconds float64
	// Detail is "ops" for every operator, or "modules" for steps and module scopes alone, which costs nearly nothing.
	Detail string
	// ProfilePrefix goes in front of the names of trace files.
	ProfilePrefix string
	// Recorder names the implementation: "kineto" is torch's own profiler, complete and slow to stop; "stream" writes the
	// same events while the model runs and stops at once. A Config made by hand must name one; see Default.
	Recorder string
}

// recorders lists the values of [Config.Recorder].
var recorders = []string{"kineto", "stream"}

// details lists the values of [Config.Detail].
var details = []string{"ops", "modules"}

// prefixes is what [Config.ProfilePrefix] may be: no path, nothing hidden, no name that tools would split.
var prefixes = regexp.MustCompile(`^[A-Za-z0-9_-]{0,64}$`)

// Default returns a Config with every default and profiling off.
func Default() Config {
	return Config{
		TorchProfilerWithStack:         true,
		TorchProfilerUseGzip:           true,
		TorchProfilerDumpCUDATimeTotal: true,
		ActiveIterations:               5,
		Detail:                         "ops",
		Recorder:                       "kineto",
	}
}

// FromDir returns the Config that a bare directory stands for (--profile-dir): every default, profiler torch.
func FromDir(dir string) Config {
	c := Default()
	c.Profiler = KindTorch
	c.TorchProfilerDir = dir
	return c
}

// Enabled reports whether the Config asks for profiling.
func (c Config) Enabled() bool { return c.Profiler != KindNone }

// Validate reports all faults at once and makes the directory absolute, with ~ standing for the user's home.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	switch c.Profiler {
	case KindNone, KindTorch:
	case KindCUDA:
		fault(`profiler: "cuda" needs a build with CUDA, which this is not; use "torch"`)
	default:
		fault(`profiler: got %q, want "torch" or null`, c.Profiler)
	}
	switch {
	case c.TorchProfilerDir == "":
		if c.Profiler == KindTorch {
			fault(`torch_profiler_dir must be set when profiler is "torch"`)
		}
	case c.Profiler != KindTorch:
		fault(`torch_profiler_dir is only applicable when profiler is "torch"`)
	case strings.Contains(c.TorchProfilerDir, "://"):
		fault("torch_profiler_dir: got %q, want a local directory", c.TorchProfilerDir)
	default:
		dir, err := expand(c.TorchProfilerDir)
		if err != nil {
			fault("torch_profiler_dir: %w", err)
		} else {
			c.TorchProfilerDir = dir
		}
	}
	for _, count := range []struct {
		name         string
		got, atLeast int
	}{
		{"delay_iterations", c.DelayIterations, 0},
		{"max_iterations", c.MaxIterations, 0},
		{"wait_iterations", c.WaitIterations, 0},
		{"warmup_iterations", c.WarmupIterations, 0},
		{"active_iterations", c.ActiveIterations, 1},
	} {
		if count.got < count.atLeast {
			fault("%s: got %d, want at least %d", count.name, count.got, count.atLeast)
		}
	}
	if !(c.MaxSeconds >= 0 && c.MaxSeconds <= maxSecondsLimit) {
		fault("max_seconds: got %v, want 0 to %v", c.MaxSeconds, maxSecondsLimit)
	}
	if !slices.Contains(details, c.Detail) {
		fault("detail: got %q, want one of %q", c.Detail, details)
	}
	if !prefixes.MatchString(c.ProfilePrefix) {
		fault("profile_prefix: got %q, want at most 64 letters, digits, _ and -", c.ProfilePrefix)
	}
	if !slices.Contains(recorders, c.Recorder) {
		fault("recorder: got %q, want one of %q", c.Recorder, recorders)
	}
	return errors.Join(faults...)
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

// maxSecondsLimit keeps max_seconds within what a timer can hold.
const maxSecondsLimit = 1e9

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
