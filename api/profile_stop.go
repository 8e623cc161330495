package api

import (
	"errors"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
)

// stopProfileRequest is the body of /stop_profile; none means the whole session.
type stopProfileRequest struct {
	// Stages to stop; none or null for all of the session.
	Stages stageIDs `json:"stages"`
	// Session is the one that is meant; empty for whichever is active.
	Session string `json:"session"`
	// Wait says whether to answer when the files are complete rather than when collection has ended; null for yes.
	Wait *bool `json:"wait"`
}

// stopProfile ends collection.
func (s *Server) stopProfile(c echo.Context) error {
	var request stopProfileRequest
	if err := decode(c, &request); err != nil {
		return err
	}
	if err := checkStages(request.Stages); err != nil {
		return err
	}
	if request.Session == "" {
		if err := s.isActive(); err != nil {
			return err
		}
	}
	wait := request.Wait == nil || *request.Wait
	report, err := s.cfg.Profiler.StopProfileWith(c.Request().Context(), pipeline.ProfileStopOptions{
		Stages: request.Stages, Session: request.Session, Wait: wait,
	})
	if errors.Is(err, pipeline.ErrNoProfile) && request.Session != "" && len(request.Stages) == 0 {
		return &failure{code: codeNotFound, param: "session", err: err}
	}
	if err != nil {
		return err
	}
	return s.answerProfile(c, report, wait)
}

// isActive is an error if there is nothing to stop. Whoever names a session may stop it again, and gets its report again.
func (s *Server) isActive() error {
	report, err := s.cfg.Profiler.ProfileStatus()
	switch {
	case err != nil:
		return err
	case report.Session == "":
		return fail(codeBusy, "there is nothing to stop: no session was started")
	case !report.Active:
		return fail(codeBusy, "there is nothing to stop: session %s was stopped before; GET /profile_status says how it stands", report.Session)
	}
	return nil
}
