package picture

import (
	"context"

	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/merge"
)

func writeMerged(ctx context.Context, s *Source, path string) error {
	_, err := s.Merge(ctx, path)
	return err
}

// Merge writes one trace of the session's traces to path, an event at a time.
func (s *Source) Merge(ctx context.Context, path string) (*merge.Result, error) {
	in := merge.Input{
		Requests: s.Requests, Session: s.Name, Workers: s.About.Workers, Missing: s.Missing(s.About.Workers), Telemetry: s.Path(archive.TelemetryName),
	}
	for _, t := range s.Traces {
		in.Traces = append(in.Traces, t.Path)
	}
	result, err := merge.Merge(ctx, in, path)
	if err == nil {
		s.missing = result.Missing
	}
	return result, err
}
