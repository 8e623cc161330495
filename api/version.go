package api

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

// versionResponse is the answer of /version.
type versionResponse struct {
	Version string `json:"version"`
}

// version answers with the program's version.
func (s *Server) version(c echo.Context) error {
	return c.JSON(http.StatusOK, versionResponse{s.cfg.Version})
}
