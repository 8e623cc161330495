package api

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
)

// stagesResponse is the answer of /stages. Whoever wants a rate takes the difference of two.
type stagesResponse struct {
	Model   string `json:"model"`
	Version string `json:"version"`
	// TimeNS is when this was, UptimeS for how long the server has been up.
	TimeNS  int64   `json:"time_ns"`
	UptimeS float64 `json:"uptime_s"`
	// Requests are the generations that run or wait.
	Requests int64                `json:"requests"`
	Draining bool                 `json:"draining"`
	Profiler bool                 `json:"profiler"` // the profile routes exist
	Stages   []pipeline.StageLoad `json:"stages"`
}

// stages says what every stage has to do at the moment.
func (s *Server) stages(c echo.Context) error {
	return c.JSON(http.StatusOK, stagesResponse{
		Model: s.cfg.Models[0], Version: s.cfg.Version, TimeNS: time.Now().UnixNano(), UptimeS: time.Since(s.started).Seconds(),
		Requests: s.inside.Load(), Draining: s.draining.Load(), Profiler: s.cfg.Profiler != nil,
		Stages: s.cfg.Engine.Load(c.Request().Context()),
	})
}
