package pipeline

import (
	"slices"
	"testing"
)

func TestStagesShareTheCores(t *testing.T) {
	tests := []struct{ cores, stages, want int }{
		{1, 3, 1}, {2, 3, 2}, {4, 3, 2}, {8, 3, 2}, {12, 3, 4}, {64, 3, 21}, {16, 1, 16}, {2, 1, 2},
	}
	for _, tt := range tests {
		if got := defaultThreads(tt.cores, tt.stages); got != tt.want {
			t.Errorf("%d cores for %d stages: got %d threads, want %d", tt.cores, tt.stages, got, tt.want)
		}
	}
}

func TestWorkersGetTheirThreadsFromTheStage(t *testing.T) {
	t.Setenv("OMP_NUM_THREADS", "99")
	t.Setenv("OMP_WAIT_POLICY", "")
	env := workerEnv(3, []string{"A=b"})
	for _, want := range []string{"OMP_NUM_THREADS=3", "MKL_NUM_THREADS=3", "OMP_WAIT_POLICY=PASSIVE", "A=b"} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in the environment", want)
		}
	}
	if slices.Contains(env, "OMP_NUM_THREADS=99") {
		t.Error("the parent's own number of threads is in the environment")
	}
	t.Setenv("OMP_WAIT_POLICY", "ACTIVE")
	if slices.Contains(workerEnv(3, nil), "OMP_WAIT_POLICY=PASSIVE") {
		t.Error("the user's wait policy was overridden")
	}
}
