package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
)

// Sentinels, for errors.Is.
var (
	// ErrClosed is returned by everything after Close.
	ErrClosed = errors.New("the pipeline is closed")
	// ErrInvalidRequest is in the chain of every error whose cause is the request itself.
	ErrInvalidRequest = errors.New("invalid request")
	// ErrWorkerDied is in the chain of every error whose cause is the end of a worker process.
	ErrWorkerDied = errors.New("the worker died")
	// ErrUnknownStage is returned for a stage id that the pipeline does not run.
	ErrUnknownStage = errors.New("no such stage")
	// ErrProfileActive is returned by StartProfile while a session is active.
	ErrProfileActive = errors.New("a profile session is active")
	// ErrNoProfile is returned for a session that is not known any more, or never was, and for a stage that is not in it.
	ErrNoProfile = errors.New("no such profile session")
)

// StageError is a fault of one stage: of its worker, or of one request in it.
type StageError struct {
	Stage     int
	Name      string       // thinker
	Code      message.Code // class of the fault
	Cause     error        // what happened
	LastWords string       // end of the worker's standard error, if the worker died; may be empty
}

// Error says which stage, what, and the worker's last words.
func (e *StageError) Error() string {
	text := fmt.Sprintf("stage %d (%s): %v", e.Stage, e.Name, e.Cause)
	if e.LastWords != "" {
		text += "; its last words: " + strings.TrimSpace(e.LastWords)
	}
	return text
}

// Unwrap returns the cause.
func (e *StageError) Unwrap() error { return e.Cause }

// joinStages joins the faults of stages, which are in the same order, nil where there is none. What went wrong in several stages in
// the same way is said once, with all of them.
func joinStages(stages []*stage, faults []error) error {
	type kind struct {
		places       []string
		first, cause error
	}
	kinds := map[string]*kind{}
	var order []*kind
	for i, fault := range faults {
		if fault == nil {
			continue
		}
		cause := fault
		if of := (*StageError)(nil); errors.As(fault, &of) && of.LastWords == "" {
			cause = of.Cause // the rest of its text is the stage
		}
		k := kinds[cause.Error()]
		if k == nil {
			k = &kind{first: fault, cause: cause}
			kinds[cause.Error()] = k
			order = append(order, k)
		}
		k.places = append(k.places, fmt.Sprintf("%d (%s)", stages[i].id, stages[i].name))
	}
	var joined []error
	for _, k := range order {
		switch {
		case len(k.places) > 1:
			joined = append(joined, fmt.Errorf("stages %s: %w", strings.Join(k.places, ", "), k.cause))
		case errors.As(k.first, new(*StageError)):
			joined = append(joined, k.first)
		default:
			joined = append(joined, fmt.Errorf("stage %s: %w", k.places[0], k.cause))
		}
	}
	return errors.Join(joined...)
}

// CodeOf returns the class of err: that of the StageError or message.Error in its chain, that of a sentinel, else
// INTERNAL.
func CodeOf(err error) message.Code {
	if err == nil {
		return message.OK
	}
	var stage *StageError
	switch {
	case errors.As(err, &stage):
		return stage.Code
	case errors.Is(err, ErrInvalidRequest), errors.Is(err, ErrUnknownStage), errors.Is(err, profiler.ErrSetting):
		return message.InvalidArgument
	case errors.Is(err, ErrNoProfile):
		return message.NotFound
	case errors.Is(err, ErrClosed), errors.Is(err, ErrProfileActive), errors.Is(err, profiler.ErrNotEnabled), errors.Is(err, profiler.ErrNoRing):
		return message.FailedPrecondition
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return message.Cancelled
	}
	var e *message.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return message.Internal
}
