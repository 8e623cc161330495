package profiler

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// cuttable is a bench whose recorders can be cut.
func cuttable() *bench {
	b := newBench()
	b.cuts = true
	return b
}

func mustBegin(t *testing.T, b *bench, change func(*Config)) {
	t.Helper()
	if err := b.Start(start(change)); err != nil {
		t.Fatal(err)
	}
}

// A session ends in the middle of a step: its files are complete while the step still runs, which does not count.
func TestCutEndsASessionInTheMiddleOfAStep(t *testing.T) {
	b := cuttable()
	mustBegin(t, b, nil)
	b.step(t)
	if err := b.StepBegin(); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() { // as the receiver does
		report, ok := b.Cut()
		if !ok || report.State != StateWriting && report.State != StateDone || report.Active || report.Ended != EndStop {
			t.Errorf("got %+v, %v", report, ok)
		}
		report, err := b.WaitSession(t.Context(), "s1")
		if err != nil || report.State != StateDone || report.Steps != 1 || len(report.Files) != 2 || report.StoppedNS == 0 {
			t.Errorf("got %+v, %v", report, err)
		}
		if again, ok := b.Cut(); !ok || again.State != StateDone {
			t.Errorf("cut again: got %+v, %v", again, ok)
		}
	})
	wait.Wait()
	b.saw(t, "start, begin 0, end, begin 1, cut")
	if b.IsRunning() || b.IsRecording() {
		t.Error("the session goes on")
	}
	if err := b.StepEnd(); err != nil {
		t.Fatal(err)
	}
	b.saw(t, "stop, close")
	b.step(t)
	b.saw(t, "")
	mustBegin(t, b, nil)
	b.saw(t, "start")
}

// The recorder is freed when both its files are complete and the goroutine that runs the operators is done with it.
func TestCutRecorderIsClosedByTheLastWhoNeedsIt(t *testing.T) {
	b := cuttable()
	b.release = make(chan struct{})
	mustBegin(t, b, nil)
	if _, ok := b.Cut(); !ok {
		t.Fatal("it was not cut")
	}
	<-b.Due()
	if err := b.Settle(); err != nil {
		t.Fatal(err)
	}
	b.saw(t, "start, cut, stop")
	close(b.release)
	if _, err := b.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.saw(t, "close")
}

func TestCutBeforeRecordingBegins(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Config)
		steps  int
		want   string
	}{
		"in the delay":       {func(c *Config) { c.DelayIterations = 5 }, 2, ""},
		"while it warms up":  {func(c *Config) { c.WarmupIterations = 5 }, 2, "warm up, stop, close"},
		"before its warm-up": {func(c *Config) { c.WaitIterations, c.WarmupIterations = 5, 1 }, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := cuttable()
			mustBegin(t, b, test.change)
			for range test.steps {
				b.step(t)
			}
			report, ok := b.Cut()
			if !ok || report.State != StateDone || report.Active || report.Ended != EndStop || len(report.Files)+len(report.Missing) > 0 {
				t.Errorf("got %+v, %v", report, ok)
			}
			for range 9 {
				b.step(t)
			}
			b.saw(t, test.want)
		})
	}
}

func TestCutOfASessionWhoseBudgetIsUsedUp(t *testing.T) {
	b := cuttable()
	mustBegin(t, b, func(c *Config) { c.MaxIterations = 1 })
	b.step(t)
	b.step(t)
	if report, err := b.Wait(t.Context()); err != nil || !report.Active || report.Ended != EndMaxIterations {
		t.Errorf("got %+v, %v", report, err)
	}
	if report, ok := b.Cut(); !ok || report.Active || report.Ended != EndMaxIterations || report.Steps != 1 {
		t.Errorf("got %+v, %v", report, ok)
	}
	if report, ok := newBench().Cut(); !ok || report.Session != "" {
		t.Errorf("without a session: got %+v, %v", report, ok)
	}
}

// What ends on the goroutine that runs the operators alone is left to it.
func TestRecorderThatCannotBeCut(t *testing.T) {
	b := newBench()
	mustBegin(t, b, nil)
	if err := b.StepBegin(); err != nil {
		t.Fatal(err)
	}
	if report, ok := b.Cut(); ok || report.Session != "" || !b.IsRunning() || !b.IsRecording() {
		t.Errorf("got %+v, %v", report, ok)
	}
	if err := b.StepEnd(); err != nil {
		t.Fatal(err)
	}
	if report, err := b.Stop(); err != nil || report.Active || report.Steps != 1 {
		t.Errorf("got %+v, %v", report, err)
	}
	b.saw(t, "start, begin 0, end, stop")
}

