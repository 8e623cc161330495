// Package pipeline runs a model as a graph of stages, each in a worker process of its own.
package pipeline

import (
	"context"
	"iter"
)

// Omni is an open pipeline. Its methods may be called from any goroutine.
type Omni struct{}

// Open starts a worker for every stage of the model and returns when all are ready.
func Open(ctx context.Context, cfg Config) (*Omni, error) { return nil, ErrClosed }

// Generate runs one request to its end.
func (o *Omni) Generate(ctx context.Context, req Request) (*Response, error) { return nil, ErrClosed }

// Stream runs one request and gives out its result piece by piece; the last event holds the Response. An error ends
// the sequence. Breaking out of the loop cancels the request.
func (o *Omni) Stream(ctx context.Context, req Request) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) { yield(Event{}, ErrClosed) }
}

// StartProfile begins a profile session in the named stages, all if stages is empty.
func (o *Omni) StartProfile(stages []int) (*ProfileReport, error) { return nil, ErrClosed }

// StopProfile ends collection in the named stages, waits for their files and reports them.
func (o *Omni) StopProfile(stages []int) (*ProfileReport, error) { return nil, ErrClosed }

// ProfileStatus reports the current or last session.
func (o *Omni) ProfileStatus() (*ProfileReport, error) { return nil, ErrClosed }

// Stages reports what runs.
func (o *Omni) Stages() []StageStatus { return nil }

// Close cancels the requests that are running, stops the workers and waits for their end.
func (o *Omni) Close() error { return nil }
