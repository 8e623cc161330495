package api

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/profiler"
)

// Profiler controls profile sessions. *pipeline.Omni is one if it was opened with a profiler configuration.
type Profiler interface {
	// StartProfileWith begins a session.
	StartProfileWith(ctx context.Context, options pipeline.ProfileOptions) (*pipeline.ProfileReport, error)
	// StopProfileWith ends collection, and waits for the files if it is asked to.
	StopProfileWith(ctx context.Context, options pipeline.ProfileStopOptions) (*pipeline.ProfileReport, error)
	// WaitProfile waits until all files of a session are complete.
	WaitProfile(ctx context.Context, session string) (*pipeline.ProfileReport, error)
	// DumpProfile makes a session of what the flight recorder holds.
	DumpProfile(ctx context.Context) (*pipeline.ProfileReport, error)
	// ProfileStatus reports the current or last session.
	ProfileStatus() (*pipeline.ProfileReport, error)
	// ProfileDir is where the files of sessions are.
	ProfileDir() string
}

// Values of profileResponse.Status.
const (
	profileSuccess  = "SUCCESS"  // every worker did what was asked
	profileAccepted = "ACCEPTED" // every worker is at it; files are still being written
	profilePartial  = "PARTIAL"  // some workers failed
	profileFailed   = "FAILED"   // all workers failed
)

// profileResponse is the answer of the routes that control sessions.
type profileResponse struct {
	Status string `json:"status"`
	*pipeline.ProfileReport
	// Error says which workers failed, and why.
	Error *errorDetail `json:"error,omitempty"`
}

// profileStatuses maps profileResponse.Status to HTTP.
var profileStatuses = map[string]int{profileSuccess: 200, profileAccepted: 202, profilePartial: 207, profileFailed: 500}

// answerProfile writes a report, with a status that says whether all of it is good.
func (s *Server) answerProfile(c echo.Context, report *pipeline.ProfileReport, awaited bool) error {
	response := profileResponse{Status: profileSuccess, ProfileReport: report}
	if !awaited && !report.Complete {
		response.Status = profileAccepted
	}
	var faults []error
	for _, w := range report.Workers {
		if w.State == profiler.StateFailed {
			faults = append(faults, fail(codeInternal, "%s: %s", w.Worker, w.Error))
		}
	}
	if len(faults) > 0 {
		response.Status = profilePartial
		if len(faults) == len(report.Workers) {
			response.Status = profileFailed
		}
		detail := (&failure{code: codeInternal, err: errors.Join(faults...)}).body(entryOf(c).id).Error
		response.Error = &detail
	}
	return c.JSON(profileStatuses[response.Status], response)
}

// stageIDs are ids of stages.
type stageIDs []int

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (s *stageIDs) UnmarshalJSONFrom(decoder *jsontext.Decoder) error {
	list, err := numbers[int](decoder)
	*s = list
	return err
}

// schema implements describer.
func (stageIDs) schema(*schemas) object {
	return object{"type": "array", "items": object{"type": "integer", "minimum": 0, "maximum": math.MaxInt64}, "uniqueItems": true}
}

// checkStages refuses a list of stages that names one twice, or that no pipeline has.
func checkStages(stages []int) error {
	for i, id := range stages {
		if id < 0 {
			return invalid("stages", "stages: got %d, want 0 or more", id)
		}
		if slices.Contains(stages[:i], id) {
			return invalid("stages", "stages: %d is listed twice", id)
		}
	}
	return nil
}
