package worker

import (
	"time"

	"github.com/omni-run/omni/pipeline/message"
)

// phase is what a sequence is doing; its ledger books the time under it.
type phase int

const (
	queued  phase = iota // could be stepped
	waiting              // lacks input
	blocked              // has used up its window
	stepped              // in the step that is running
)

// sequence is a sequence of the engine, as the loop sees it.
type sequence struct {
	id      uint64
	cost    int   // prompt tokens
	started bool  // its prompt has been taken in
	fed     bool  // its input is complete
	full    bool  // it waits for all of its input
	wanted  int64 // tokens that it lacks for its next step
	credits int   // outputs that it may still send; meaningless without a window
	window  int
	ledger  message.Ledger

	phase phase
	since time.Time // of the phase
	turn  uint64    // when it was last stepped, as the scheduler counts, for fairness
}

// enter books the time of the phase that ends and begins another. What has come during a step counts from the step's end:
// no time is booked twice.
func (s *sequence) enter(next phase, now time.Time) {
	if now.Before(s.since) {
		now = s.since
	}
	spent := now.Sub(s.since).Nanoseconds()
	switch s.phase {
	case queued:
		s.ledger.QueueNS += spent
	case waiting, blocked:
		s.ledger.WaitNS += spent
	case stepped:
		s.ledger.ComputeNS += spent
		s.ledger.LastStepNS = now.UnixNano()
	}
	if next == stepped && s.ledger.FirstStepNS == 0 {
		s.ledger.FirstStepNS = now.UnixNano()
	}
	s.phase, s.since = next, now
}

// resume returns the phase of a sequence that the engine could step.
func (s *sequence) resume() phase {
	if s.window > 0 && s.credits <= 0 {
		return blocked
	}
	return queued
}

// fedEnough reports whether a step can do anything with the input so far.
func (s *sequence) fedEnough() bool { return s.fed || !s.full && s.wanted <= 0 }

// input books the moment at which input has come.
func (s *sequence) input(at time.Time) {
	if s.ledger.FirstInputNS == 0 {
		s.ledger.FirstInputNS = at.UnixNano()
	}
	s.ledger.LastInputNS = at.UnixNano()
}
