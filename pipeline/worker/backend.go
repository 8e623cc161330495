package worker

import (
	"encoding/json"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
)

// Backend makes engines and recordings. The loop calls it, its engines and recorders (as far as profiler.Recorder does not
// say otherwise) on one goroutine. Errors of type *message.Error keep their code on the way to the parent; others become INTERNAL.
type Backend interface {
	// Init is called once and first. threads is the number of threads to compute with, 0 for the library's choice.
	Init(threads int) error
	// OpenEngine reads the checkpoint's description; the weights come with Load.
	OpenEngine(config json.RawMessage) (Engine, error)
	// StartRecorder begins to record.
	StartRecorder(config json.RawMessage) (profiler.Recorder, error)
}

// Engine is one network and its sequences; csrc/omni.h defines the meaning of each call.
type Engine interface {
	// Load loads all weights, calling progress after each part. An error of progress ends it.
	Load(progress func(done, total int64) error) error
	Info() (json.RawMessage, error)
	Admit(sequence uint64, params json.RawMessage) error
	Feed(sequence uint64, input Input) error
	// Step returns one result for each of the sequences, in their order.
	Step(sequences []uint64) ([]Result, error)
	Release(sequence uint64) error
	Close() error
}

// Input is what a sequence is fed.
type Input struct {
	Tokens  []int64
	Tensors []message.Tensor
	Last    bool // nothing follows
}

// Result is what a step did for a sequence. Its tensors belong to the receiver.
type Result struct {
	Sequence uint64
	State    message.State
	Finish   message.Finish
	Err      error // if and only if the state is StateFailed
	Tokens   []int64
	Tensors  []message.Tensor
	// Wanted is how many more tokens a sequence that waits must be fed before steps can do anything, unless its input
	// ends; 0 if any input may do.
	Wanted int64
}
