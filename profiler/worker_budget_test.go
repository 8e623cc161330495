package profiler

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fill sets what recorders say of themselves.
func (b *bench) fill(s RecorderStatus) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status = s
}

func TestWorkerEndsWhenItsRecorderIsFull(t *testing.T) {
	for _, reason := range []string{EndMaxEvents, EndMaxTraceMB} {
		b := newBench()
		if err := b.Start(start(func(c *Config) { c.MaxEvents, c.MaxTraceMB = 9, 1.5 })); err != nil {
			t.Fatal(err)
		}
		if rc := b.configs[0]; rc.MaxEvents != 9 || rc.MaxTraceBytes != 1_500_000 {
			t.Errorf("the recorder was told of %d events and %d bytes", rc.MaxEvents, rc.MaxTraceBytes)
		}
		b.step(t)
		b.fill(RecorderStatus{Full: reason})
		b.step(t)
		b.step(t)
		b.saw(t, "start, begin 0, end, begin 1, end, stop")
		if !b.IsRunning() {
			t.Error("the session is not active before Stop")
		}
		if _, err := b.Stop(); err != nil {
			t.Fatal(err)
		}
		if report, err := b.Wait(t.Context()); err != nil || report.Ended != reason || report.State != StateDone || report.Active {
			t.Errorf("got %+v, %v", report, err)
		}
	}
}

// A recorder that becomes full after the last step of a stage, whose writer lags behind, ends the session all the same.
func TestIdleWorkerEndsWhenItsRecorderIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		if err := b.Start(start(func(c *Config) { c.MaxTraceMB, c.MaxSeconds = 1, 60 })); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		if !b.IsRecording() {
			t.Fatal("it has ended early")
		}
		b.fill(RecorderStatus{Full: EndMaxTraceMB})
		<-b.Due()
		if err := b.Settle(); err != nil || b.IsRecording() {
			t.Errorf("it goes on: %v", err)
		}
		if report, err := b.Wait(t.Context()); err != nil || report.Ended != EndMaxTraceMB {
			t.Errorf("got %+v, %v", report, err)
		}
	})
}

func TestWorkerNoticesARecorderThatCannotGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		if err := b.Start(start(nil)); err != nil {
			t.Fatal(err)
		}
		b.fill(RecorderStatus{Full: EndError})
		b.step(t) // it is asked once a second
		if !b.IsRecording() {
			t.Error("it was asked at once")
		}
		time.Sleep(faultPoll)
		b.step(t)
		if report, err := b.Wait(t.Context()); err != nil || report.Ended != EndError {
			t.Errorf("got %+v, %v", report, err)
		}
	})
}

func TestMaxSecondsEndsAStageThatGetsNoWork(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"before its delay is over":   func(c *Config) { c.MaxSeconds, c.DelayIterations = 2, 3 },
		"while it warms up":          func(c *Config) { c.MaxSeconds, c.WarmupIterations = 2, 3 },
		"before its waiting is over": func(c *Config) { c.MaxSeconds, c.WaitIterations = 2, 3 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench()
				if err := b.Start(start(change)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				b.step(t) // so that the time begins anew
				began := time.Now()
				report, err := b.Wait(t.Context())
				if got := time.Since(began); got != 2*time.Second {
					t.Errorf("it ended %v after the last step", got)
				}
				b.step(t)
				if err != nil || report.Ended != EndMaxSeconds || report.State != StateDone || !report.Active || len(report.Files) > 0 || len(report.Missing) > 0 {
					t.Errorf("got %+v, %v", report, err)
				}
				if count(b.calls, "stop") != count(b.calls, "warm up") || count(b.calls, "start") > 0 {
					t.Errorf("the recorders saw %q", b.calls)
				}
				if report, err := b.Stop(); err != nil || report.Active || report.Ended != EndMaxSeconds {
					t.Errorf("after the stop: %+v, %v", report, err)
				}
			})
		})
	}
}

// A stage that gets no work would never come to the last of the steps that it is to record.
func TestIdleStageEndsASessionOfSteps(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Config)
		calls  string
	}{
		"while it records":         {func(c *Config) { c.MaxIterations = 9 }, "start, begin 0, end, scope stage.wait, scope end, begin 1, end, scope stage.wait, scope end, stop"},
		"before its delay is over": {func(c *Config) { c.MaxIterations, c.DelayIterations = 9, 5 }, ""},
		"while it warms up":        {func(c *Config) { c.WarmupIterations = 5 }, "warm up, stop"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench()
				if err := b.Start(start(test.change)); err != nil {
					t.Fatal(err)
				}
				idle := func() {
					for range 3 { // a worker wakes up for messages that give it nothing to step
						if err := b.Idle(); err != nil {
							t.Fatal(err)
						}
						time.Sleep(time.Second)
					}
				}
				if err := b.StepBegin(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * IdleLimit) // a long step is no idleness
				if err := b.StepEnd(); err != nil {
					t.Fatal(err)
				}
				idle()
				time.Sleep(IdleLimit - 4*time.Second)
				b.step(t) // so that the time begins anew
				idle()
				time.Sleep(IdleLimit - 4*time.Second)
				if report := b.Report(); report.Ended != "" {
					t.Errorf("it has ended early: %+v", report)
				}
				time.Sleep(time.Second)
				synctest.Wait() // the timer is due
				if err := b.Settle(); err != nil {
					t.Fatal(err)
				}
				if report, err := b.Wait(t.Context()); err != nil || report.Ended != EndIdle || report.State != StateDone || !report.Active {
					t.Errorf("got %+v, %v", report, err)
				}
				b.saw(t, test.calls)
			})
		})
	}
}

