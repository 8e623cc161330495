package api

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
)

// healthResponse is the answer of /health.
type healthResponse struct {
	Status string        `json:"status"` // healthy, draining or unhealthy
	Stages []stageHealth `json:"stages"`
}

// stageHealth is one stage in a healthResponse.
type stageHealth struct {
	ID    int                 `json:"id"`
	Name  string              `json:"name"`
	State pipeline.StageState `json:"state"`
}

// health answers 200 if every stage is ready and requests are taken, else 503.
func (s *Server) health(c echo.Context) error {
	response := healthResponse{Status: "healthy", Stages: []stageHealth{}}
	status := http.StatusOK
	for _, stage := range s.cfg.Engine.Stages() {
		response.Stages = append(response.Stages, stageHealth{ID: stage.ID, Name: stage.Name, State: stage.State})
		if stage.State != pipeline.StageReady {
			response.Status, status = "unhealthy", http.StatusServiceUnavailable
		}
	}
	if s.draining.Load() {
		response.Status, status = "draining", http.StatusServiceUnavailable
	}
	return c.JSON(status, response)
}
