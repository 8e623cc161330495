package profiler

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// IsRecording reports whether a session's operators are being recorded.
func (w *Worker) IsRecording() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.recorder != nil
}

func TestWorkerRecordsTheStepsThatAreAskedFor(t *testing.T) {
	tests := []struct {
		name       string
		delay, max int
		steps      int
		want       string // the recorder's calls before Stop
		recording  bool   // before Stop
		state      State  // after Stop and Wait
		recorded   int64
	}{
		{"no limits", 0, 0, 2, "start, begin 0, end, begin 1, end", true, StateDone, 2},
		{"no steps at all", 0, 0, 0, "start", true, StateDone, 0},
		{"delay 1 records the first step", 1, 0, 1, "start, begin 0, end", true, StateDone, 1},
		{"delay 3 begins in the third step", 3, 0, 4, "start, begin 2, end, begin 3, end", true, StateDone, 2},
		{"delay 3 does not begin before", 3, 0, 2, "", false, StateDone, 0},
		{"max 2 is still recording after two steps", 0, 2, 2, "start, begin 0, end, begin 1, end", true, StateDone, 2},
		{"max 2 ends in the third step", 0, 2, 3, "start, begin 0, end, begin 1, end, stop", false, StateDone, 2},
		{"max 2 does not begin again", 0, 2, 9, "start, begin 0, end, begin 1, end, stop", false, StateDone, 2},
		{"max 1", 0, 1, 2, "start, begin 0, end, stop", false, StateDone, 1},
		{"delay 2 and max 1", 2, 1, 5, "start, begin 1, end, stop", false, StateDone, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBench()
			err := b.Start(start(func(c *Config) { c.DelayIterations, c.MaxIterations = test.delay, test.max }))
			if err != nil {
				t.Fatal(err)
			}
			for range test.steps {
				b.step(t)
			}
			if got := strings.Join(b.calls, ", "); got != test.want {
				t.Errorf("recorder saw %q, want %q", got, test.want)
			}
			if got := b.IsRecording(); got != test.recording {
				t.Errorf("IsRecording() = %v, want %v", got, test.recording)
			}
			if !b.IsRunning() {
				t.Error("the session is not active before Stop")
			}
			report, err := b.Stop()
			if err != nil {
				t.Fatal(err)
			}
			if report.Active || b.IsRunning() {
				t.Error("the session is active after Stop")
			}
			report, err = b.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if report.State != test.state || report.Steps != test.recorded {
				t.Errorf("got state %s, %d steps; want %s, %d", report.State, report.Steps, test.state, test.recorded)
			}
		})
	}
}

func TestWorkerFollowsASchedule(t *testing.T) {
	tests := []struct {
		name                            string
		delay, max, wait, warmup, steps int
		want                            string // the recorder's calls before Stop
		recorded                        int64
	}{
		{"waits", 0, 0, 2, 0, 4, "start, begin 2, end, begin 3, end", 2},
		{"waits only", 0, 0, 2, 0, 2, "", 0},
		{"warms up", 0, 0, 0, 2, 3, "warm up, stop, start, begin 2, end", 1},
		{"is stopped while it warms up", 0, 0, 1, 2, 2, "warm up", 0},
		{"ends after the active steps", 0, 0, 1, 1, 9, "warm up, stop, start, begin 2, end, begin 3, end, begin 4, end, stop", 3},
		{"comes after the delay", 3, 0, 1, 1, 5, "warm up, stop, start, begin 4, end", 1},
		{"ends earlier if max is less", 0, 1, 1, 0, 9, "start, begin 1, end, stop", 1},
		{"is not prolonged by max", 0, 7, 1, 0, 9, "start, begin 1, end, begin 2, end, begin 3, end, stop", 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBench()
			err := b.Start(start(func(c *Config) {
				c.DelayIterations, c.MaxIterations = test.delay, test.max
				c.WaitIterations, c.WarmupIterations, c.ActiveIterations = test.wait, test.warmup, 3
			}))
			if err != nil {
				t.Fatal(err)
			}
			for range test.steps {
				b.step(t)
			}
			if got := strings.Join(b.calls, ", "); got != test.want {
				t.Errorf("recorder saw %q, want %q", got, test.want)
			}
			if _, err := b.Stop(); err != nil {
				t.Fatal(err)
			}
			if starts, stops := count(b.calls, "start")+count(b.calls, "warm up"), count(b.calls, "stop"); starts != stops {
				t.Errorf("%d recorders began, %d were stopped: %q", starts, stops, b.calls)
			}
			report, err := b.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if report.Steps != test.recorded || report.State != StateDone {
				t.Errorf("got %s with %d steps, want %d", report.State, report.Steps, test.recorded)
			}
		})
	}
}

func TestWorkerWarmUpThatFailsEndsTheSession(t *testing.T) {
	for _, fail := range []string{"warm up", "stop"} {
		b := newBench()
		b.fail = fail
		if err := b.Start(start(func(c *Config) { c.WarmupIterations = 1 })); err != nil {
			t.Fatal(err)
		}
		err := errors.Join(b.StepBegin(), b.StepEnd(), b.StepBegin(), b.StepEnd())
		if report := b.Report(); err == nil || report.State != StateFailed || b.IsRunning() {
			t.Errorf("%s: got %v, %+v", fail, err, report)
		}
	}
}

