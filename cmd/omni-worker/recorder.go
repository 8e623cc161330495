package main

import (
	"encoding/json"

	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/torch"
)

// recorder is a torch.Recorder as a profiler.Recorder: a dump is another one, and errors keep their code.
type recorder struct{ *torch.Recorder }

// Dump implements profiler.Recorder.
func (r recorder) Dump(config json.RawMessage) (profiler.Recorder, error) {
	other, err := r.Recorder.Dump(config)
	if err != nil {
		return nil, coded(err)
	}
	return recorder{other}, nil
}
