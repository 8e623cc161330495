package pipeline_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// orphanVariable makes the test binary a parent that opens a pipeline, says its workers' pids and waits to be killed.
const orphanVariable = "OMNI_PIPELINE_ORPHAN_TEST"

// orphans is the value of orphanVariable.
type orphans struct {
	Path string
	Env  []string
}

func parentOfOrphans() {
	var workers orphans
	if err := json.Unmarshal([]byte(os.Getenv(orphanVariable)), &workers); err != nil {
		panic(err)
	}
	cfg := pipeline.Config{WorkerPath: workers.Path, WorkerEnv: workers.Env}
	ctx := context.Background()
	o, err := pipeline.OpenGraph(ctx, cfg, pipelinetest.Graph())
	if err != nil {
		panic(err)
	}
	var pids []int
	for _, s := range o.Stages() {
		pids = append(pids, s.PID)
	}
	text, _ := json.Marshal(pids) //nolint:errchkjson // integers
	fmt.Println(string(text))
	for e, err := range o.Stream(ctx, pipeline.Request{Prompt: "for ever", MaxTokens: 1 << 30}) {
		_, _ = e, err
	}
}

// The workers include one that stands in a step and one that is stopped, which no message can reach.
func TestNoWorkerOutlivesItsParent(t *testing.T) {
	talker, code2wav := pipelinetest.NewGate(t), pipelinetest.NewGate(t)
	cfg := pipelinetest.Config(t, map[string]pipelinetest.Script{
		pipelinetest.Talker:   talker.Script(pipelinetest.AtDecode, 1),
		pipelinetest.Code2Wav: code2wav.Script(pipelinetest.AtAdmit, 1),
	})
	text, err := json.Marshal(orphans{Path: cfg.WorkerPath, Env: cfg.WorkerEnv})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(cfg.WorkerPath)
	cmd.Env = append(os.Environ(), orphanVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() // it was killed
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cmd.Process.Kill()
		t.Fatal(err)
	}
	var pids []int
	if err := json.Unmarshal([]byte(line), &pids); err != nil || len(pids) != 3 {
		cmd.Process.Kill()
		t.Fatalf("got %q, want three pids (%v)", line, err)
	}
	talker.Reached()
	code2wav.Reached()
	if err := syscall.Kill(pids[2], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	pipelinetest.Gone(t, pids)
}
