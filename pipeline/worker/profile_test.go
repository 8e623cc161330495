package worker_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/trace"
)

// annotationsOf returns the names of the annotations of the trace among files, in the order of the trace.
func annotationsOf(t *testing.T, files []profiler.File) string {
	t.Helper()
	var names []string
	for _, f := range files {
		if f.Kind != "trace" {
			continue
		}
		r, err := trace.Open(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var e trace.Event
		for err = r.Next(&e); err == nil; err = r.Next(&e) {
			if e.Category == "user_annotation" {
				names = append(names, e.Name)
			}
		}
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	return strings.Join(names, ", ")
}

// A session is stopped and its files are complete while a step runs, however long that takes.
func TestProfileStopsWhileAStepRuns(t *testing.T) {
	steps := pipelinetest.NewStepper(t)
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{Stepper: steps.Path}, nil)
	p.send(&message.ProfileStart{ID: 1, Start: profiler.Start{Session: "s1", Config: profiler.FromDir(t.TempDir()), StampNS: 5}})
	if reply := recv[*message.ProfileReply](p); reply.Error != nil || reply.Report.State != profiler.StateRecording {
		t.Fatalf("got %+v", reply)
	}
	p.send(think(1, 3))
	(<-steps.Steps()).Go()
	recv[*message.Output](p)
	step := <-steps.Steps() // runs until the files are complete
	p.send(&message.ProfileStop{ID: 2})
	reply := recv[*message.ProfileReply](p)
	if reply.ID != 2 || reply.Error != nil || reply.Report.Ended != profiler.EndStop || reply.Report.Active {
		t.Errorf("got %+v", reply)
	}
	p.send(&message.ProfileWait{ID: 3, Session: "s1"})
	reply = recv[*message.ProfileReply](p)
	if reply.ID != 3 || reply.Report.State != profiler.StateDone || reply.Report.Steps != 1 || len(reply.Report.Files) != 2 {
		t.Fatalf("got %+v", reply)
	}
	if got := annotationsOf(t, reply.Report.Files); got != "stage.wait, ProfilerStep#0, cut ProfilerStep#1" {
		t.Errorf("the trace has %s", got)
	}
	// The next session begins with the next step.
	p.send(&message.ProfileStart{ID: 4, Start: profiler.Start{Session: "s2", Config: profiler.FromDir(t.TempDir()), StampNS: 5}})
	p.send(&message.ProfileStop{ID: 5}) // in its turn
	p.send(&message.Ping{ID: 1})
	recv[*message.Pong](p) // both have come
	step.Go()
	for id := uint64(4); id <= 5; {
		m, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		if reply, ok := m.(*message.ProfileReply); ok {
			if reply.ID != id || reply.Error != nil || reply.Report.Session != "s2" {
				t.Errorf("got %+v, want the answer to %d", reply, id)
			}
			id++
		}
	}
	(<-steps.Steps()).Go()
	recv[*message.Output](p)
}

// torch's own recorder ends between two steps.
func TestProfileThatCannotBeCutStopsAfterTheStep(t *testing.T) {
	steps := pipelinetest.NewStepper(t)
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{Stepper: steps.Path}, nil)
	config := profiler.FromDir(t.TempDir())
	config.Recorder = "kineto"
	p.send(&message.ProfileStart{ID: 1, Start: profiler.Start{Session: "s1", Config: config, StampNS: 5}})
	recv[*message.ProfileReply](p)
	p.send(think(1, 1))
	step := <-steps.Steps()
	p.send(&message.ProfileStop{ID: 2})
	p.send(&message.ProfileStatus{ID: 3})
	if reply := recv[*message.ProfileReply](p); reply.ID != 3 || reply.Report.State != profiler.StateRecording {
		t.Errorf("got %+v, want it to record until the step has ended", reply)
	}
	step.Go()
	recv[*message.Output](p)
	if reply := recv[*message.ProfileReply](p); reply.ID != 2 || reply.Report.Steps != 1 || reply.Report.Active {
		t.Errorf("got %+v", reply)
	}
}

func TestFlightRecorderIsDumpedWhileAStepRuns(t *testing.T) {
	steps := pipelinetest.NewStepper(t)
	config := profiler.FromDir(t.TempDir())
	config.RingSeconds = 60
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{Stepper: steps.Path}, func(m *message.Open) { m.Ring = &config })
	p.send(think(1, 2))
	(<-steps.Steps()).Go()
	recv[*message.Output](p)
	step := <-steps.Steps()
	p.send(&message.ProfileDump{ID: 1, Start: profiler.Start{Session: "s1", Config: config, StampNS: 5}})
	if reply := recv[*message.ProfileReply](p); reply.ID != 1 || reply.Error != nil || reply.Report.Ended != profiler.EndDump {
		t.Errorf("got %+v", reply)
	}
	p.send(&message.ProfileWait{ID: 2, Session: "s1"})
	if reply := recv[*message.ProfileReply](p); reply.Report.State != profiler.StateDone || reply.Report.Steps != 1 || !reply.Report.Ring.Recording {
		t.Errorf("got %+v", reply)
	}
	step.Go()
	recv[*message.Output](p)
}

func TestProfileEndsByTimeWhileAStepRuns(t *testing.T) {
	steps := pipelinetest.NewStepper(t)
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{Stepper: steps.Path}, nil)
	config := profiler.FromDir(t.TempDir())
	config.MaxSeconds = 0.05
	p.send(&message.ProfileStart{ID: 1, Start: profiler.Start{Session: "s1", Config: config, StampNS: 5}})
	recv[*message.ProfileReply](p)
	p.send(think(1, 1))
	step := <-steps.Steps()
	p.send(&message.ProfileWait{ID: 2, Session: "s1"})
	if reply := recv[*message.ProfileReply](p); reply.Report.Ended != profiler.EndMaxSeconds || reply.Report.State != profiler.StateDone || reply.Report.Steps != 0 {
		t.Errorf("got %+v", reply)
	}
	step.Go()
	recv[*message.Output](p)
}

