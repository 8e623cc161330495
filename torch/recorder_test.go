package torch

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recorderConfig names files in folder.
func recorderConfig(t *testing.T, folder string) json.RawMessage {
	t.Helper()
	config, err := json.Marshal(map[string]any{
		"recorder": "kineto", "session": "s1", "worker": "stage-0",
		"trace_path": filepath.Join(folder, "t.pt.trace.json.gz"), "table_path": filepath.Join(folder, "t.txt"),
		"record_shapes": true, "use_gzip": true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// record makes a stopped recorder that has seen one step of an engine.
func record(t *testing.T, config json.RawMessage) *Recorder {
	t.Helper()
	engineConfig := fakeConfig(t)
	var r *Recorder
	onThread(t, func() {
		e, err := OpenEngine(engineConfig)
		if err != nil {
			t.Error(err)
			return
		}
		defer e.Close()
		if r, err = StartRecorder(config); err != nil {
			t.Error(err)
			return
		}
		_, err = StartRecorder(config)
		wantCode(t, err, FailedPrecondition, "start recorder", "another recorder")
		_, err = r.Finish()
		wantCode(t, err, FailedPrecondition, "finish recorder")
		wantCode(t, r.StepEnd(), FailedPrecondition, "end recorder step")
		for _, call := range []func() error{
			func() error { return e.Load(nil) },
			func() error { return e.Admit(1, json.RawMessage(`{"fault":"transposed"}`)) },
			func() error { return r.StepBegin(7) },
			func() error { _, err := e.Step([]uint64{1}); return err },
			r.StepEnd,
			r.Stop,
		} {
			if err := call(); err != nil {
				t.Error(err)
			}
		}
		wantCode(t, r.Stop(), FailedPrecondition, "stop recorder")
	})
	if r == nil {
		t.FailNow()
	}
	return r
}

func TestRecorderWritesTraceAndTable(t *testing.T) {
	checkNoLeaks(t)
	folder := t.TempDir()
	r := record(t, recorderConfig(t, folder))
	defer r.Close()
	data, err := r.Finish() // not on the torch thread
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Files []struct {
			Path, Kind string
			Bytes      int64
		}
		Events int64
	}
	if err := json.Unmarshal(data, &report); err != nil || len(report.Files) != 2 || report.Events == 0 {
		t.Fatalf("got report %s, %v, want two files and some events", data, err)
	}
	for _, file := range report.Files {
		info, err := os.Stat(file.Path)
		if err != nil || info.Size() != file.Bytes {
			t.Errorf("%s: the report says %d bytes, found %v, %v", file.Path, file.Bytes, info, err)
		}
	}
	f, err := os.Open(filepath.Join(folder, "t.pt.trace.json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var trace struct {
		TraceEvents []struct{ Name string }
	}
	if err := json.NewDecoder(z).Decode(&trace); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, event := range trace.TraceEvents {
		seen[event.Name] = true
	}
	for _, name := range []string{"ProfilerStep#7", "aten::arange"} {
		if !seen[name] {
			t.Errorf("the trace lacks %q", name)
		}
	}
	_, err = r.Finish()
	wantCode(t, err, FailedPrecondition, "finish recorder")
}

func TestClosedRecorderLeavesNothing(t *testing.T) {
	checkNoLeaks(t)
	folder := t.TempDir()
	r := record(t, recorderConfig(t, folder))
	r.Close()
	r.Close()
	_, err := r.Finish()
	wantCode(t, err, FailedPrecondition, "already closed")
	wantCode(t, r.Stop(), FailedPrecondition, "already closed")
	wantCode(t, r.StepBegin(1), FailedPrecondition, "already closed")
	wantCode(t, r.StepEnd(), FailedPrecondition, "already closed")
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 0 {
		t.Errorf("found %v, %v, want an empty folder", entries, err)
	}
}

func TestRecorderIsCutInTheMiddleOfAStep(t *testing.T) {
	checkNoLeaks(t)
	path := filepath.Join(t.TempDir(), "cut.pt.trace.json.gz")
	config, err := json.Marshal(map[string]string{"session": "s", "worker": "w", "trace_path": path}) // stream, unless something else is asked for
	if err != nil {
		t.Fatal(err)
	}
	var r *Recorder
	onThread(t, func() {
		var err error
		if r, err = StartRecorder(config); err == nil {
			err = errors.Join(r.CallSite("ProfilerStep", "torch/recorder_test.go(1): step"), r.StepBegin(0))
		}
		if err != nil {
			t.Error(err)
			return
		}
		finished := make(chan error)
		go func() { // while this thread is in its step
			err := r.Cut()
			if err == nil {
				_, err = r.Finish()
			}
			finished <- err
		}()
		err = <-finished
		if _, missing := os.Stat(path); err != nil || missing != nil {
			t.Errorf("got %v, %v", err, missing)
		}
		wantCode(t, r.StepEnd(), FailedPrecondition, "end recorder step", "does not record")
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	if r == nil {
		t.FailNow()
	}
	r.Close()
	wantCode(t, r.Cut(), FailedPrecondition, "already closed")
	wantCode(t, r.CallSite("x", "y"), FailedPrecondition, "already closed")
}

func TestRingIsDumped(t *testing.T) {
	checkNoLeaks(t)
	trace := filepath.Join(t.TempDir(), "ring.pt.trace.json.gz")
	dumpConfig, err := json.Marshal(map[string]string{"session": "s2", "trace_path": trace})
	if err != nil {
		t.Fatal(err)
	}
	var ring, dump *Recorder
	onThread(t, func() {
		var err error
		ring, err = StartRecorder(json.RawMessage(`{"recorder":"stream","session":"s","worker":"w","ring_seconds":60}`))
		if err != nil {
			t.Error(err)
			return
		}
		for _, call := range []func() error{
			func() error { return ring.ScopeBegin("stage.wait") },
			ring.ScopeEnd,
			func() error { return ring.StepBegin(3) },
			ring.StepEnd,
			func() error { dump, err = ring.Dump(dumpConfig); return err },
		} {
			if err := call(); err != nil {
				t.Error(err)
			}
		}
		wantCode(t, ring.ScopeEnd(), FailedPrecondition, "end recorder scope", "no scope")
		_, err = ring.Dump(json.RawMessage(`{}`))
		wantCode(t, err, InvalidArgument, "dump recorder", "session")
	})
	if ring == nil || dump == nil {
		t.FailNow()
	}
	var status struct {
		Events  int64
		Full    string
		Dropped map[string]int64
	}
	data, err := ring.Status() // not on the torch thread
	if err == nil {
		err = json.Unmarshal(data, &status)
	}
	if err != nil || status.Events != 2 || status.Full != "" || len(status.Dropped) != 0 {
		t.Errorf("got status %s, %v, want 2 events", data, err)
	}
	if data, err = dump.Finish(); err != nil {
		t.Errorf("finish dump: got %s, %v", data, err)
	}
	if _, err := os.Stat(trace); err != nil {
		t.Error(err)
	}
	dump.Close()
	onThread(t, func() {
		if err := ring.Stop(); err != nil {
			t.Error(err)
		}
	})
	ring.Close()
	_, err = ring.Status()
	wantCode(t, err, FailedPrecondition, "already closed")
	_, err = ring.Dump(dumpConfig)
	wantCode(t, err, FailedPrecondition, "already closed")
	wantCode(t, ring.ScopeBegin("x"), FailedPrecondition, "already closed")
}

func TestStartRecorderRefusesBadConfigs(t *testing.T) {
	checkNoLeaks(t)
	tests := map[string]string{
		`{`:                                      "not JSON",
		`{"sesion":"s"}`:                         `unknown key "sesion"`,
		`{"recorder":"camera"}`:                  `"camera"`,
		`{"session":3}`:                          `"session": expected a string`,
		`{"session":"s","worker":"w","rank":-1}`: `"rank"`,
	}
	for config, part := range tests {
		onThread(t, func() {
			_, err := StartRecorder(json.RawMessage(config))
			wantCode(t, err, InvalidArgument, "start recorder", part)
			if err != nil && strings.Contains(err.Error(), "another recorder") {
				t.Error("a refused recorder counts as recording")
			}
		})
	}
}
