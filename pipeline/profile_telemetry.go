package pipeline

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/telemetry"
)

// watchGPUs begins to record what the machine's GPUs do during a session, into the session's folder in its first directory
// that gets pictures. That this fails is no reason to have no session: the pictures say so.
func (o *Omni) watchGPUs(s *profileSession) {
	if path := s.telemetryPath(); o.telemetry != nil && path != "" {
		s.gpus, s.gpusError = telemetry.Record(o.telemetry, path, telemetry.Period)
	}
}

// telemetryPath is where the session's telemetry goes, empty if nothing is made of it.
func (s *profileSession) telemetryPath() string {
	dirs := s.dirs(func(c profiler.Config) bool { return c.MergeProfiles })
	if len(dirs) == 0 {
		return ""
	}
	return filepath.Join(archive.Folder(dirs[0], fmt.Sprintf("%s.%d", s.name, s.stampNS)), archive.TelemetryName)
}

// keepGPUs begins to keep what GPUs do for as long as flight recorders reach back.
func (o *Omni) keepGPUs() {
	if span := o.profile.ring.seconds; o.telemetry != nil && span > 0 {
		o.keptGPUs, o.keptGPUsError = telemetry.Keep(o.telemetry, span, telemetry.Period)
	}
}

// dumpGPUs writes what is kept into the folder of a dump.
func (o *Omni) dumpGPUs(s *profileSession) {
	if path := s.telemetryPath(); path != "" {
		s.gpusError = errors.Join(o.keptGPUsError, o.keptGPUs.Write(path))
	}
}

// leaveGPUs completes what watchGPUs has begun.
func (s *profileSession) leaveGPUs() error {
	err := s.gpusError
	if s.gpus != nil {
		err = s.gpus.Stop()
	}
	return err
}
