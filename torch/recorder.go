package torch

import (
	"encoding/json"
	"runtime"
)

// Recorder profiles what the engines of this process do. The order of calls is StartRecorder, then StepBegin and StepEnd
// in pairs, Stop, Finish, Close; after a Cut, Stop and Finish come in any order. At most one recorder of a process records at a time. One with ring_seconds keeps the last
// seconds in memory until Dump makes a second recorder of them.
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
	return newRecorder(inner), nil
}

func newRecorder(inner *recorderHandle) *Recorder {
	r := &Recorder{inner: inner}
	r.cleanup = runtime.AddCleanup(r, (*recorderHandle).free, inner)
	return r
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

// ScopeBegin opens a user annotation of any name: stage.wait, say, for the time in which there is nothing to do. Between
// steps, one at a time; Stop closes an open one. Torch thread.
func (r *Recorder) ScopeBegin(name string) error {
	defer runtime.KeepAlive(r)
	return r.inner.scopeBegin(name)
}

// ScopeEnd closes the annotation that ScopeBegin opened. Torch thread.
func (r *Recorder) ScopeEnd() error {
	defer runtime.KeepAlive(r)
	return r.inner.scopeEnd()
}

// CallSite says where in the program annotations of that name are opened from now on, as "file(line): function"; "ProfilerStep"
// stands for all steps. A recorder without with_stack forgets it. Torch thread.
func (r *Recorder) CallSite(name, site string) error {
	defer runtime.KeepAlive(r)
	return r.inner.callSite(name, site)
}

// Cut ends collection in the middle of whatever the torch thread does: what is open ends now in the files, and an open step
// does not count. Finish may follow at once; Stop must still be called before the next start and before Close. It fails with
// Unimplemented, and records on, if the recorder ends on the torch thread alone. Any thread.
func (r *Recorder) Cut() error {
	defer runtime.KeepAlive(r)
	return r.inner.cut()
}

// Stop ends collection, unless Cut has, and takes away what recorded on this thread. Torch thread.
func (r *Recorder) Stop() error {
	defer runtime.KeepAlive(r)
	return r.inner.stop()
}

// Finish writes the files, frees the events and returns the JSON object that omni_recorder_finish describes. After Stop or
// Cut, once, on any thread.
func (r *Recorder) Finish() (json.RawMessage, error) {
	defer runtime.KeepAlive(r)
	return r.inner.finish()
}

// Status returns the JSON object that omni_recorder_status describes: events, drops, bytes, cost, and whether a limit has
// been reached. Any goroutine, until Close.
func (r *Recorder) Status() (json.RawMessage, error) {
	defer runtime.KeepAlive(r)
	return r.inner.status()
}

// Dump makes a recorder, which has been stopped, of what a ring holds; the ring goes on. config is the JSON object that
// omni_recorder_dump describes. Any thread, also while a step runs.
func (r *Recorder) Dump(config json.RawMessage) (*Recorder, error) {
	defer runtime.KeepAlive(r)
	inner, err := r.inner.dump(config)
	if err != nil {
		return nil, err
	}
	return newRecorder(inner), nil
}

// Close frees the recorder, which must not be recording, and removes files that were not finished. Calling it again does
// nothing.
func (r *Recorder) Close() {
	r.cleanup.Stop()
	r.inner.free()
}
