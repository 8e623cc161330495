package picture

import (
	"context"

	"github.com/omni-run/omni/profiler/archive"
)

// Kinds of outputs.
const (
	KindMerged = "merged"
	KindReport = "report"
)

// output is one file that a session leaves besides what its workers write, unless merge_profiles is off.
type output struct {
	kind  string
	file  string // its name in the session's folder
	write func(ctx context.Context, s *Source, path string) error
}

// outputs is the table. One row per output, whose writer has a file of its own, output_<kind>.go; a command may use the
// writer as well, with choices that the row does not have.
var outputs = []output{
	{kind: KindMerged, file: archive.MergedName, write: writeMerged},
	{kind: KindReport, file: archive.ReportName, write: writeReport},
}
