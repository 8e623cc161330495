package profiler

import (
	"errors"
	"maps"
	"slices"
)

// ErrNotEnabled says that the configuration does not ask for profiling.
var ErrNotEnabled = errors.New(`profiling is not enabled: set profiler to "torch" and torch_profiler_dir`)

// State is how far a worker's session has come.
type State string

// The states of a session, in their order; Failed can follow each of them.
const (
	// StateArmed waits for the step in which recording begins, or warms up.
	StateArmed State = "armed"
	// StateRecording collects.
	StateRecording State = "recording"
	// StateWriting has ended collection and writes the files.
	StateWriting State = "writing"
	// StateDone has written everything there is to write; if that is no table, the report's error says why.
	StateDone State = "done"
	// StateFailed is described by the report's error.
	StateFailed State = "failed"
)

// Why a session's collection ended.
const (
	// EndStop is a call of Stop.
	EndStop = "stop"
	// EndMaxIterations is max_iterations reached.
	EndMaxIterations = "max_iterations"
	// EndActiveIterations is active_iterations recorded.
	EndActiveIterations = "active_iterations"
	// EndMaxSeconds is max_seconds over.
	EndMaxSeconds = "max_seconds"
	// EndIdle is max_iterations or active_iterations not reached, since there was nothing to do for IdleLimit.
	EndIdle = "idle"
	// EndMaxEvents and EndMaxTraceMB are max_events and max_trace_mb reached.
	EndMaxEvents  = "max_events"
	EndMaxTraceMB = "max_trace_mb"
	// EndError is a recorder that cannot go on, as when the disk is full.
	EndError = "error"
	// EndDump is a ring that was dumped.
	EndDump = "dump"
	// EndShutdown is the end of the worker.
	EndShutdown = "shutdown"
)

// Report is what one worker says about one session.
type Report struct {
	Identity
	// Session is empty if the worker never had one.
	Session string `json:"session"`
	State   State  `json:"state"`
	// Active is true until the session is stopped, also when a budget has ended its collection before.
	Active bool `json:"active"`
	// Ended says why collection ended.
	Ended string `json:"ended,omitempty"`
	// Steps counts the recorded ProfilerStep annotations; a step that the end of the recording went through is none.
	Steps int64 `json:"steps"`
	// Events counts what the trace holds.
	Events int64 `json:"events"`
	// Dropped counts what the trace lacks, by reason.
	Dropped map[string]int64 `json:"dropped"`
	// Bytes is the size of all files; until they are complete, of what has been written of the trace.
	Bytes int64 `json:"bytes"`
	// StartedNS and StoppedNS bound the collection in Unix nanoseconds of the worker's clock; 0 while unknown.
	StartedNS int64 `json:"started_ns,omitempty"`
	StoppedNS int64 `json:"stopped_ns,omitempty"`
	// StopMS is how long ending collection took.
	StopMS float64 `json:"stop_ms"`
	// WriteMS is how long writing the files took, away from that thread.
	WriteMS float64 `json:"write_ms"`
	// OverheadPct is the time that recording took from the threads that run operators, in percent of the recorded time.
	OverheadPct float64 `json:"overhead_pct"`
	// Files are complete when State is StateDone; before that the list is empty.
	Files []File `json:"files"`
	// Missing are the paths of files that the session should have left and has not.
	Missing []string `json:"missing,omitempty"`
	// Clock is the difference between the worker's clock and that of the pipeline.
	Clock Clock  `json:"clock"`
	Error string `json:"error,omitempty"`
	// Ring is the worker's flight recorder, if it has one.
	Ring *Ring `json:"ring,omitempty"`
}

// Ring is the state of a flight recorder.
type Ring struct {
	Seconds float64 `json:"seconds"`
	// Recording is false while a session has taken its place, and after an error.
	Recording bool   `json:"recording"`
	Error     string `json:"error,omitempty"`
}

// Clock is how far a clock is ahead of another, and how wrong that may be: half the time in which it was asked.
type Clock struct {
	OffsetNS int64 `json:"offset_ns"`
	ErrorNS  int64 `json:"error_ns"`
}

// File is one output of a session.
type File struct {
	Path string `json:"path"`
	// Kind is "trace" or "table".
	Kind  string `json:"kind"`
	Bytes int64  `json:"bytes"`
}

// Ended reports whether nothing more will happen to the session by itself: its files are complete or it failed.
func (s State) Ended() bool { return s == StateDone || s == StateFailed }

// DroppedTotal is the number of lost events for whatever reason.
func (r Report) DroppedTotal() int64 {
	var total int64
	for n := range maps.Values(r.Dropped) {
		total += n
	}
	return total
}

// clone returns a copy that shares nothing with r.
func (r Report) clone() Report {
	r.Dropped = maps.Clone(r.Dropped)
	r.Files = slices.Clone(r.Files)
	r.Missing = slices.Clone(r.Missing)
	return r
}
