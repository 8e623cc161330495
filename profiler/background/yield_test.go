package background

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// yieldVariable marks the process that yields.
const yieldVariable = "OMNI_BACKGROUND_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(yieldVariable) == "" {
		os.Exit(m.Run())
	}
	startThread()
	Yield()
	startThread()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		panic(err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			panic(err)
		}
		attributes, err := unix.SchedGetAttr(id, 0)
		if err != nil {
			panic(err)
		}
		fmt.Println(attributes.Policy)
	}
}

// startThread leaves a thread that waits.
func startThread() {
	running := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(running)
		select {}
	}()
	<-running
}

// Every thread yields: those that there were and those that come.
func TestYield(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), yieldVariable+"=1", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	policies := strings.Fields(string(out))
	require.GreaterOrEqual(t, len(policies), 4)
	for _, policy := range policies {
		require.Equal(t, strconv.Itoa(unix.SCHED_IDLE), policy)
	}
}
