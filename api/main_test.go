package api_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/omni-run/omni/pipeline/pipelinetest"
)

func TestMain(m *testing.M) {
	pipelinetest.RunIfWorker()
	goleak.VerifyTestMain(m)
}
