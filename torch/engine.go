package torch

import (
	"encoding/json"
	"errors"
	"runtime"
)

// State says what a sequence can do after a step.
type State int

// The states of a sequence; the numbers are those of csrc/omni.h.
const (
	Ready   State = 0 // can be stepped again
	Waiting State = 1 // needs input before it can go on
	Done    State = 2 // finished; release it
	Failed  State = 3 // Err says why; release it
)

// String returns the name of the state in lower case.
func (s State) String() string {
	names := [...]string{"ready", "waiting", "done", "failed"}
	if s < 0 || int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// Finish says why a sequence that is [Done] ended.
type Finish int

// The reasons to finish; the numbers are those of csrc/omni.h.
const (
	FinishNone   Finish = 0 // not done, or the model has no other end than that of its input
	FinishStop   Finish = 1 // a stop token
	FinishLength Finish = 2 // max_tokens
)

// String returns "none", "stop" or "length".
func (f Finish) String() string {
	names := [...]string{"none", "stop", "length"}
	if f < 0 || int(f) >= len(names) {
		return "unknown"
	}
	return names[f]
}

// Input is what a running sequence is fed.
type Input struct {
	Tokens  []int64
	Tensors []Tensor
	Last    bool // nothing follows
}

// Result is what one step did for one sequence. Everything in it belongs to the receiver.
type Result struct {
	Sequence uint64
	State    State
	Finish   Finish
	Err      error // an *Error if and only if State is Failed
	Tokens   []int64
	Tensors  []Tensor
	// Wanted is how many more tokens a sequence that is Waiting must be fed before steps can do anything, unless its
	// input ends; 0 if any input may do.
	Wanted int64
}

// Engine is one network with its weights and its sequences. All methods but Info need the torch thread; none may run
// beside another.
type Engine struct {
	inner   *engineHandle
	cleanup runtime.Cleanup
}

// OpenEngine reads the checkpoint's configuration and tensor headers and checks them; the weights come with Load.
// config is the JSON object that omni_engine_open describes. Torch thread.
func OpenEngine(config json.RawMessage) (*Engine, error) {
	inner, err := openEngine(config)
	if err != nil {
		return nil, err
	}
	e := &Engine{inner: inner}
	e.cleanup = runtime.AddCleanup(e, (*engineHandle).free, inner)
	return e, nil
}

// Load loads all weights. It calls progress (if not nil) with bytes of tensor data after each part; an error that
// progress returns ends the loading and is returned as it is. Torch thread.
func (e *Engine) Load(progress func(done, total int64) error) error {
	defer runtime.KeepAlive(e)
	for {
		done, total, err := e.inner.load()
		if err != nil {
			return err
		}
		if progress != nil {
			if err := progress(done, total); err != nil {
				return err
			}
		}
		if done == total {
			return nil
		}
	}
}

// Info returns the JSON object that omni_engine_info describes.
func (e *Engine) Info() (json.RawMessage, error) {
	defer runtime.KeepAlive(e)
	return e.inner.info()
}

// Admit creates a sequence under a number that is not in use. The model defines the keys of params. Torch thread.
func (e *Engine) Admit(sequence uint64, params json.RawMessage) error {
	defer runtime.KeepAlive(e)
	return e.inner.admit(sequence, params)
}

// Feed appends input to a sequence; all of it is copied. One that is Done or Failed takes no notice. Torch thread.
func (e *Engine) Feed(sequence uint64, input Input) error {
	defer runtime.KeepAlive(e)
	var faults []error
	for i := range input.Tensors {
		faults = append(faults, input.Tensors[i].check())
	}
	if err := errors.Join(faults...); err != nil {
		return &Error{Op: "feed sequence", Code: InvalidArgument, Message: err.Error()}
	}
	return e.inner.feed(sequence, input)
}

// Step advances the sequences by one step each and returns one result for each, in their order. An error of one
// sequence is in its result; Step itself fails only for a reason that concerns all. A sequence that is Done says so again,
// without output. Torch thread.
func (e *Engine) Step(sequences []uint64) ([]Result, error) {
	defer runtime.KeepAlive(e)
	return e.inner.step(sequences)
}

// Release drops a sequence in whatever state it is. Torch thread.
func (e *Engine) Release(sequence uint64) error {
	defer runtime.KeepAlive(e)
	return e.inner.release(sequence)
}

// Close frees the engine and all its sequences. Calling it again does nothing. Torch thread.
func (e *Engine) Close() error {
	e.cleanup.Stop()
	e.inner.free()
	return nil
}
