package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/worker"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/torch"
)

// backend is package torch as a worker.Backend: the same calls, with the messages' types for tensors and errors.
type backend struct{}

// Init implements worker.Backend.
func (backend) Init(threads int) error { return coded(torch.Init(threads)) }

// OpenEngine implements worker.Backend.
func (backend) OpenEngine(config json.RawMessage) (worker.Engine, error) {
	e, err := torch.OpenEngine(config)
	if err != nil {
		return nil, coded(err)
	}
	return &engine{e}, nil
}

// StartRecorder implements worker.Backend.
func (backend) StartRecorder(config json.RawMessage) (profiler.Recorder, error) {
	r, err := torch.StartRecorder(config)
	if err != nil {
		return nil, coded(err)
	}
	return recorder{r}, nil
}

// engine is a torch.Engine as a worker.Engine.
type engine struct{ torch *torch.Engine }

// Load implements worker.Engine.
func (e *engine) Load(progress func(done, total int64) error) error {
	return coded(e.torch.Load(progress))
}

// Info implements worker.Engine.
func (e *engine) Info() (json.RawMessage, error) {
	info, err := e.torch.Info()
	return info, coded(err)
}

// Admit implements worker.Engine.
func (e *engine) Admit(sequence uint64, params json.RawMessage) error {
	return coded(e.torch.Admit(sequence, params))
}

// Feed implements worker.Engine.
func (e *engine) Feed(sequence uint64, in worker.Input) error {
	input := torch.Input{Tokens: in.Tokens, Last: in.Last}
	for _, t := range in.Tensors {
		input.Tensors = append(input.Tensors, torch.Tensor(t))
	}
	return coded(e.torch.Feed(sequence, input))
}

// Step implements worker.Engine.
func (e *engine) Step(sequences []uint64) ([]worker.Result, error) {
	steps, err := e.torch.Step(sequences)
	if err != nil {
		return nil, coded(err)
	}
	results := make([]worker.Result, len(steps))
	for i, s := range steps {
		r := worker.Result{Sequence: s.Sequence, Tokens: s.Tokens, Err: coded(s.Err), Wanted: s.Wanted}
		if r.State, err = state(s.State); err != nil {
			return nil, err
		}
		if r.Finish, err = finish(s.Finish); err != nil {
			return nil, err
		}
		for _, t := range s.Tensors {
			r.Tensors = append(r.Tensors, message.Tensor(t))
		}
		results[i] = r
	}
	return results, nil
}

// Release implements worker.Engine.
func (e *engine) Release(sequence uint64) error { return coded(e.torch.Release(sequence)) }

// Close implements worker.Engine.
func (e *engine) Close() error { return coded(e.torch.Close()) }

func state(s torch.State) (message.State, error) {
	switch s {
	case torch.Ready:
		return message.StateReady, nil
	case torch.Waiting:
		return message.StateWaiting, nil
	case torch.Done:
		return message.StateDone, nil
	case torch.Failed:
		return message.StateFailed, nil
	}
	return "", fmt.Errorf("the library reports the unknown state %d", int(s))
}

func finish(f torch.Finish) (message.Finish, error) {
	switch f {
	case torch.FinishNone:
		return message.FinishNone, nil
	case torch.FinishStop:
		return message.FinishStop, nil
	case torch.FinishLength:
		return message.FinishLength, nil
	}
	return "", fmt.Errorf("the library reports the unknown finish reason %d", int(f))
}

// coded gives an error of the library the type that keeps its code on the way to the pipeline. Others pass as they are.
func coded(err error) error {
	var e *torch.Error
	if !errors.As(err, &e) {
		return err
	}
	return message.Errorf(message.Code(e.Code), "%s: %s", e.Op, e.Message)
}
