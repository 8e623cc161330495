package torch

import (
	"encoding/json"
	"runtime"
)

// Recorder profiles what the engines of this process do. The order of calls is StartRecorder, then StepBegin and StepEnd
// in pairs, Stop, Finish, Close. At most one recorder of a process records at a time.
type Recorder struct {
	inner   *recorderHandle
	cleanup runtime.Cleanup
}

// StartRecorder begins to record. config is the JSON object that omni_recorder_start describes. Torch thread.
func StartRecorder(config json.RawMessage) (*Recorder, error) {
	inner, err := startRecorder(config)
	if err != nil {
		return nil, err
	}
	r := &Recorder{inner: inner}
	r.cleanup = runtime.AddCleanup(r, (*recorderHandle).free, inner)
	return r, nil
}

// StepBegin opens the annotation ProfilerStep#number. Steps do not nest. Torch thread.
func (r *Recorder) StepBegin(number int64) error {
	defer runtime.KeepAlive(r)
	return r.inner.stepBegin(number)
}

// StepEnd closes the annotation that StepBegin opened. Torch thread.
func (r *Recorder) StepEnd() error {
	defer runtime.KeepAlive(r)
	return r.inner.stepEnd()
}

// Stop ends collection. Torch thread.
func (r *Recorder) Stop() error {
	defer runtime.KeepAlive(r)
	return r.inner.stop()
}

// Finish writes the files, frees the events and returns the JSON object that omni_recorder_finish describes. After Stop,
// once, on any thread.
func (r *Recorder) Finish() (json.RawMessage, error) {
	defer runtime.KeepAlive(r)
	return r.inner.finish()
}

// Close frees the recorder, which must not be recording, and removes files that were not finished. Calling it again does
// nothing.
func (r *Recorder) Close() {
	r.cleanup.Stop()
	r.inner.free()
}