// Profile control comes before all the input that has come first, however much there is and how long the step is.
func TestProfileControlComesBeforeQueuedInput(t *testing.T) {
	steps := pipelinetest.NewStepper(t)
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{Stepper: steps.Path}, nil)
	t.Cleanup(steps.Free) // there are more of them than the test lets go
	p.send(think(1, 1<<30))
	step := <-steps.Steps()
	p.send(&message.Feed{Sequence: 1, Last: true}) // a mistake, which is answered when its turn comes
	for id := uint64(2); id < 500; id++ {
		p.send(think(id, 1))
	}
	p.send(&message.ProfileStart{ID: 1, Start: profiler.Start{Session: "s1", Config: profiler.FromDir(t.TempDir()), StampNS: 5}})
	p.send(&message.ProfileStop{ID: 2})
	p.send(&message.Ping{ID: 1})
	recv[*message.Pong](p) // everything has come
	step.Go()
	replies := 0
	for {
		m, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *message.ProfileReply:
			if replies++; m.ID != uint64(replies) || m.Error != nil {
				t.Errorf("got %+v as reply %d", m, replies)
			}
		case *message.Output:
			if m.State == message.StateFailed {
				if replies != 2 {
					t.Errorf("input was taken before %d of two profile messages", 2-replies)
				}
				return
			}
		}
	}
}

func TestFlightRecorderOfAWorker(t *testing.T) {
	config := profiler.FromDir(t.TempDir())
	config.Recorder, config.RingSeconds = profiler.RecorderStream, 60
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{}, func(m *message.Open) { m.Ring = &config })
	p.send(&message.ProfileStatus{ID: 1})
	if r := recv[*message.ProfileReply](p).Report; r.Ring == nil || !r.Ring.Recording || r.Session != "" {
		t.Errorf("got %+v, want a ring that records", r)
	}
	p.send(think(1, 4))
	p.tokens(1)
	p.send(&message.ProfileDump{ID: 2, Start: profiler.Start{Session: "s1", Config: config, StampNS: 5}})
	if reply := recv[*message.ProfileReply](p); reply.ID != 2 || reply.Error != nil || reply.Report.Ended != profiler.EndDump {
		t.Errorf("got %+v", reply)
	}
	p.send(&message.ProfileWait{ID: 3, Session: "s1"})
	if reply := recv[*message.ProfileReply](p); reply.ID != 3 || reply.Report.Steps != 4 || len(reply.Report.Files) != 2 {
		t.Errorf("got %+v", reply)
	}
	p.send(&message.ProfileWait{ID: 4, Session: "s9"})
	if reply := recv[*message.ProfileReply](p); reply.ID != 4 || reply.Error == nil {
		t.Errorf("got %+v, want an unknown session", reply)
	}
	p.send(&message.Drain{})
	if reply := recv[*message.ProfileReply](p); reply.ID != 0 || reply.Report.Session != "s1" {
		t.Errorf("got %+v, want its last word", reply)
	}
	recv[*message.Bye](p)
}

func TestProfileOfAWorker(t *testing.T) {
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{}, nil)
	config := profiler.FromDir(t.TempDir())
	p.send(&message.ProfileStart{ID: 1, Start: profiler.Start{Session: "s1", Config: config, StampNS: 5}})
	if reply := recv[*message.ProfileReply](p); reply.ID != 1 || reply.Error != nil || reply.Report.State != profiler.StateRecording {
		t.Errorf("got %+v", reply)
	}
	p.send(think(1, 4))
	p.tokens(1)
	p.send(&message.ProfileStop{ID: 2})
	if reply := recv[*message.ProfileReply](p); reply.ID != 2 || reply.Report.Ended != profiler.EndStop || reply.Report.Active {
		t.Errorf("got %+v", reply)
	}
	p.send(&message.ProfileWait{ID: 7, Session: "s1"})
	reply := recv[*message.ProfileReply](p)
	if reply.ID != 7 || reply.Report.State != profiler.StateDone || reply.Report.Steps != 4 || len(reply.Report.Files) != 2 {
		t.Errorf("got %+v", reply)
	}
	p.send(&message.ProfileStart{ID: 3, Start: profiler.Start{Session: "s2", Config: profiler.Default()}})
	if reply := recv[*message.ProfileReply](p); reply.Error == nil {
		t.Errorf("got %+v, want a session refused", reply)
	}
}

func TestProfileEndsByTimeInAnIdleWorker(t *testing.T) {
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{}, nil)
	config := profiler.FromDir(t.TempDir())
	config.MaxSeconds = 0.02
	p.send(&message.ProfileStart{ID: 1, Start: profiler.Start{Session: "s1", Config: config, StampNS: 5}})
	recv[*message.ProfileReply](p)
	for id := uint64(2); ; id++ {
		p.send(&message.ProfileStatus{ID: id})
		if r := recv[*message.ProfileReply](p).Report; r.State == profiler.StateDone {
			if r.Ended != profiler.EndMaxSeconds {
				t.Errorf("it ended by %q", r.Ended)
			}
			return
		}
		if id > 10_000 {
			t.Fatal("the session does not end")
		}
		time.Sleep(time.Millisecond)
	}
}
