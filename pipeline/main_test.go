package pipeline_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/omni-run/omni/pipeline/pipelinetest"
)

func TestMain(m *testing.M) {
	pipelinetest.RunIfWorker()
	if os.Getenv(orphanVariable) != "" {
		parentOfOrphans()
		return
	}
	goleak.VerifyTestMain(m)
}
