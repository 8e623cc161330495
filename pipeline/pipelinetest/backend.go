package pipelinetest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/transport"
	"github.com/omni-run/omni/pipeline/worker"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/picture"
)

// workerVariable marks the process that is to be a worker.
const workerVariable = "OMNI_PIPELINETEST_WORKER"

// RunIfWorker turns this process into a worker, and never returns, if a pipeline has started it as one. It is the first
// call of TestMain.
func RunIfWorker() {
	if os.Getenv(workerVariable) == "" {
		return
	}
	if status, ok := picture.Main(os.Args[1:]); ok {
		os.Exit(status)
	}
	if err := runWorker(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runWorker() error {
	runtime.LockOSThread()
	socket, err := syscall.Dup(3)
	if err != nil {
		return fmt.Errorf("connection to the pipeline: %w", err)
	}
	conn, err := transport.FromFile(os.NewFile(3, "connection to the pipeline"))
	if err != nil {
		return err
	}
	all, err := scripts()
	if err != nil {
		return err
	}
	early := &faults{list: all[AnyStage].Faults, seen: map[Point]int{}, socket: socket}
	if err := early.at(AtStart); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	b := &Backend{scripts: all, socket: socket}
	// The copy of the descriptor keeps the connection open, so the end of Run is the end of the process.
	return worker.Run(ctx, &scriptedConn{Conn: conn, scripts: all}, b, worker.Options{
		ABI: message.ABI, Build: "pipelinetest", Lost: func(error) { os.Exit(0) },
	})
}

// Backend is a worker.Backend of scripted engines.
type Backend struct {
	scripts map[string]Script
	socket  int
	script  Script  // of the engine that is open
	faults  *faults // likewise
}

// NewBackend returns a Backend for a worker loop inside the test process; scripts are by the engine's name. Faults
// that end the process are not for it.
func NewBackend(scripts map[string]Script) *Backend { return &Backend{scripts: scripts, socket: -1} }

// Init implements worker.Backend.
func (b *Backend) Init(threads int) error {
	if got := os.Getenv("OMP_NUM_THREADS"); b.socket >= 0 && got != fmt.Sprint(threads) {
		return message.Errorf(message.Internal, "OMP_NUM_THREADS is %q, the stage has %d threads", got, threads)
	}
	return nil
}

// OpenEngine implements worker.Backend.
func (b *Backend) OpenEngine(config json.RawMessage) (worker.Engine, error) {
	model, err := modelOf(config)
	if err != nil {
		return nil, err
	}
	switch model {
	case Thinker, Talker, Code2Wav:
	default:
		return nil, message.Errorf(message.NotFound, "unknown model %q", model)
	}
	b.script = b.scripts[model]
	b.faults = &faults{list: b.script.Faults, seen: map[Point]int{}, socket: b.socket}
	if err := b.faults.at(AtOpen); err != nil {
		return nil, err
	}
	stepper, err := underStepper(b.script.Stepper)
	if err != nil {
		return nil, err
	}
	return &engine{model: model, script: b.script, faults: b.faults, stepper: stepper, sequences: map[uint64]*sequence{}}, nil
}

// StartRecorder implements worker.Backend: it records the steps and the scopes between them.
func (b *Backend) StartRecorder(config json.RawMessage) (profiler.Recorder, error) {
	var c profiler.RecorderConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	if err := b.faults.at(AtProfile); err != nil {
		return nil, err
	}
	return newRecorder(c, b.script.Ahead, b.faults)
}
