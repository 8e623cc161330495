package api

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
)

// profileStatusResponse is the answer of /profile_status.
type profileStatusResponse struct {
	*pipeline.ProfileReport
	// Dir is where the files are, on the server's machine.
	Dir string `json:"dir"`
}

// profileStatus says how the current or last session stands.
func (s *Server) profileStatus(c echo.Context) error {
	report, err := s.cfg.Profiler.ProfileStatus()
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, profileStatusResponse{ProfileReport: report, Dir: s.cfg.Profiler.ProfileDir()})
}

// dumpProfileRequest is the body of /dump_profile: there is nothing to choose.
type dumpProfileRequest struct{}

// dumpProfile makes a session of what the flight recorder holds.
func (s *Server) dumpProfile(c echo.Context) error {
	var request dumpProfileRequest
	if err := decode(c, &request); err != nil {
		return err
	}
	report, err := s.cfg.Profiler.DumpProfile(c.Request().Context())
	if err != nil {
		return err
	}
	return s.answerProfile(c, report, false)
}
