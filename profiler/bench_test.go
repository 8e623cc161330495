package profiler

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// fakeRecorder writes down what it is asked to do.
type fakeRecorder struct {
	bench  *bench
	config RecorderConfig
	steps  int64
	fail   string // the call that fails
}

func (f *fakeRecorder) call(name string) error {
	if f.config.RingSeconds > 0 {
		name = "ring " + name
	}
	f.bench.mu.Lock()
	f.bench.calls = append(f.bench.calls, name)
	f.bench.mu.Unlock()
	if f.fail != "" && strings.HasPrefix(name, f.fail) {
		return errors.New("broken " + f.fail)
	}
	return nil
}

func (f *fakeRecorder) StepBegin(number int64) error { return f.call(fmt.Sprintf("begin %d", number)) }

func (f *fakeRecorder) StepEnd() error {
	f.steps++
	return f.call("end")
}

func (f *fakeRecorder) ScopeBegin(name string) error { return f.call("scope " + name) }
func (f *fakeRecorder) ScopeEnd() error              { return f.call("scope end") }
func (f *fakeRecorder) Stop() error                  { return f.call("stop") }

func (f *fakeRecorder) CallSite(name, site string) error {
	if f.fail == "site" {
		return errors.New("broken site")
	}
	f.bench.sites[name] = site
	return nil
}

func (f *fakeRecorder) Cut() error {
	if !f.bench.cuts {
		return errors.New("ends in Stop")
	}
	return f.call("cut")
}

func (f *fakeRecorder) Status() (json.RawMessage, error) {
	f.bench.mu.Lock()
	defer f.bench.mu.Unlock()
	return json.Marshal(f.bench.status)
}

func (f *fakeRecorder) Dump(config json.RawMessage) (Recorder, error) {
	var dc DumpConfig
	if err := json.Unmarshal(config, &dc); err != nil {
		return nil, err
	}
	f.bench.dumps = append(f.bench.dumps, dc)
	if err := f.call("dump " + dc.Session); err != nil {
		return nil, err
	}
	return &fakeRecorder{bench: f.bench, config: RecorderConfig{TracePath: dc.TracePath, TablePath: dc.TablePath}, steps: f.steps, fail: f.fail}, nil
}

func (f *fakeRecorder) Finish() (json.RawMessage, error) {
	if f.bench.release != nil {
		<-f.bench.release
	}
	if f.fail == "finish" {
		return nil, errors.New("disk full")
	}
	var files []File
	fault := ""
	for _, file := range []File{{f.config.TracePath, "trace", 10}, {f.config.TablePath, "table", 5}} {
		switch {
		case file.Path == "":
		case f.fail == file.Kind:
			fault = "broken " + file.Kind
		default:
			files = append(files, file)
		}
	}
	return json.Marshal(recorderResult{
		Files: files, TableError: fault, Events: 7, Steps: f.steps, Dropped: map[string]int64{"pool": 2}, WriteMS: 1.5, OverheadNS: 3, WallNS: 200,
	})
}

func (f *fakeRecorder) Close() {
	if f.bench.cuts {
		_ = f.call("close")
	}
}

// bench is a Worker with a fake recorder.
type bench struct {
	*Worker
	calls   []string
	configs []RecorderConfig
	dumps   []DumpConfig
	fail    string
	sites   map[string]string // call sites by annotation
	cuts    bool              // recorders can be cut, and note that they are closed
	release chan struct{}     // Finish waits for it, if there is one

	mu     sync.Mutex // guards what follows, and calls where several goroutines call
	status RecorderStatus
}

func newBench() *bench {
	b := &bench{sites: map[string]string{}}
	identity := Identity{Worker: "stage-1", Stage: 1, Rank: 1, WorldSize: 3, PID: 42, Device: "cpu"}
	b.Worker = NewWorker(identity, func(config json.RawMessage) (Recorder, error) {
		var rc RecorderConfig
		if err := json.Unmarshal(config, &rc); err != nil {
			return nil, err
		}
		call := "start"
		switch {
		case rc.RingSeconds > 0:
			call = "ring start"
		case rc.TracePath == "" && rc.TablePath == "" && rc.Recorder != KindCUDA:
			call = "warm up"
		}
		b.mu.Lock()
		b.calls = append(b.calls, call)
		b.mu.Unlock()
		if b.fail == call {
			return nil, errors.New("no profiler here")
		}
		b.configs = append(b.configs, rc)
		return &fakeRecorder{bench: b, config: rc, fail: b.fail}, nil
	})
	return b
}

// saw checks what the recorders were asked to do.
func (b *bench) saw(t *testing.T, want string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := strings.Join(b.calls, ", "); got != want {
		t.Errorf("the recorders saw %q, want %q", got, want)
	}
	b.calls = nil
}

func start(change func(*Config)) Start {
	c := FromDir("/profiles")
	if change != nil {
		change(&c)
	}
	return Start{Session: "s1", Config: c, StampNS: 7, TableBase: 3}
}

// step runs one iteration and fails the test if profiling does.
func (b *bench) step(t *testing.T) {
	t.Helper()
	if err := b.StepBegin(); err != nil {
		t.Fatalf("StepBegin: %v", err)
	}
	if err := b.StepEnd(); err != nil {
		t.Fatalf("StepEnd: %v", err)
	}
}
