package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/checkpoint/random"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// parentVariable makes the test binary a parent of real workers: it names their checkpoint.
const parentVariable = "OMNI_WORKER_TEST_PARENT"

// parentOfOrphans runs requests without end, and tells its workers' pids when all of them work on it.
func parentOfOrphans(folder string) {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	o, err := pipeline.Open(ctx, pipeline.Config{Model: folder, WorkerPath: self, WorkerEnv: []string{workerVariable + "=1"}})
	if err != nil {
		panic(err)
	}
	tell := sync.OnceFunc(func() {
		var pids []int
		for _, s := range o.Stages() {
			pids = append(pids, s.PID)
		}
		text, _ := json.Marshal(pids) //nolint:errchkjson // integers
		fmt.Println(string(text))
	})
	for {
		for e, err := range o.Stream(ctx, endless(1000)) {
			if err != nil {
				panic(err)
			}
			if e.Kind == pipeline.EventAudio {
				tell()
			}
		}
	}
}

func TestNoRealWorkerOutlivesItsParent(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "tiny-c")
	_, err := random.Write(t.Context(), folder, random.Options{Preset: "tiny-c", Seed: 1})
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), parentVariable+"="+folder)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer cmd.Wait()         // it was killed
	defer cmd.Process.Kill() // whatever happens
	line, err := bufio.NewReader(out).ReadBytes('\n')
	require.NoError(t, err)
	var pids []int
	require.NoError(t, json.Unmarshal(line, &pids))
	require.Len(t, pids, 3)
	for _, pid := range pids {
		require.True(t, pipelinetest.Alive(pid))
	}
	require.NoError(t, cmd.Process.Kill())
	pipelinetest.Gone(t, pids)
}
