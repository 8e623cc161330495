package api

import (
	"context"
	"iter"

	"github.com/omni-run/omni/pipeline"
)

// Engine generates. *pipeline.Omni is one.
type Engine interface {
	// Stream runs a request and gives out its result as it comes, the whole response last.
	Stream(ctx context.Context, req pipeline.Request) iter.Seq2[pipeline.Event, error]
	// Stages says what runs, and how.
	Stages() []pipeline.StageStatus
	// Load says what every stage has to do at the moment.
	Load(ctx context.Context) []pipeline.StageLoad
}
