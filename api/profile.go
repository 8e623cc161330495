package api

import "github.com/omni-run/omni/pipeline"

// Profiler controls profile sessions. *pipeline.Omni is one if it was opened with a profiler configuration.
type Profiler interface {
	// StartProfile begins a session in the named stages, in all if there is no name.
	StartProfile(stages []int) (*pipeline.ProfileReport, error)
	// StopProfile ends the session in the named stages, in all if there is no name, and waits for the files.
	StopProfile(stages []int) (*pipeline.ProfileReport, error)
	// ProfileStatus reports the current or last session.
	ProfileStatus() (*pipeline.ProfileReport, error)
}
