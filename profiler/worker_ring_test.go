package profiler

import (
	"errors"
	"strings"
	"testing"
)

// ringed is a bench whose worker has a flight recorder.
func ringed(t *testing.T) *bench {
	t.Helper()
	b := newBench()
	c := FromDir("/profiles")
	c.Recorder, c.RingSeconds, c.MaxEvents = RecorderStream, 10, 5
	if err := b.StartRing(c); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRingRecordsWheneverNoSessionDoes(t *testing.T) {
	b := ringed(t)
	if rc := b.configs[0]; rc.RingSeconds != 10 || rc.TracePath+rc.TablePath != "" || rc.MaxEvents != 0 || rc.Recorder != RecorderStream {
		t.Errorf("the ring was told %+v", rc)
	}
	if r := b.Report(); r.Ring == nil || !r.Ring.Recording || r.Ring.Seconds != 10 || r.Session != "" {
		t.Errorf("got %+v", r)
	}
	b.step(t)
	if err := b.Idle(); err != nil {
		t.Fatal(err)
	}
	b.saw(t, "ring start, ring begin 0, ring end, ring scope stage.wait")
	if err := b.Start(start(func(c *Config) { c.MaxIterations = 1 })); err != nil {
		t.Fatal(err)
	}
	b.saw(t, "ring scope end, ring stop, start")
	if r := b.Report(); r.Ring.Recording || r.State != StateRecording {
		t.Errorf("got %+v", r)
	}
	b.step(t)
	b.step(t) // the budget is used up
	b.saw(t, "begin 0, end, stop, ring start, ring begin 2, ring end")
	if _, err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	if report, err := b.Shutdown(t.Context()); err != nil || report.State != StateDone {
		t.Errorf("got %+v, %v", report, err)
	}
	b.saw(t, "ring stop")
}

func TestRingGoesOnWhileASessionIsArmed(t *testing.T) {
	b := ringed(t)
	if err := b.Start(start(func(c *Config) { c.WaitIterations, c.WarmupIterations, c.ActiveIterations = 1, 1, 1 })); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		b.step(t)
	}
	b.saw(t, "ring start, ring begin 0, ring end, ring stop, warm up, stop, start, begin 2, end, stop, ring start, ring begin 3, ring end")
	if _, err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(start(func(c *Config) { c.DelayIterations = 9 })); err == nil {
		b.step(t)
		_, err = b.Stop()
		if err != nil {
			t.Error(err)
		}
	}
	b.saw(t, "ring begin 4, ring end")
}

func TestDumpIsAnOrdinarySession(t *testing.T) {
	b := ringed(t)
	b.step(t)
	b.step(t)
	if err := b.Idle(); err != nil {
		t.Fatal(err)
	}
	s := start(nil)
	s.Clock = Clock{OffsetNS: 5, ErrorNS: 2}
	if err := b.Dump(s); err != nil {
		t.Fatal(err)
	}
	if b.IsRunning() {
		t.Error("a dump is active")
	}
	report, err := b.WaitSession(t.Context(), "s1")
	if err != nil || report.State != StateDone || report.Ended != EndDump || report.Steps != 2 || len(report.Files) != 2 || report.Active {
		t.Errorf("got %+v, %v", report, err)
	}
	if report.StoppedNS-report.StartedNS != 200 || report.OverheadPct != 1.5 || !report.Ring.Recording || report.Clock != s.Clock {
		t.Errorf("got %+v, want the time that the ring held", report)
	}
	d := b.dumps[0]
	if d.TracePath != "/profiles/stage-1_s1.7.pt.trace.json.gz" || d.TablePath != "/profiles/profiler_out_4.txt" || d.BaseTimeNS != 7 || d.Metadata["clock"] == nil {
		t.Errorf("the ring was told %+v", d)
	}
	b.step(t)
	b.saw(t, "ring start, ring begin 0, ring end, ring begin 1, ring end, ring scope stage.wait, ring dump s1, ring scope end, ring begin 2, ring end")
}

func TestDumpsThatAreRefused(t *testing.T) {
	if err := newBench().Dump(start(nil)); !errors.Is(err, ErrNoRing) {
		t.Errorf("without a ring: got %v", err)
	}
	b := ringed(t)
	if err := b.Start(start(func(c *Config) { c.DelayIterations = 3 })); err != nil {
		t.Fatal(err)
	}
	if err := b.Dump(start(nil)); err == nil || !strings.Contains(err.Error(), "session s1 is active") {
		t.Errorf("during a session: got %v", err)
	}
	b = ringed(t)
	if err := errors.Join(b.Start(start(nil)), b.StepBegin()); err != nil {
		t.Fatal(err)
	}
	b.cuts = true
	if _, ok := b.Cut(); !ok {
		t.Fatal("it was not cut")
	}
	if err := b.Dump(start(nil)); !errors.Is(err, ErrRingPaused) {
		t.Errorf("in the rest of a step: got %v", err)
	}
	b = ringed(t)
	b.step(t) // makes recorders that cannot dump
	b.ring.recorder.(*fakeRecorder).fail = "ring dump"
	if err := b.Dump(start(nil)); err == nil || !strings.Contains(err.Error(), "broken ring dump") {
		t.Errorf("a ring that cannot: got %v", err)
	}
	if r := b.Report(); r.State != StateFailed || len(r.Missing) != 2 || !r.Ring.Recording {
		t.Errorf("got %+v", r)
	}
	b.step(t) // goes on
}

func TestRingThatBreaksIsReportedAndStartedAgain(t *testing.T) {
	for _, fail := range []string{"ring begin", "ring end", "ring scope"} {
		b := newBench()
		b.fail = fail
		c := FromDir("/profiles")
		c.Recorder, c.RingSeconds = RecorderStream, 10
		if err := b.StartRing(c); err != nil {
			t.Fatal(err)
		}
		err := errors.Join(b.Idle(), b.StepBegin(), b.StepEnd())
		if r := b.Report(); err == nil || r.Ring.Recording || !strings.Contains(r.Ring.Error, "broken "+fail) {
			t.Errorf("%s: got %v, %+v", fail, err, r.Ring)
		}
		b.fail = ""
		if err := b.Start(start(nil)); err != nil {
			t.Fatal(err)
		}
		b.step(t)
		if r, err := b.Stop(); err != nil || !r.Ring.Recording || r.Ring.Error != "" {
			t.Errorf("%s: after a session: %+v, %v", fail, r.Ring, err)
		}
	}
	b := newBench()
	b.fail = "ring start"
	c := FromDir("/profiles")
	c.RingSeconds = 1
	if err := b.StartRing(c); err == nil || !strings.Contains(err.Error(), "flight recorder of stage-1: no profiler here") {
		t.Errorf("got %v", err)
	}
	if err := newBench().StartRing(FromDir("/profiles")); err != nil {
		t.Errorf("without ring_seconds: %v", err)
	}
}
