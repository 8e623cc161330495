package main

import (
	"encoding/json"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/torch"
)

// recorder is a torch.Recorder as a profiler.Recorder.
type recorder struct{ *torch.Recorder }

// scopes, stated and dumped are what a torch.Recorder may be able to do beyond recording.
type (
	scopes interface {
		ScopeBegin(name string) error
		ScopeEnd() error
	}
	stated interface {
		Status() (json.RawMessage, error)
	}
	dumped interface {
		Dump(config json.RawMessage) (*torch.Recorder, error)
	}
)

// ScopeBegin implements profiler.Recorder.
func (r recorder) ScopeBegin(name string) error {
	if s, ok := any(r.Recorder).(scopes); ok {
		return s.ScopeBegin(name)
	}
	return nil
}

// ScopeEnd implements profiler.Recorder.
func (r recorder) ScopeEnd() error {
	if s, ok := any(r.Recorder).(scopes); ok {
		return s.ScopeEnd()
	}
	return nil
}

// Status implements profiler.Recorder.
func (r recorder) Status() (json.RawMessage, error) {
	if s, ok := any(r.Recorder).(stated); ok {
		return s.Status()
	}
	return json.RawMessage("{}"), nil
}

// Dump implements profiler.Recorder.
func (r recorder) Dump(config json.RawMessage) (profiler.Recorder, error) {
	d, ok := any(r.Recorder).(dumped)
	if !ok {
		return nil, message.Errorf(message.Unimplemented, "this library has no flight recorder")
	}
	other, err := d.Dump(config)
	if err != nil {
		return nil, coded(err)
	}
	return recorder{other}, nil
}
