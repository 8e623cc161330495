package pipeline

import "github.com/omni-run/omni/pipeline/family"

// StageState is what a stage's worker is doing.
type StageState string

// The states of a stage.
const (
	StageLoading StageState = "loading"
	StageReady   StageState = "ready"
	StageDown    StageState = "down" // died or failed; it will be started again
	StageClosed  StageState = "closed"
)

// StageStatus is one stage as Stages reports it.
type StageStatus struct {
	ID       int              `json:"id"`
	Name     string           `json:"name"`
	Model    string           `json:"model"` // the engine's name
	State    StageState       `json:"state"`
	PID      int              `json:"pid"` // 0 while there is no process
	Threads  int              `json:"threads"`
	MaxBatch int              `json:"max_batch"`
	Restarts int              `json:"restarts"`
	Error    string           `json:"error,omitempty"` // why the worker is down
	Info     family.StageInfo `json:"info"`            // of the engine, once it was ready
}