// Exactly so many steps as were asked for, whenever the session is cut.
func TestCutNeverMakesMoreStepsThanAskedFor(t *testing.T) {
	for cutIn := range 5 {
		b := cuttable()
		mustBegin(t, b, func(c *Config) { c.MaxIterations = 3 })
		for step := range 6 {
			if err := b.StepBegin(); err != nil {
				t.Fatal(err)
			}
			if step == cutIn {
				if _, ok := b.Cut(); !ok {
					t.Fatal("it was not cut")
				}
			}
			if err := b.StepEnd(); err != nil {
				t.Fatal(err)
			}
		}
		if report, err := b.Wait(t.Context()); err != nil || report.Steps != int64(min(cutIn, 3)) {
			t.Errorf("cut in step %d: got %d steps, %v", cutIn, report.Steps, err)
		}
	}
}

func TestBudgetsEndABusyWorkerInTheMiddleOfAStep(t *testing.T) {
	for reason, change := range map[string]func(*Config){
		EndMaxSeconds: func(c *Config) { c.MaxSeconds = 2 },
		EndMaxEvents:  func(c *Config) { c.MaxEvents = 9 },
		EndMaxTraceMB: func(c *Config) { c.MaxTraceMB = 1.5 },
	} {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := cuttable()
				mustBegin(t, b, change)
				if err := b.StepBegin(); err != nil {
					t.Fatal(err)
				}
				if reason != EndMaxSeconds {
					b.fill(RecorderStatus{Full: reason})
				}
				report, err := b.Wait(t.Context()) // while the step runs
				if err != nil || report.Ended != reason || report.State != StateDone || !report.Active || report.Steps != 0 {
					t.Errorf("got %+v, %v", report, err)
				}
				b.saw(t, "start, begin 0, cut")
				if err := b.StepEnd(); err != nil {
					t.Fatal(err)
				}
				b.step(t)
				b.saw(t, "stop, close")
				if report, err := b.Stop(); err != nil || report.Active || report.Ended != reason {
					t.Errorf("after the stop: %+v, %v", report, err)
				}
			})
		})
	}
}

// An idle worker is told that there is something to do: its ring goes on.
func TestRingGoesOnAfterACutInAnIdleWorker(t *testing.T) {
	b := ringed(t)
	b.cuts = true
	mustBegin(t, b, nil)
	if err := b.Idle(); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Cut(); !ok {
		t.Fatal("it was not cut")
	}
	if r := b.Report(); r.Ring.Recording {
		t.Error("a ring has begun on another goroutine")
	}
	if _, err := b.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.saw(t, "ring start, ring stop, ring close, start, scope stage.wait, cut")
	<-b.Due()
	if err := b.Settle(); err != nil || !b.Report().Ring.Recording {
		t.Errorf("got %v, %+v", err, b.Report().Ring)
	}
	b.saw(t, "stop, close, ring start")
	b.step(t) // the wait that was open is not closed again
	b.saw(t, "ring begin 0, ring end")
}

func TestDumpInTheMiddleOfAStep(t *testing.T) {
	b := ringed(t)
	b.step(t)
	if err := b.StepBegin(); err != nil {
		t.Fatal(err)
	}
	if err := b.Dump(start(nil)); err != nil {
		t.Fatal(err)
	}
	if report, err := b.WaitSession(t.Context(), "s1"); err != nil || report.State != StateDone || report.Steps != 1 {
		t.Errorf("got %+v, %v", report, err)
	}
	b.saw(t, "ring start, ring begin 0, ring end, ring begin 1, ring dump s1")
	if err := b.StepEnd(); err != nil {
		t.Fatal(err)
	}
	b.saw(t, "ring end")
}

// Cuts, dumps, reports and the loop at the same time: the race detector looks on.
func TestCutsAndDumpsBesideTheLoop(t *testing.T) {
	b := ringed(t)
	b.cuts = true
	done := make(chan struct{})
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					b.Cut()
					_ = b.Dump(start(nil)) // refused as often as not
					b.Report()
				}
			}
		})
	}
	for sessions := 0; sessions < 50; {
		if err := b.Start(start(func(c *Config) { c.DelayIterations, c.MaxIterations = sessions%3, 2 })); err == nil {
			sessions++
		}
		b.step(t)
		if err := b.Idle(); err != nil {
			t.Fatal(err)
		}
		b.step(t)
		if _, err := b.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wait.Wait()
	if _, err := b.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all := strings.Join(b.calls, ",")
	for _, begins := range []string{"start", "ring start"} {
		prefix := strings.TrimSuffix(begins, "start")
		if starts, stops := count(b.calls, begins), count(b.calls, prefix+"stop"); starts != stops {
			t.Errorf("%d × %q, %d × stop: %.2000s", starts, begins, stops, all)
		}
	}
	if starts, closes := count(b.calls, "start")+count(b.calls, "ring start"), count(b.calls, "close")+count(b.calls, "ring close"); closes < starts {
		t.Errorf("%d recorders, %d closed", starts, closes)
	}
}
