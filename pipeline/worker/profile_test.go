package worker_test

import (
	"testing"
	"time"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
)

// Profile control comes before all the input that has come first, however much there is and how long the step is.
func TestProfileControlComesBeforeQueuedInput(t *testing.T) {
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{Step: 300 * time.Millisecond}, nil)
	p.send(think(1, 1<<30))
	p.inStep()
	p.send(&message.Feed{Sequence: 1, Last: true}) // a mistake, which is answered when its turn comes
	for id := uint64(2); id < 500; id++ {
		p.send(think(id, 1))
	}
	p.send(&message.ProfileStart{ID: 1, Start: profiler.Start{Session: "s1", Config: profiler.FromDir(t.TempDir()), StampNS: 5}})
	p.send(&message.ProfileStop{ID: 2})
	replies := 0
	for {
		m, err := p.conn.Recv()
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
