package api

import (
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"
)

// modelList is the answer of /v1/models.
type modelList struct {
	Object string  `json:"object"`
	Data   []model `json:"data"`
}

// model is one name of the model that is served.
type model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	Root    string `json:"root"` // the name that answers have
}

// models lists the names that requests may give the model.
func (s *Server) models(c echo.Context) error {
	list := modelList{Object: "list", Data: []model{}}
	for _, name := range s.cfg.Models {
		list.Data = append(list.Data, model{
			ID: name, Object: "model", Created: s.started.Unix(), OwnedBy: "omni", Root: s.cfg.Models[0],
		})
	}
	return c.JSON(http.StatusOK, list)
}

// checkModel refuses a request for another model. No name means the one that there is.
func (s *Server) checkModel(name string) error {
	if name == "" || slices.Contains(s.cfg.Models, name) {
		return nil
	}
	return &failure{code: codeNoModel, param: "model", err: fail(codeNoModel,
		"the model %q is not served here; GET /v1/models lists those that are", name)}
}
