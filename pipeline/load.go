package pipeline

import (
	"context"
	"sync"
	"time"

	"github.com/omni-run/omni/pipeline/message"
)

// StageLoad is what a stage has to do at the moment, and what it has done since its worker was started. Whoever wants a
// rate takes the difference of two.
type StageLoad struct {
	StageStatus
	// Answered is false while no worker can be asked; what follows is then zero.
	Answered bool `json:"answered"`
	// Sequences are the requests in the stage: in a step, waiting for one, or waiting for input.
	Sequences int `json:"sequences"`
	// Queued are those that could be in the step that is running and are not.
	Queued int `json:"queued"`
	// StepMS is the age of the step that is running, 0 if none is.
	StepMS float64 `json:"step_ms"`
	// Steps counts the steps, Stepped the sequences in all of them: their ratio is the mean size of a batch.
	Steps   int64 `json:"steps"`
	Stepped int64 `json:"stepped"`
	// Tokens and Samples are what came of it.
	Tokens  int64 `json:"tokens"`
	Samples int64 `json:"samples"`
	// BusyMS is the time in steps.
	BusyMS float64 `json:"busy_ms"`
	// RSSBytes is the memory of the worker.
	RSSBytes int64 `json:"rss_bytes"`
}

// loadLimit is how long a worker has to say what it does. Its receiving goroutine answers, so it is quick even in a step.
const loadLimit = time.Second

// Load asks every stage's worker what it does. A worker that does not answer in time is reported without numbers.
func (o *Omni) Load(ctx context.Context) []StageLoad {
	list := make([]StageLoad, len(o.stages))
	var asked sync.WaitGroup
	for i, s := range o.stages {
		asked.Go(func() { list[i] = s.workload(ctx) })
	}
	asked.Wait()
	return list
}

func (s *stage) workload(ctx context.Context) StageLoad {
	load := StageLoad{StageStatus: s.status()}
	s.mu.Lock()
	l := s.live
	s.mu.Unlock()
	if l == nil || load.State != StageReady {
		return load
	}
	ctx, cancel := context.WithTimeout(ctx, loadLimit)
	defer cancel()
	m, err := l.ask(ctx, func(id uint64) message.Message { return &message.Ping{ID: id} })
	pong, ok := m.(*message.Pong)
	if err != nil || !ok {
		return load // it has died, which the next status says, or is late
	}
	load.Answered = true
	load.Sequences, load.Queued = pong.Sequences, pong.Queued
	load.StepMS, load.BusyMS = float64(pong.StepNS)/1e6, float64(pong.BusyNS)/1e6
	load.Steps, load.Stepped = pong.Steps, pong.Stepped
	load.Tokens, load.Samples = pong.Tokens, pong.Samples
	load.RSSBytes = pong.RSS
	return load
}
