package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
)

// errNoResponse is a fault of the engine.
var errNoResponse = errors.New("the engine ended without a response")

// generate runs a request and gives its events to take, the end of which it keeps for itself. The error of take ends the request.
func (s *Server) generate(c echo.Context, req pipeline.Request, take func(pipeline.Event) error) (*pipeline.Response, error) {
	ctx := c.Request().Context()
	req.ID = entryOf(c).id
	observation := s.metrics.begin()
	for event, err := range s.cfg.Engine.Stream(ctx, req) {
		switch {
		case err != nil:
			return nil, observation.failed(cause(ctx, err))
		case event.Kind == pipeline.EventDone:
			if event.Response == nil {
				return nil, observation.failed(errNoResponse)
			}
			observation.done(event.Response)
			return event.Response, nil
		}
		observation.event(event)
		if err := take(event); err != nil {
			return nil, observation.failed(cause(ctx, err))
		}
	}
	return nil, observation.failed(errNoResponse)
}

// cause says why the context of a request has ended, if that is what an error came of.
func cause(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), err)
}

// sampleRate is that of the model's speech, 0 if it has none.
func sampleRate(stages []pipeline.StageStatus) int {
	rate := 0
	for _, stage := range stages {
		if stage.Info.SampleRate > 0 {
			rate = stage.Info.SampleRate
		}
	}
	return rate
}
