package pipeline

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// threadVariables set the number of threads of the libraries under torch.
var threadVariables = []string{"OMP_NUM_THREADS", "MKL_NUM_THREADS"}

// defaultThreads is the number of threads of a stage that names none. All stages of a pipeline can run at once, so they
// share the cores; but as a stage is often alone (one request, or one stage much slower than the others), none gets
// fewer than two where there are two.
func defaultThreads(cores, stages int) int {
	return max(cores/max(stages, 1), min(2, cores), 1)
}

// cores is the number of processors that this process may use, a limit of its container included.
func cores() int { return runtime.GOMAXPROCS(0) }

// workerDefaults are set for a worker unless the user has set them. Idle threads sleep at once: with anything else on the
// cores, threads that spin take them from the stages that compute (a decode step took 2 to 20 times as long with
// GOMP_SPINCOUNT from 2000 to 300000, on two busy cores).
//
// CUDA's own order is "fastest first"; the driver's, by which stages are placed, is that of the bus.
var workerDefaults = []string{"OMP_WAIT_POLICY=PASSIVE", "CUDA_DEVICE_ORDER=PCI_BUS_ID"}

// workerEnv is the environment of a worker: that of this process, with its number of threads, then extra, which wins.
func workerEnv(threads int, extra []string) []string {
	env := make([]string, 0, len(os.Environ())+len(threadVariables)+len(workerDefaults)+len(extra))
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if name != threadVariables[0] && name != threadVariables[1] {
			env = append(env, e)
		}
	}
	for _, name := range threadVariables {
		env = append(env, fmt.Sprintf("%s=%d", name, threads))
	}
	for _, e := range workerDefaults {
		if name, _, _ := strings.Cut(e, "="); os.Getenv(name) == "" {
			env = append(env, e)
		}
	}
	return append(env, extra...)
}
