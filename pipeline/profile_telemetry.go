package pipeline

import (
	"fmt"
	"path/filepath"

	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/telemetry"
)

// watchGPUs begins to record what the machine's GPUs do during a session, into the session's folder in its first directory
// that gets pictures. That this fails is no reason to have no session: the pictures say so.
func (o *Omni) watchGPUs(s *profileSession) {
	dirs := s.dirs(func(c profiler.Config) bool { return c.MergeProfiles })
	if o.telemetry == nil || len(dirs) == 0 {
		return
	}
	folder := archive.Folder(dirs[0], fmt.Sprintf("%s.%d", s.name, s.stampNS))
	s.gpus, s.gpusError = telemetry.Record(o.telemetry, filepath.Join(folder, archive.TelemetryName), telemetry.Period)
}

// leaveGPUs completes what watchGPUs has begun.
func (s *profileSession) leaveGPUs() error {
	err := s.gpusError
	if s.gpus != nil {
		err = s.gpus.Stop()
	}
	return err
}
