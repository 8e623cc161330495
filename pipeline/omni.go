package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/family"
	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/telemetry"
)

// prefillTokens is how many prompt tokens one step of a stage takes in beside the sequences that are running. More
// would make those wait longer for their next token; a single prompt that is longer still goes in one step.
const prefillTokens = 512

// Omni is an open pipeline. Its methods may be called from any goroutine.
type Omni struct {
	graph    *Graph
	stages   []*stage // by ascending id
	spawner  *spawner
	log      *slog.Logger
	limits   Limits
	gate     chan struct{} // holds a token for every request that is in the stages
	requests atomic.Int64  // numbers the requests that come without an id
	profile  profileState
	// telemetry is asked during profile sessions; nil for nothing.
	telemetry telemetry.Source
	// keptGPUs is what they did lately, nil without flight recorders or GPUs; keptGPUsError is why that is not known.
	keptGPUs      *telemetry.Ring
	keptGPUsError error

	stop       context.CancelFunc // ends the supervisors
	supervised sync.WaitGroup
	ends       chan error // one per supervisor, when it has ended

	mu      sync.Mutex // guards what follows
	closed  chan struct{}
	running sync.WaitGroup // Add under mu and not after closed
	once    sync.Once
	err     error // of Close
}

// Open starts a worker for every stage of the model and returns when all are ready. If one cannot be started it stops the
// others and returns that stage's fault, a *StageError.
func Open(ctx context.Context, cfg Config) (*Omni, error) {
	graph, err := resolve(&cfg)
	if err != nil {
		return nil, fmt.Errorf("open pipeline: %w", err)
	}
	return OpenGraph(ctx, cfg, graph)
}

// OpenGraph is Open for a graph that the caller has made. Of cfg it reads neither Model nor what deploys stages.
func OpenGraph(ctx context.Context, cfg Config, graph *Graph) (*Omni, error) {
	o, err := build(cfg, graph)
	if err != nil {
		return nil, fmt.Errorf("open pipeline: %w", err)
	}
	supervision, stop := context.WithCancel(context.WithoutCancel(ctx))
	o.stop = stop
	for _, s := range o.stages {
		o.supervised.Go(func() { o.ends <- s.supervise(supervision) })
	}
	if err := o.ready(ctx); err != nil {
		_ = o.Close() // err says more
		return nil, fmt.Errorf("open pipeline: %w", err)
	}
	return o, nil
}

// build checks the configuration and makes the stages, without starting anything but the spawner.
func build(cfg Config, graph *Graph) (*Omni, error) {
	path, err := findWorker(cfg.WorkerPath)
	if err != nil {
		return nil, err
	}
	if cfg.MaxConcurrency < 0 {
		return nil, fmt.Errorf("max concurrency is %d, want 0 (the default) or more", cfg.MaxConcurrency)
	}
	o := &Omni{graph: graph, log: cfg.Log, limits: cfg.Limits.filled(), telemetry: cfg.Telemetry, closed: make(chan struct{})}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	concurrency := cfg.MaxConcurrency
	if concurrency == 0 {
		concurrency = 16
	}
	o.gate = make(chan struct{}, concurrency)
	if err := o.profile.configure(&cfg, graph.Config); err != nil {
		return nil, err
	}
	progress := cfg.Progress
	if progress != nil {
		var mu sync.Mutex
		progress = func(p Progress) {
			mu.Lock()
			defer mu.Unlock()
			cfg.Progress(p)
		}
	}
	placed, placements := place(&cfg, graph.Config, o.log)
	if err := o.profile.checkDevices(placed, placements); err != nil {
		return nil, err
	}
	o.spawner = newSpawner(path, cfg.WorkerEnv)
	for rank, deployed := range placed.Stages {
		s := &stage{
			limits: o.limits, spawner: o.spawner, log: o.log,
			progress: progress, state: StageLoading, changed: make(chan struct{}),
		}
		if err := s.describe(graph, deployed, rank); err != nil {
			o.spawner.stop()
			return nil, err
		}
		s.device, s.placement = deployed.Device, placements[s.id]
		s.open.Ring = o.profile.ringOf(s.id)
		o.stages = append(o.stages, s)
	}
	o.ends = make(chan error, len(o.stages))
	o.keepGPUs()
	return o, nil
}

// describe sets who the stage is and what its worker will be told.
func (s *stage) describe(graph *Graph, deployed config.Stage, rank int) error {
	i := slices.IndexFunc(graph.Stages, func(f family.Stage) bool { return f.ID == deployed.ID })
	if i < 0 {
		return fmt.Errorf("stage %d is configured but the model has no such stage", deployed.ID)
	}
	kind := graph.Stages[i]
	engine, err := json.Marshal(map[string]any{
		"model": kind.Model, "checkpoint": graph.Checkpoint, "dtype": deployed.DType, "device": deployed.Device,
		"max_batch": deployed.MaxBatchSize,
	})
	if err != nil {
		return fmt.Errorf("stage %d: %w", deployed.ID, err)
	}
	world := len(graph.Config.Stages)
	threads := deployed.Threads
	if threads == 0 {
		threads = defaultThreads(cores(), world)
	}
	s.id, s.name, s.model = kind.ID, kind.Name, kind.Model
	s.open = message.Open{
		Stage: kind.ID, Name: kind.Name, Worker: profiler.WorkerName(kind.ID, 0, 1), Rank: rank, World: world,
		Threads: threads, MaxBatch: deployed.MaxBatchSize, Prefill: prefillTokens,
		Engine: engine,
	}
	return nil
}

// ready waits until every stage is ready or one has given up.
func (o *Omni) ready(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan error, len(o.stages))
	var waiters sync.WaitGroup
	defer waiters.Wait()
	defer cancel()
	for _, s := range o.stages {
		waiters.Go(func() {
			_, err := s.await(ctx)
			ready <- err
		})
	}
	for range o.stages {
		select {
		case err := <-o.ends: // only a first start that failed ends a supervisor now
			o.ends <- nil
			return err
		case err := <-ready:
			if errors.Is(err, ErrClosed) {
				err = <-o.ends // closed because it gave up
				o.ends <- nil
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Stages reports what runs.
func (o *Omni) Stages() []StageStatus {
	list := make([]StageStatus, len(o.stages))
	for i, s := range o.stages {
		list[i] = s.status()
	}
	return list
}

// Close cancels the requests that are running, stops the workers and waits for their end. An active profile session is
// stopped first and its files written. The error says which workers had to be killed. Later calls wait and return the same.
func (o *Omni) Close() error {
	o.once.Do(func() {
		o.mu.Lock()
		close(o.closed)
		o.mu.Unlock()
		o.running.Wait()
		o.stop()
		o.supervised.Wait()
		o.closeProfiles()
		_ = o.keptGPUs.Stop() // what went wrong was said with each dump
		o.spawner.stop()
		var errs []error
		for range o.stages {
			errs = append(errs, <-o.ends)
		}
		o.err = errors.Join(errs...)
	})
	return o.err
}

// enter counts a request or profile call in; leave must follow unless it fails.
func (o *Omni) enter() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case <-o.closed:
		return ErrClosed
	default:
		o.running.Add(1)
		return nil
	}
}

// within returns a context that ends with ctx and with the pipeline.
func (o *Omni) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-o.closed:
			cancel(ErrClosed)
		case <-done:
		}
	}()
	return ctx, sync.OnceFunc(func() { close(done); cancel(context.Canceled) })
}