func TestOnlySessionsOfStepsEndWithIdleness(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no number of steps": func(c *Config) { c.DelayIterations = 3 },
		"a limit of its own": func(c *Config) { c.MaxIterations, c.MaxSeconds = 9, 3*IdleLimit.Seconds() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench()
				if err := b.Start(start(change)); err != nil {
					t.Fatal(err)
				}
				if err := b.Idle(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * IdleLimit)
				if got := b.Report(); got.Ended != "" {
					t.Errorf("got %+v", got)
				}
				if _, err := b.Stop(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

func TestIdleTimeIsOneSlicePerInterval(t *testing.T) {
	b := newBench()
	idle := func() {
		t.Helper()
		for range 3 { // a worker wakes up for messages that give it nothing to step
			if err := b.Idle(); err != nil {
				t.Fatal(err)
			}
		}
	}
	idle()
	b.saw(t, "")
	if err := b.Start(start(nil)); err != nil {
		t.Fatal(err)
	}
	idle()
	b.step(t)
	b.step(t)
	idle()
	b.step(t)
	idle()
	if _, err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	idle()
	b.saw(t, "start, scope stage.wait, scope end, begin 0, end, begin 1, end, scope stage.wait, scope end, begin 2, end, scope stage.wait, scope end, stop")
}

func TestScopeThatFailsEndsTheSession(t *testing.T) {
	for _, fail := range []string{"scope stage", "scope end"} {
		b := newBench()
		b.fail = fail
		if err := b.Start(start(nil)); err != nil {
			t.Fatal(err)
		}
		err := errors.Join(b.Idle(), b.StepBegin(), b.StepEnd())
		if report := b.Report(); err == nil || report.State != StateFailed || !strings.Contains(report.Error, "broken "+fail) || b.IsRunning() {
			t.Errorf("got %v, %+v", err, report)
		}
	}
}

func TestReportWhileItRecords(t *testing.T) {
	b := newBench()
	b.release = make(chan struct{})
	if err := b.Start(start(nil)); err != nil {
		t.Fatal(err)
	}
	b.fill(RecorderStatus{Events: 40, Dropped: map[string]int64{"pool": 3}, TraceBytes: 500, OverheadNS: 1})
	b.step(t)
	for _, state := range []State{StateRecording, StateWriting} {
		r := b.Report()
		if r.State != state || r.Events != 40 || r.DroppedTotal() != 3 || r.Bytes != 500 || r.OverheadPct <= 0 || r.Steps != 1 || len(r.Files) > 0 {
			t.Errorf("while %s: got %+v", state, r)
		}
		if state == StateRecording {
			if _, err := b.Stop(); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(b.release)
	if r, err := b.Wait(t.Context()); err != nil || r.Events != 7 || r.Bytes != 15 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestActivitiesOfAWorker(t *testing.T) {
	for name, test := range map[string]struct {
		device     string
		activities []string
		want       string
		fault      string
	}{
		"all on a CPU":     {"cpu", []string{"CPU", "CUDA"}, "CPU", ""},
		"all on a GPU":     {"cuda:1", []string{"CPU", "CUDA"}, "CPU,CUDA", ""},
		"the device alone": {"cuda:1", []string{"CUDA"}, "CUDA", ""},
		"no device":        {"cpu", []string{"CUDA"}, "", `activities: ["CUDA"] leave nothing to record on the device cpu`},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			b.identity.Device = test.device
			err := b.Start(start(func(c *Config) { c.Activities = test.activities }))
			if test.fault != "" {
				if err == nil || !strings.Contains(err.Error(), test.fault) || b.IsRunning() {
					t.Errorf("got %v", err)
				}
				return
			}
			if got := strings.Join(b.configs[0].Activities, ","); err != nil || got != test.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestCUDAProfilerWritesNoFiles(t *testing.T) {
	b := newBench()
	err := b.Start(start(func(c *Config) { c.Profiler, c.TorchProfilerDir = KindCUDA, "" }))
	if err != nil {
		t.Fatal(err)
	}
	if rc := b.configs[0]; rc.Recorder != "cuda" || rc.TracePath+rc.TablePath != "" {
		t.Errorf("got %+v", rc)
	}
	b.step(t)
	if _, err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	report, err := b.Wait(t.Context())
	if err != nil || report.State != StateDone || len(report.Files)+len(report.Missing) > 0 || report.Steps != 1 {
		t.Errorf("got %+v, %v", report, err)
	}
	b.saw(t, "start, begin 0, end, stop")
}

func TestDiscardedSessionLeavesNothing(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"while it records": nil, "before": func(c *Config) { c.DelayIterations = 5 },
	} {
		b := newBench()
		if report := b.Discard(errors.New("nothing to discard")); report.Session != "" {
			t.Errorf("%s: got %+v", name, report)
		}
		if err := b.Start(start(change)); err != nil {
			t.Fatal(err)
		}
		report := b.Discard(errors.New("the others did not begin"))
		if report.State != StateFailed || report.Error != "the others did not begin" || report.Active || b.IsRunning() || len(report.Files) > 0 {
			t.Errorf("%s: got %+v", name, report)
		}
		if err := b.Start(start(nil)); err != nil {
			t.Errorf("%s: the next start: %v", name, err)
		}
	}
}
