// Command omni-worker runs one stage of a pipeline. A pipeline starts it and talks to it over an inherited socket; see
// package worker for what it does and package torch for what it does it with. Started with other arguments it makes the
// pictures of a profile session, as package picture says.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/omni-run/omni/pipeline/transport"
	"github.com/omni-run/omni/pipeline/worker"
	"github.com/omni-run/omni/profiler/picture"
	"github.com/omni-run/omni/torch"
)

// connectionFD is where the pipeline puts the worker's end of the connection.
const connectionFD = 3

// orphanGrace is how long a step may still run after the pipeline has gone.
const orphanGrace = 500 * time.Millisecond

// The main goroutine keeps the process's main thread, which libtorch's profiler wants for itself.
func init() { runtime.LockOSThread() }

func main() { os.Exit(run(os.Args[1:], backend{})) }

func run(args []string, b worker.Backend) int {
	if status, ok := picture.Main(args); ok {
		return status
	}
	switch {
	case len(args) == 1 && args[0] == "--version":
		fmt.Printf("%s\nCUDA: %s\n", build(), cuda())
		return 0
	case len(args) > 0 || !connected():
		fmt.Fprintln(os.Stderr, "omni-worker is started by omni-run, one process for each stage of a model, and cannot be run by hand. "+
			"Try: omni-run --help. It takes one flag, --version.")
		return 2
	}
	if err := serve(b); err != nil {
		fmt.Fprintln(os.Stderr, "omni-worker:", err)
		return 1
	}
	return 0
}

// connected reports whether this process was given a socket to its pipeline.
func connected() bool {
	var stat syscall.Stat_t
	return syscall.Fstat(connectionFD, &stat) == nil && stat.Mode&syscall.S_IFMT == syscall.S_IFSOCK
}

func serve(b worker.Backend) error {
	conn, err := transport.FromFile(os.NewFile(connectionFD, "connection to the pipeline"))
	if err != nil {
		return err
	}
	// The pipeline decides what an interrupt in the terminal means, and tells its workers.
	signal.Ignore(syscall.SIGINT)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err = worker.Run(ctx, conn, b, worker.Options{
		ABI:   torch.ABIVersion(),
		Build: build(),
		Lost: func(error) {
			time.AfterFunc(orphanGrace, func() { os.Exit(1) })
		},
	})
	if errors.Is(err, worker.ErrLost) {
		return worker.ErrLost
	}
	return err
}

// build describes this program and the library that it runs on.
func build() string {
	version := "unknown version"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	var library struct {
		Torch string `json:"torch"`
	}
	text, err := torch.RuntimeInfo()
	if err == nil {
		err = json.Unmarshal(text, &library)
	}
	if err != nil {
		library.Torch = fmt.Sprintf("of unknown version: %v", err)
	}
	return fmt.Sprintf("omni-worker %s, ABI %d, torch %s", version, torch.ABIVersion(), library.Torch)
}

// cuda says in a few words what this process can do with GPUs.
func cuda() string {
	if !torch.CUDABuild {
		return "not in this build (make build TAGS=cuda)"
	}
	var info struct {
		CUDA struct {
			Devices      int    `json:"devices"`
			Reason       string `json:"reason"`
			PluginReason string `json:"plugin_reason"`
		} `json:"cuda"`
	}
	err := torch.Init(0)
	if err == nil {
		var text json.RawMessage
		if text, err = torch.RuntimeInfo(); err == nil {
			err = json.Unmarshal(text, &info)
		}
	}
	switch {
	case err != nil:
		return err.Error()
	case info.CUDA.Devices == 0:
		return "no CUDA device: " + info.CUDA.Reason
	case info.CUDA.PluginReason != "":
		return fmt.Sprintf("%d devices, without GPU profiling: %s", info.CUDA.Devices, info.CUDA.PluginReason)
	}
	return fmt.Sprintf("%d devices", info.CUDA.Devices)
}
