package api_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/trace"
)

// stamp is the time in the names of the fake's first session; the next ones are a second later each.
const stamp = 1795311375000000000

// fakeProfiler is three workers that write the same small session again and again.
type fakeProfiler struct {
	t   testing.TB
	dir string

	broken  map[int]string // stages that cannot write, and why
	gpu     bool           // each stage runs on a GPU of its own, of which there is telemetry
	idle    bool           // no stage comes to the step in which recording begins
	slower  float64        // how much longer operators take in each session than in the one before
	writing chan struct{}  // if it is not nil, files are complete when it is closed

	mu       sync.Mutex // guards what follows
	sessions int
	report   *pipeline.ProfileReport
	options  pipeline.ProfileOptions
	stops    []pipeline.ProfileStopOptions
	changed  chan struct{} // closed at each stop
}

// ProfileDir implements api.Profiler.
func (f *fakeProfiler) ProfileDir() string { return f.dir }

// StartProfileWith implements api.Profiler.
func (f *fakeProfiler) StartProfileWith(_ context.Context, options pipeline.ProfileOptions) (*pipeline.ProfileReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.report != nil && f.report.Active {
		return nil, fmt.Errorf("start profile: %w: session %s in stages [0 1 2]; stop it first", pipeline.ErrProfileActive, f.report.Session)
	}
	for _, id := range options.Stages {
		if id > 2 {
			return nil, fmt.Errorf("start profile: %w: [%d]; this pipeline runs [0 1 2]", pipeline.ErrUnknownStage, id)
		}
	}
	if _, err := profiler.FromDir(f.dir).Within(profiler.Ceilings{MaxEvents: 1e6}, options.Settings); err != nil {
		return nil, fmt.Errorf("start profile: %w", err)
	}
	f.options = options
	f.sessions++
	name := fmt.Sprintf("s%d", f.sessions)
	f.report = &pipeline.ProfileReport{
		Session: name, ID: fmt.Sprintf("%s.%d", name, f.stamp()), Active: true, Workers: []profiler.Report{}, Files: []pipeline.ProfileFile{},
	}
	for id := range 3 {
		if len(options.Stages) == 0 || slices.Contains(options.Stages, id) {
			f.report.Workers = append(f.report.Workers, profiler.Report{
				Identity: profiler.Identity{Worker: fmt.Sprintf("stage-%d", id), Stage: id, Rank: id, WorldSize: 3, PID: 100 + id, Device: "cpu"},
				Session:  name, State: profiler.StateRecording, Active: true, Dropped: map[string]int64{}, Files: []profiler.File{},
			})
		}
	}
	return f.copy(), nil
}

func (f *fakeProfiler) stamp() int64 { return stamp + int64(f.sessions-1)*1e9 }

// copy is the report as it is now.
func (f *fakeProfiler) copy() *pipeline.ProfileReport {
	r := *f.report
	r.Workers = slices.Clone(r.Workers)
	return &r
}

// StopProfileWith implements api.Profiler.
func (f *fakeProfiler) StopProfileWith(ctx context.Context, options pipeline.ProfileStopOptions) (*pipeline.ProfileReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stops = append(f.stops, options)
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
	if f.report == nil || options.Session != "" && options.Session != f.report.Session {
		return nil, fmt.Errorf("stop profile: %w: %q", pipeline.ErrNoProfile, options.Session)
	}
	if f.report.Active {
		f.report.Active = false
		for i := range f.report.Workers {
			w := &f.report.Workers[i]
			w.State, w.Active, w.Ended, w.Steps, w.Events = profiler.StateWriting, false, profiler.EndStop, 20, 100
		}
	}
	if f.writing != nil {
		select {
		case <-f.writing:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		default:
			if !options.Wait {
				return f.copy(), nil
			}
			<-f.writing
		}
	}
	if !f.report.Complete {
		f.complete()
	}
	return f.copy(), nil
}

// complete writes the files.
func (f *fakeProfiler) complete() {
	slower := 1.0
	for range f.sessions - 1 {
		slower *= max(1, f.slower)
	}
	for i := range f.report.Workers {
		w := &f.report.Workers[i]
		w.State = profiler.StateDone
		if why := f.broken[w.Stage]; why != "" {
			w.State, w.Error = profiler.StateFailed, why
			continue
		}
		if !f.idle {
			w.Bytes = f.writeTrace(w.Worker, w.Stage, slower)
		}
	}
	about := ledger.Session{Session: f.report.Session, StampNS: f.stamp()}
	for _, w := range f.report.Workers {
		if f.gpu {
			about.Workers = append(about.Workers, ledger.Worker{Worker: w.Worker, Stage: w.Stage, State: "done", Device: fmt.Sprintf("cuda:%d", w.Stage)})
		}
	}
	if f.gpu {
		f.writeTelemetry()
	}
	require.NoError(f.t, ledger.Write(ledger.Path(f.dir, f.report.Session, f.stamp()), about, f.requests()))
	f.report.Complete = true
}

