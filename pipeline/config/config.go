package config

import (
	"errors"
	"fmt"
	"slices"
)

// Config is the deployment of one pipeline.
type Config struct {
	// Source says where the configuration came from: a file name, or "built-in".
	Source string
	// Stages are the stages to run, by ascending ID. A file may leave out the last stages of the family.
	Stages []Stage
	// Notes are keys of the file that are understood but change nothing here, each with the reason.
	Notes []string
}

// Stage is the deployment of one stage. ID, Name, Inputs and FinalOutput are the family's: a file may repeat them
// but not change them.
type Stage struct {
	ID           int
	Name         string
	Inputs       []int
	FinalOutput  string
	Device       string // "auto", "cpu" or "cuda:N"
	Threads      int    // 0: the machine's cores are shared among the stages
	DType        string // "auto" (the checkpoint's), "float32", "bfloat16" or "float16"
	MaxBatchSize int
	// Sampling holds the family's defaults overlaid with the file's default_sampling_params.
	Sampling SamplingParams
	// Chunks says that the stage can work on chunks of its input; only then Speech may be set.
	Chunks bool
	Speech Speech
	// Profiler is the raw profiler_config, nil if there is none; package profiler decodes it.
	Profiler map[string]any
}

// DTypes are the element types that a stage can be asked for.
var DTypes = []string{"auto", "float32", "bfloat16", "float16"}

// Stage returns the stage with that ID.
func (c *Config) Stage(id int) (Stage, bool) {
	for _, s := range c.Stages {
		if s.ID == id {
			return s, true
		}
	}
	return Stage{}, false
}

// Clone returns a deep copy.
func (c *Config) Clone() *Config {
	out := *c
	out.Notes = slices.Clone(c.Notes)
	out.Stages = slices.Clone(c.Stages)
	for i := range out.Stages {
		s := &out.Stages[i]
		s.Inputs = slices.Clone(s.Inputs)
		s.Sampling = s.Sampling.Merge(SamplingParams{})
		s.Speech = s.Speech.Merge(Speech{})
		s.Profiler = cloneMap(s.Profiler)
	}
	return &out
}

// WithDevice returns a copy in which every stage runs on device.
func (c *Config) WithDevice(device string) *Config {
	out := c.Clone()
	for i := range out.Stages {
		out.Stages[i].Device = device
	}
	return out
}

// WithDType returns a copy in which every stage is asked for dtype. Engines that always compute in float32 keep
// doing so.
func (c *Config) WithDType(dtype string) *Config {
	out := c.Clone()
	for i := range out.Stages {
		out.Stages[i].DType = dtype
	}
	return out
}

// Validate reports all faults of the configuration, joined.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Stages) == 0 {
		errs = append(errs, errors.New("stages: there is no stage"))
	}
	seen := map[int]bool{}
	for _, s := range c.Stages {
		if seen[s.ID] {
			errs = append(errs, fmt.Errorf("stage %d: stage_id is used twice", s.ID))
		}
		seen[s.ID] = true
	}
	for _, s := range c.Stages {
		for _, err := range s.faults(seen) {
			errs = append(errs, fmt.Errorf("stage %d: %w", s.ID, err))
		}
	}
	return errors.Join(errs...)
}

func (s Stage) faults(ids map[int]bool) []error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.ID < 0 {
		add("stage_id is %d, want 0 or more", s.ID)
	}
	if err := CheckDevice(s.Device); err != nil {
		add("devices: %w", err)
	}
	if err := CheckDType(s.DType); err != nil {
		add("dtype: %w", err)
	}
	if s.Threads < 0 {
		add("threads is %d, want 0 (share the cores) or more", s.Threads)
	}
	if s.MaxBatchSize < 1 {
		add("max_batch_size is %d, want 1 or more", s.MaxBatchSize)
	}
	for _, in := range s.Inputs {
		if !ids[in] {
			add("engine_input_source names stage %d, which is not in this pipeline", in)
		}
	}
	if err := s.Sampling.Validate(); err != nil {
		add("default_sampling_params: %w", err)
	}
	if s.Speech != (Speech{}) && !s.Chunks {
		add("mode and sizes of chunks are set, but the stage does not work on chunks")
	}
	if err := s.Speech.Validate(); err != nil {
		errs = append(errs, unjoin(err)...)
	}
	return errs
}
