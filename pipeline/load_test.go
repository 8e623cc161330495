package pipeline_test

import (
	"syscall"
	"testing"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

func TestLoadCountsWhatStagesHaveDone(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	for _, stage := range o.Load(t.Context()) {
		if !stage.Answered || stage.State != pipeline.StageReady || stage.Steps != 0 || stage.Tokens != 0 || stage.RSSBytes == 0 {
			t.Errorf("before any request: got %+v", stage)
		}
	}
	r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "hello", MaxTokens: 10})
	if err != nil {
		t.Fatal(err)
	}
	load := o.Load(t.Context())
	if s := load[pipelinetest.StageThinker]; s.Steps != 10 || s.Stepped != 10 || s.Tokens != 10 || s.Samples != 0 || s.Name != "thinker" {
		t.Errorf("thinker: got %+v, want ten steps of one sequence", s)
	}
	if s := load[pipelinetest.StageCode2Wav]; s.Samples != int64(r.Audio.Samples) || s.Tokens != 0 || s.Sequences != 0 || s.Queued != 0 {
		t.Errorf("code2wav: got %+v, want %d samples and nobody there", s, r.Audio.Samples)
	}
}

func TestLoadOfAStageWithoutWorker(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, map[string]pipelinetest.Script{}))
	pipelinetest.Signal(t, o, 1, syscall.SIGSTOP)
	load := o.Load(t.Context())
	pipelinetest.Signal(t, o, 1, syscall.SIGCONT)
	if s := load[1]; s.Answered || s.State != pipeline.StageReady || s.Name != "talker" {
		t.Errorf("got %+v, want a stage that did not answer", s)
	}
	if !load[0].Answered || !load[2].Answered {
		t.Errorf("got %+v, want the others' numbers", load)
	}
}
