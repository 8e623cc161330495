package pipeline

import (
	"log/slog"

	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/telemetry"
)

// Config is what [Open] needs to know. The zero value of every field but Model has a meaning.
type Config struct {
	// Model is a checkpoint's folder, or a hub id that lies in the local Hugging Face cache.
	Model string
	// StageConfigsPath is a YAML file with the stages' deployment; empty for the family's own.
	StageConfigsPath string
	// DType overrides the element type of every stage: auto, float32, bfloat16 or float16.
	DType string
	// Device overrides the device of every stage: auto, cpu or cuda:N.
	Device string
	// Machine lists the GPUs that stages without a device are placed on, asked only if there is such a stage; nil for a
	// program that uses none. It is a function, and not a call of the driver's library in here, because that library is
	// linked with flags that would hide missing functions in programs that link libomni.so as well.
	Machine func() (config.Machine, error)
	// SpeechMode overrides the mode of every stage that can work on chunks: config.ModeFull, where speech begins when all
	// codes are there and equals the reference, or config.ModeStream, where it is made in chunks while they come.
	SpeechMode string
	// DefaultSpeechMode is the mode of those for which the stages' configuration names none; empty is config.ModeFull.
	DefaultSpeechMode string
	// MaxConcurrency limits the requests that are in the stages at once; the others wait in the order of their
	// arrival. 0 means 16.
	MaxConcurrency int
	// Profiler is what StartProfile records; the zero value turns profiling off.
	Profiler profiler.Config
	// Telemetry says what the machine's GPUs do during profile sessions; nil for nothing. Package profiler/gpu has one for
	// NVIDIA's.
	Telemetry telemetry.Source
	// ProfileCeilings bound what the settings of one StartProfileWith may ask for.
	ProfileCeilings profiler.Ceilings
	// WorkerPath is the worker's executable; empty for omni-worker beside the running program, else on the PATH.
	WorkerPath string
	// WorkerEnv is added to the environment of the workers, as "NAME=value".
	WorkerEnv []string
	// Limits bound how long the pipeline waits for its workers; zero fields have defaults.
	Limits Limits
	// Log receives what happens to workers; nil for nothing.
	Log *slog.Logger
	// Progress is called while the stages load, by one goroutine at a time, also when a worker is started again; nil for
	// nothing.
	Progress func(Progress)
}

// Progress says how far a stage has come in loading its weights.
type Progress struct {
	Stage int
	Name  string // of the stage: thinker
	Done  int64  // bytes
	Total int64  // bytes; 0 while unknown
	Ready bool   // the stage can work
}