func count(values []string, value string) int {
	n := 0
	for _, v := range values {
		if v == value {
			n++
		}
	}
	return n
}

func TestWorkerReportsWhatTheFilesHold(t *testing.T) {
	b := newBench()
	if got := b.Report(); got.Session != "" || got.Worker != "stage-1" {
		t.Errorf("report without a session: %+v", got)
	}
	if err := b.Start(start(nil)); err != nil {
		t.Fatal(err)
	}
	if got := b.Report(); got.State != StateRecording || !got.Active || got.Session != "s1" || got.PID != 42 {
		t.Errorf("report while recording: %+v", got)
	}
	b.step(t)
	if got := b.Report(); got.Steps != 1 {
		t.Errorf("got %d steps while recording, want 1", got.Steps)
	}
	if _, err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	got, err := b.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Events != 7 || got.Bytes != 15 || got.DroppedTotal() != 2 || got.WriteMS != 1.5 || len(got.Files) != 2 || len(got.Missing) > 0 || got.OverheadPct != 1.5 {
		t.Errorf("got %+v", got)
	}
	if got.Ended != EndStop || got.StartedNS == 0 || got.StoppedNS < got.StartedNS {
		t.Errorf("got ended %q, from %d to %d", got.Ended, got.StartedNS, got.StoppedNS)
	}
}

func TestWorkerTellsTheRecorderWhatItIs(t *testing.T) {
	b := newBench()
	err := b.Start(start(func(c *Config) { c.TorchProfilerRecordShapes, c.ProfilePrefix = true, "night" }))
	if err != nil {
		t.Fatal(err)
	}
	got := b.configs[0]
	if got.TracePath != "/profiles/night_stage-1_s1.7.pt.trace.json.gz" {
		t.Errorf("trace path %q", got.TracePath)
	}
	if got.TablePath != "/profiles/profiler_out_4.txt" {
		t.Errorf("table path %q, want the table of base 3 and rank 1", got.TablePath)
	}
	if got.Rank != 1 || got.WorldSize != 3 || got.Stage != 1 || got.Worker != "stage-1" || got.Session != "s1" {
		t.Errorf("identity %+v", got)
	}
	if !got.RecordShapes || !got.WithStack || !got.UseGzip || got.WithMemory || got.WithFLOPs {
		t.Errorf("flags %+v", got)
	}
	if got.Detail != "ops" || got.BaseTimeNS != 7 {
		t.Errorf("detail %q, base %d", got.Detail, got.BaseTimeNS)
	}
	if !slices.Equal(got.Activities, []string{"CPU"}) {
		t.Errorf("activities %q, want CPU only on a CPU worker", got.Activities)
	}
}

func TestWorkerWithoutTable(t *testing.T) {
	b := newBench()
	if err := b.Start(start(func(c *Config) { c.TorchProfilerDumpCUDATimeTotal = false })); err != nil {
		t.Fatal(err)
	}
	if got := b.configs[0].TablePath; got != "" {
		t.Errorf("table path %q, want none", got)
	}
}

