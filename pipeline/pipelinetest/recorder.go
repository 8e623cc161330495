package pipelinetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/trace"
)

// recorder writes steps and scopes into traces that tools can read, and keeps the other rules of a real one.
type recorder struct {
	config profiler.RecorderConfig
	ahead  time.Duration // of the clock that events have their times from
	faults *faults
	trace  *trace.Writer // nil without a trace path
	began  time.Time

	mu      sync.Mutex // guards what follows: Status is asked for by another goroutine
	events  []trace.Event
	dropped int64
	steps   int64
	open    *trace.Event // a step or a scope
	cut     bool
}

// newRecorder begins to record.
func newRecorder(config profiler.RecorderConfig, ahead time.Duration, faults *faults) (*recorder, error) {
	r := &recorder{config: config, ahead: ahead, faults: faults, began: time.Now()}
	if config.RingSeconds > 0 && config.TracePath+config.TablePath != "" {
		return nil, errors.New("a ring has no files")
	}
	if config.TracePath == "" {
		return r, nil
	}
	w, err := trace.Create(config.TracePath)
	if err != nil {
		return nil, err
	}
	r.trace = w
	return r, nil
}

// StepBegin implements profiler.Recorder.
func (r *recorder) StepBegin(number int64) error {
	return r.begin(fmt.Sprintf("ProfilerStep#%d", number))
}

// StepEnd implements profiler.Recorder.
func (r *recorder) StepEnd() error {
	r.mu.Lock()
	r.steps++
	r.mu.Unlock()
	return r.end()
}

// ScopeBegin implements profiler.Recorder.
func (r *recorder) ScopeBegin(name string) error { return r.begin(name) }

// ScopeEnd implements profiler.Recorder.
func (r *recorder) ScopeEnd() error { return r.end() }

// now is the time of an event.
func (r *recorder) now() int64 { return time.Now().Add(r.ahead).UnixNano() - r.config.BaseTimeNS }

func (r *recorder) begin(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open != nil || r.cut {
		return fmt.Errorf("%s begins inside %v, cut: %v", name, r.open, r.cut)
	}
	pid := trace.Number(int64(os.Getpid()))
	r.open = &trace.Event{
		Phase: trace.Complete, Category: "user_annotation", Name: name, Process: pid, Thread: pid, Time: r.now(),
	}
	return nil
}

func (r *recorder) end() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		return errors.New("the end of nothing")
	}
	e := *r.open
	r.open = nil
	e.Duration = r.now() - e.Time
	if r.config.MaxEvents > 0 && len(r.events) >= r.config.MaxEvents {
		r.dropped++
		return nil
	}
	r.events = append(r.events, e)
	return nil
}

// Status implements profiler.Recorder.
func (r *recorder) Status() (json.RawMessage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := profiler.RecorderStatus{Events: int64(len(r.events)), Dropped: r.drops()}
	if r.config.MaxEvents > 0 && len(r.events) >= r.config.MaxEvents {
		s.Full = profiler.EndMaxEvents
	}
	return json.Marshal(s)
}

func (r *recorder) drops() map[string]int64 {
	if r.dropped == 0 {
		return map[string]int64{}
	}
	return map[string]int64{"budget": r.dropped}
}

// Dump implements profiler.Recorder.
func (r *recorder) Dump(config json.RawMessage) (profiler.Recorder, error) {
	var dc profiler.DumpConfig
	if err := json.Unmarshal(config, &dc); err != nil {
		return nil, err
	}
	if r.config.RingSeconds == 0 {
		return nil, errors.New("dump of a recorder that is no ring")
	}
	c := r.config
	c.RingSeconds, c.Session, c.TracePath, c.TablePath, c.BaseTimeNS, c.Metadata = 0, dc.Session, dc.TracePath, dc.TablePath, dc.BaseTimeNS, dc.Metadata
	d, err := newRecorder(c, r.ahead, r.faults)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d.began, d.steps = r.began, r.steps
	for _, e := range r.events {
		e.Time += r.config.BaseTimeNS - dc.BaseTimeNS
		d.events = append(d.events, e)
	}
	return d, nil
}

// CallSite implements profiler.Recorder. These traces have no stacks.
func (r *recorder) CallSite(string, string) error { return nil }

