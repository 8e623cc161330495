package profiler

import "encoding/json"

// Recorder is one recording, which has begun when [StartRecorder] returns it. The order of calls is any number of
// StepBegin and StepEnd pairs, and of ScopeBegin and ScopeEnd pairs between them, then Stop, Finish, Close; Close may come
// earlier when something failed. After a Cut, Stop and Finish come in any order, also at the same time.
//
// Finish runs on a goroutine of its own; Status, Cut and Dump on any, Status at any time before Close. Everything else is
// called on the goroutine that runs the operators. Apart from Status, and Stop after a Cut, no two calls meet.
type Recorder interface {
	// StepBegin opens the annotation ProfilerStep#number; StepEnd closes it.
	StepBegin(number int64) error
	StepEnd() error
	// ScopeBegin opens an annotation between two steps; ScopeEnd closes it.
	ScopeBegin(name string) error
	ScopeEnd() error
	// CallSite says where in the program annotations of that name are opened from now on, as "file(line): function";
	// "ProfilerStep" stands for all steps.
	CallSite(name, site string) error
	// Status returns the JSON form of a [RecorderStatus].
	Status() (json.RawMessage, error)
	// Dump makes of what a ring holds now a second recording, which has ended and waits for Finish; the ring goes on. A
	// step that is open ends there as Cut ends it. config is the JSON object that [DumpConfig] encodes.
	Dump(config json.RawMessage) (Recorder, error)
	// Cut ends collection in the middle of a step, which then does not count. Stop must still be called. An error says
	// that this recorder ends in Stop alone, and it goes on.
	Cut() error
	// Stop ends collection, unless Cut has. Whatever is to be written is written by Finish.
	Stop() error
	// Finish writes the files and returns what they are, in the JSON form of a recorder result.
	Finish() (json.RawMessage, error)
	// Close frees the recorder and removes files that were not finished.
	Close()
}

// StartRecorder begins to record. config is the JSON object that [RecorderConfig] encodes.
type StartRecorder func(config json.RawMessage) (Recorder, error)

// RecorderConfig is what a recorder is told.
type RecorderConfig struct {
	Recorder  string `json:"recorder"`
	Session   string `json:"session"`
	Worker    string `json:"worker"`
	Stage     int    `json:"stage"`
	Rank      int    `json:"rank"`
	WorldSize int    `json:"world_size"`
	TracePath string `json:"trace_path"`
	TablePath string `json:"table_path,omitempty"`
	// BaseTimeNS is the same for all workers of a session, so that their traces count from the same day.
	BaseTimeNS   int64    `json:"base_time_ns"`
	Detail       string   `json:"detail"`
	RecordShapes bool     `json:"record_shapes"`
	WithStack    bool     `json:"with_stack"`
	WithFLOPs    bool     `json:"with_flops"`
	WithMemory   bool     `json:"with_memory"`
	UseGzip      bool     `json:"use_gzip"`
	Activities   []string `json:"activities"`
	// MaxEvents, MaxTraceBytes and RingSeconds are those of the Config; 0 is no limit and no ring.
	MaxEvents     int            `json:"max_events,omitempty"`
	MaxTraceBytes int64          `json:"max_trace_bytes,omitempty"`
	RingSeconds   float64        `json:"ring_seconds,omitempty"`
	Metadata      map[string]any `json:"metadata,omitempty"`
}

// DumpConfig is what a ring is told of the session that its contents become.
type DumpConfig struct {
	Session    string         `json:"session"`
	TracePath  string         `json:"trace_path"`
	TablePath  string         `json:"table_path,omitempty"`
	BaseTimeNS int64          `json:"base_time_ns"`
	Metadata   map[string]any `json:"metadata,omitempty"`
}

// RecorderStatus is how far a recording has come.
type RecorderStatus struct {
	Events     int64            `json:"events"`
	Dropped    map[string]int64 `json:"dropped"`
	TraceBytes int64            `json:"trace_bytes"`
	// OverheadNS is the time that recording has taken from the threads that run operators.
	OverheadNS int64 `json:"overhead_ns"`
	// Full says why the recorder takes no more events: EndMaxEvents, EndMaxTraceMB, EndError, or nothing.
	Full string `json:"full"`
}

// recorderResult is what Finish returns.
type recorderResult struct {
	Files      []File           `json:"files"`
	Events     int64            `json:"events"`
	Steps      int64            `json:"steps"`
	Dropped    map[string]int64 `json:"dropped"`
	WriteMS    float64          `json:"write_ms"`
	OverheadNS int64            `json:"overhead_ns"`
	WallNS     int64            `json:"wall_ns"` // recorded
	TableError string           `json:"table_error"`
}

// share is the overhead in percent of the recorded time.
func share(overheadNS, wallNS int64) float64 {
	if wallNS <= 0 {
		return 0
	}
	return 100 * float64(overheadNS) / float64(wallNS)
}
