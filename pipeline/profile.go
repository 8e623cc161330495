package pipeline

import (
	"github.com/omni-run/omni/profiler"
)

// ProfileReport says how a profile session stands, worker by worker.
type ProfileReport struct {
	// Session is empty if there never was one.
	Session string `json:"session"`
	// Active is true until the session is stopped.
	Active bool `json:"active"`
	// Workers has one report for each worker of the session, by stage.
	Workers []profiler.Report `json:"workers"`
	// Files are all files that are complete.
	Files []ProfileFile `json:"files"`
}

// ProfileFile is one file of a profile session.
type ProfileFile struct {
	Path    string `json:"path"`
	Stage   int    `json:"stage"`
	Rank    int    `json:"rank"`
	Kind    string `json:"kind"` // trace or table
	Bytes   int64  `json:"bytes"`
	Events  int64  `json:"events"`  // of the worker
	Dropped int64  `json:"dropped"` // of the worker
}