// Cut implements profiler.Recorder: as real ones do, unless they are torch's own.
func (r *recorder) Cut() error {
	if r.config.Recorder != profiler.RecorderStream {
		return fmt.Errorf("recorder %q ends in Stop", r.config.Recorder)
	}
	r.mu.Lock()
	r.cut = true
	if r.open != nil && strings.HasPrefix(r.open.Name, "ProfilerStep#") {
		r.open.Name = "cut " + r.open.Name
	}
	r.mu.Unlock()
	return r.close()
}

// Stop implements profiler.Recorder.
func (r *recorder) Stop() error { return r.close() }

// close ends what is open.
func (r *recorder) close() error {
	r.mu.Lock()
	open := r.open != nil
	r.mu.Unlock()
	if open {
		return r.end()
	}
	return nil
}

// Close implements profiler.Recorder.
func (r *recorder) Close() {
	if r.trace != nil {
		r.trace.Discard()
	}
}

// Finish implements profiler.Recorder.
func (r *recorder) Finish() (json.RawMessage, error) {
	if err := r.faults.at(AtWrite); err != nil {
		return nil, err
	}
	began := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	result := map[string]any{
		"events": len(r.events), "steps": r.steps, "dropped": r.drops(), "overhead_ns": 1000, "wall_ns": time.Since(r.began).Nanoseconds(),
	}
	files := []profiler.File{}
	for _, output := range []struct {
		kind  string
		write func() (string, error)
	}{{"trace", r.writeTrace}, {"table", r.writeTable}} {
		path, err := output.write()
		if err != nil && output.kind == "table" {
			result["table_error"] = err.Error()
			continue
		}
		if err != nil {
			return nil, err
		}
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		files = append(files, profiler.File{Path: path, Kind: output.kind, Bytes: info.Size()})
	}
	result["files"], result["write_ms"] = files, float64(time.Since(began))/float64(time.Millisecond)
	return json.Marshal(result)
}

func (r *recorder) writeTable() (string, error) {
	if r.config.TablePath == "" {
		return "", nil
	}
	text := fmt.Sprintf("Stage %d (%s), rank %d of %d, session %s.%d: %d steps\n",
		r.config.Stage, r.config.Worker, r.config.Rank, r.config.WorldSize, r.config.Session, r.config.BaseTimeNS, r.steps)
	unfinished := r.config.TablePath + ".tmp"
	if err := os.WriteFile(unfinished, []byte(text), 0o600); err != nil {
		return "", err
	}
	// A link replaces nothing that is there.
	return r.config.TablePath, errors.Join(os.Link(unfinished, r.config.TablePath), os.Remove(unfinished))
}

func (r *recorder) writeTrace() (string, error) {
	if r.trace == nil {
		return "", nil
	}
	about := map[string]any{
		"session": r.config.Session, "worker": r.config.Worker, "stage": r.config.Stage, "recorder": r.config.Recorder, "metadata": r.config.Metadata,
	}
	for _, member := range []struct {
		name  string
		value any
	}{
		{"schemaVersion", 1},
		{"distributedInfo", map[string]any{"backend": "pipeline", "rank": r.config.Rank, "world_size": r.config.WorldSize}},
		{"omni", about},
		{"baseTimeNanoseconds", r.config.BaseTimeNS},
	} {
		text, err := json.Marshal(member.value)
		if err != nil {
			return "", err
		}
		if err := r.trace.Member(member.name, jsontext.Value(text)); err != nil {
			return "", err
		}
	}
	pid := trace.Number(int64(os.Getpid()))
	name, err := json.Marshal(map[string]string{"name": r.config.Worker})
	if err != nil {
		return "", err
	}
	if err := r.trace.Write(&trace.Event{Phase: trace.Metadata, Name: "process_name", Process: pid, Thread: pid, Args: name}); err != nil {
		return "", err
	}
	for i := range r.events {
		if err := r.trace.Write(&r.events[i]); err != nil {
			return "", err
		}
	}
	if err := r.trace.Commit(); err != nil {
		return "", errors.Join(err, os.Remove(r.config.TracePath+".tmp"))
	}
	return r.config.TracePath, nil
}