// writeTrace writes a trace of steps with a few operators and returns its size.
func (f *fakeProfiler) writeTrace(worker string, stage int, slower float64) int64 {
	path := profiler.TracePath(f.dir, worker, f.report.Session, f.stamp(), true)
	w, err := trace.Create(path)
	require.NoError(f.t, err)
	for name, value := range map[string]string{
		"baseTimeNanoseconds": fmt.Sprint(f.stamp()),
		"distributedInfo":     fmt.Sprintf(`{"rank": %d}`, stage),
		"omni":                fmt.Sprintf(`{"session": %q, "worker": %q, "stage": %d}`, f.report.Session, worker, stage),
	} {
		require.NoError(f.t, w.Member(name, jsontext.Value(value)))
	}
	id := trace.Number(int64(500 + stage))
	add := func(category, name string, start, duration int64) {
		require.NoError(f.t, w.Write(&trace.Event{
			Phase: trace.Complete, Category: category, Name: name, Process: id, Thread: id, Time: start, Duration: duration,
		}))
	}
	at := int64(stage) * 20e6
	for i := range 20 {
		mm := int64(slower * float64(2e6+int64(i%5)*1e4))
		add("user_annotation", fmt.Sprintf("ProfilerStep#%d", i), at, mm+500_000)
		add("user_annotation", "model.layers", at+50_000, mm+400_000)
		add("cpu_op", "aten::linear", at+100_000, mm)
		add("cpu_op", "aten::addmm", at+150_000, mm-100_000)
		add("cpu_op", "aten::relu", at+100_000+mm, 300_000)
		at += mm + 1_300_000
	}
	require.NoError(f.t, w.Commit())
	info, err := os.Stat(path)
	require.NoError(f.t, err)
	return info.Size()
}

// writeTelemetry writes what three GPUs did, of which the last reports next to nothing.
func (f *fakeProfiler) writeTelemetry() {
	lines := []string{`{"telemetry":1,"devices":[{"index":0,"name":"A"},{"index":1,"name":"B"},{"index":2,"name":"C"}]}`}
	for ms := int64(0); ms < 110; ms += 10 {
		at := f.stamp() + ms*1e6
		lines = append(lines,
			fmt.Sprintf(`{"ns":%d,"device":0,"busy_pct":50,"memory_used_bytes":1073741824,"power_w":200,"sm_clock_mhz":1500,"temperature_c":60}`, at),
			fmt.Sprintf(`{"ns":%d,"device":1,"busy_pct":%d,"power_w":%d,"sm_clock_mhz":%d,"throttle":["power cap"]}`, at, ms%100, 100+ms, 1980-10*ms),
			fmt.Sprintf(`{"ns":%d,"device":2,"busy_pct":1}`, at))
	}
	path := (&archive.Session{Dir: f.dir, Name: f.report.Session, StampNS: f.stamp()}).Path(archive.TelemetryName)
	require.NoError(f.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(f.t, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}

func (f *fakeProfiler) requests() []ledger.Request {
	var list []ledger.Request
	for i, id := range []string{"first", "a-second-request-with-quite-a-long-name-that-a-client-has-chosen-for-it"} {
		at := func(ms int64) int64 { return f.stamp() + (ms+int64(i)*10)*1e6 }
		list = append(list, ledger.Request{
			ID: id, ArrivedNS: at(0), EnteredNS: at(1), DoneNS: at(80), PromptTokens: 5,
			Stages: []ledger.Stage{
				{
					ID: 0, Name: "thinker", DispatchedNS: at(2), ReceivedNS: at(3), FirstInputNS: at(3), LastInputNS: at(3), FirstComputeNS: at(5),
					LastComputeNS: at(40), FirstOutputNS: at(8), LastOutputNS: at(40), DoneNS: at(41), QueueNS: 2e6, ComputeNS: 35e6, TransferNS: 1e6, Steps: 10, Tokens: 10,
				},
				{
					ID: 1, Name: "talker", From: []int{0}, DispatchedNS: at(2), ReceivedNS: at(3), FirstInputNS: at(9), LastInputNS: at(42), FirstComputeNS: at(20),
					LastComputeNS: at(78), FirstOutputNS: at(25), LastOutputNS: at(78), DoneNS: at(79), QueueNS: 5e6, WaitNS: 20e6, ComputeNS: 50e6, TransferNS: 3e6, Steps: 10, Tokens: 10,
				},
			},
		})
	}
	return list
}

// WaitProfile implements api.Profiler.
func (f *fakeProfiler) WaitProfile(context.Context, string) (*pipeline.ProfileReport, error) {
	return f.ProfileStatus()
}

// DumpProfile implements api.Profiler.
func (f *fakeProfiler) DumpProfile(context.Context) (*pipeline.ProfileReport, error) {
	return nil, fmt.Errorf("dump profile: %w: no stage has ring_seconds", profiler.ErrNotEnabled)
}

// ProfileStatus implements api.Profiler.
func (f *fakeProfiler) ProfileStatus() (*pipeline.ProfileReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.report == nil {
		return &pipeline.ProfileReport{Workers: []profiler.Report{}, Files: []pipeline.ProfileFile{}}, nil
	}
	return f.copy(), nil
}

// newProfiled makes a server over fakes that can be profiled.
func newProfiled(t *testing.T, change func(*fakeProfiler)) (*server, *fakeProfiler) {
	t.Helper()
	f := &fakeProfiler{t: t, dir: filepath.Join(t.TempDir(), "profiles")}
	require.NoError(t, os.Mkdir(f.dir, 0o755))
	if change != nil {
		change(f)
	}
	return newServer(t, func(c *api.Config) { c.Profiler = f }), f
}

// record makes a session.
func record(t *testing.T, s *server) {
	t.Helper()
	for _, path := range []string{"/start_profile", "/stop_profile"} {
		answer := s.do("POST", path, "")
		require.Equal(t, 200, answer.Code, answer.Body)
	}
}