func TestWorkerIgnoresRepeatedStartAndStop(t *testing.T) {
	b := newBench()
	if report, err := b.Stop(); err != nil || report.Session != "" {
		t.Errorf("Stop without a session: %+v, %v", report, err)
	}
	b.step(t)
	if len(b.calls) != 0 {
		t.Errorf("steps without a session reached a recorder: %q", b.calls)
	}
	if err := b.Start(start(nil)); err != nil {
		t.Fatal(err)
	}
	second := start(nil)
	second.Session = "s2"
	if err := b.Start(second); err != nil {
		t.Fatal(err)
	}
	if got := b.Report().Session; got != "s1" {
		t.Errorf("a second start replaced the session by %q", got)
	}
	for range 2 {
		if _, err := b.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(b.calls, ", "); got != "start, stop" {
		t.Errorf("recorder saw %q", got)
	}
	if _, err := b.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(second); err != nil {
		t.Fatal(err)
	}
	if got := b.Report(); got.Session != "s2" || got.State != StateRecording {
		t.Errorf("the session after the first: %+v", got)
	}
}

func TestWorkerAllOrNone(t *testing.T) {
	b := newBench()
	b.fail = "start"
	if err := b.Start(start(nil)); err == nil || !strings.Contains(err.Error(), "no profiler here") {
		t.Errorf("got %v, want the recorder's error", err)
	}
	if b.IsRunning() {
		t.Error("active after a failed start")
	}
	if got := b.Report(); got.State != StateFailed || got.Error == "" || got.Active {
		t.Errorf("report of the failed start: %+v", got)
	}
	b.fail = ""
	if err := b.Start(start(nil)); err != nil {
		t.Errorf("start after a failed one: %v", err)
	}
}

func TestWorkerRefusesAConfigWithoutProfiler(t *testing.T) {
	if err := newBench().Start(Start{Config: Default()}); !errors.Is(err, ErrNotEnabled) {
		t.Errorf("got %v, want ErrNotEnabled", err)
	}
}

func TestWorkerFailuresEndTheSession(t *testing.T) {
	tests := []struct {
		fail string
		want string
	}{
		{"begin", "begin profiler step: broken begin"},
		{"end", "end profiler step: broken end"},
		{"stop", "stop recording session s1 in stage-1: broken stop"},
		{"finish", "write profile: disk full"},
	}
	for _, test := range tests {
		t.Run(test.fail, func(t *testing.T) {
			b := newBench()
			b.fail, b.status = test.fail, RecorderStatus{Events: 6, Dropped: map[string]int64{"buffer": 2}}
			if err := b.Start(start(nil)); err != nil {
				t.Fatal(err)
			}
			_ = b.StepBegin()
			_ = b.StepEnd()
			_, _ = b.Stop()
			report, err := b.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if report.State != StateFailed || !strings.Contains(report.Error, test.want) || report.Active {
				t.Errorf("got %s, active %v, %q; want %q", report.State, report.Active, report.Error, test.want)
			}
			if report.Events != 6 || report.DroppedTotal() != 2 {
				t.Errorf("got %d events and %d dropped; want what the recorder had counted", report.Events, report.DroppedTotal())
			}
			b.fail = ""
			if err := b.Start(start(nil)); err != nil {
				t.Errorf("start after the failure: %v", err)
			}
		})
	}
}

func TestATableThatIsLostFailsNoSession(t *testing.T) {
	b := newBench()
	b.fail = "table"
	if err := b.Start(start(nil)); err != nil {
		t.Fatal(err)
	}
	b.step(t)
	if _, err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	report, err := b.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if report.State != StateDone || report.Error != "write operator table: broken table" || report.Steps != 1 || report.Events != 7 {
		t.Errorf("got %+v, want a session that is done, with its counts and the error", report)
	}
	if len(report.Files) != 1 || report.Files[0].Kind != "trace" || !slices.Equal(report.Missing, []string{"/profiles/profiler_out_4.txt"}) {
		t.Errorf("got files %v, missing %v", report.Files, report.Missing)
	}
}

func TestWorkerMaxSeconds(t *testing.T) {
	limited := func(c *Config) { c.MaxSeconds = 2 }
	t.Run("ends an idle worker", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench()
			if err := b.Start(start(limited)); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			<-b.Due()
			if got := time.Since(began); got != 2*time.Second {
				t.Errorf("it took %v", got)
			}
			if err := b.Settle(); err != nil {
				t.Fatal(err)
			}
			report, err := b.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if report.Ended != EndMaxSeconds || report.State != StateDone || !report.Active {
				t.Errorf("got %+v", report)
			}
		})
	})
	t.Run("ends a busy worker between steps", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench()
			if err := b.Start(start(limited)); err != nil {
				t.Fatal(err)
			}
			b.step(t)
			time.Sleep(3 * time.Second)
			b.step(t)
			b.step(t)
			if got := strings.Join(b.calls, ", "); got != "start, begin 0, end, stop" {
				t.Errorf("recorder saw %q", got)
			}
		})
	})
}

func TestWorkerShutdownStopsAndWaits(t *testing.T) {
	b := newBench()
	b.release = make(chan struct{})
	if err := b.Start(start(nil)); err != nil {
		t.Fatal(err)
	}
	if err := b.StepBegin(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := b.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline while the files are being written", err)
	}
	if got := b.Report().State; got != StateWriting {
		t.Errorf("got state %s", got)
	}
	close(b.release)
	report, err := b.Shutdown(t.Context())
	if err != nil || report.State != StateDone || report.Ended != EndShutdown {
		t.Errorf("got %+v, %v", report, err)
	}
	if got := strings.Join(b.calls, ", "); got != "start, begin 0, end, stop" {
		t.Errorf("recorder saw %q, want the open step closed", got)
	}
}

func TestWorkerSessionsOverlapOnlyByOne(t *testing.T) {
	b := newBench()
	b.release = make(chan struct{})
	begin := func(session string) error {
		s := start(nil)
		s.Session = session
		return b.Start(s)
	}
	for _, session := range []string{"s1", "s2"} {
		if err := begin(session); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin("s3"); !errors.Is(err, ErrBusy) {
		t.Errorf("a third session while the files of two were waiting: got %v", err)
	}
	close(b.release)
	for _, session := range []string{"s1", "s2"} {
		report, err := b.WaitSession(t.Context(), session)
		if err != nil || report.Session != session || report.State != StateDone {
			t.Errorf("session %s: %+v, %v", session, report, err)
		}
	}
	if _, err := b.WaitSession(t.Context(), "s9"); err == nil {
		t.Error("waiting for an unknown session succeeded")
	}
	if err := begin("s3"); err != nil {
		t.Errorf("a session after all files are complete: %v", err)
	}
}
