package pipeline

import (
	"errors"
	"slices"
	"time"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/ledger"
)

// ProfileLedger says where the times of a session's requests are.
type ProfileLedger struct {
	// Paths has one file per profile directory of the session.
	Paths    []string `json:"paths"`
	Requests int      `json:"requests"`
	// Running counts the requests that had not ended when the session did and are not in the file.
	Running int    `json:"running"`
	Error   string `json:"error,omitempty"`
}

// maxBooked bounds the requests that a session keeps in memory; a ledger line takes about a kilobyte.
const maxBooked = 1 << 16

// book is where the requests of a profile session are noted. Its fields are guarded by profileState.mu.
type book struct {
	requests []ledger.Request
	dropped  int64
	running  int // requests that had not ended when the session did
}

// note books a run that has ended, for the session that is active and for the flight recorders, which it dumps if it was
// too slow. Its result, or its error, was there at done.
func (o *Omni) note(a *attempt, done time.Time, err error) {
	p := &o.profile
	s := p.last()
	recording := len(p.active(s)) > 0
	if !recording && p.ring.seconds == 0 {
		return
	}
	line := a.ledger(done, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	line.Slow = p.ring.slow(&line)
	p.ring.keep(&line)
	delete(p.ring.running, a.request)
	switch {
	case !recording:
		if line.Slow && !a.request.watch.told && p.ring.pause(time.Now()) == 0 {
			o.dumpSlow(&line)
		}
	case s.stopped != 0: // just now
	case len(s.only) > 0 && !slices.Contains(s.only, line.ID):
	case len(s.book.requests) >= maxBooked:
		s.book.dropped++
	default:
		s.book.requests = append(s.book.requests, line)
	}
}

// endBook says that a session has been stopped in all stages: requests that end from now on are not in it. Of a session of certain
// requests, those that are not in it by now had not ended, whether they had begun or not.
func (p *profileState) endBook(s *profileSession, running int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.stopped != 0 {
		return
	}
	s.stopped, s.book.running = time.Now().UnixNano(), running
	if len(s.only) > 0 {
		s.book.running = len(slices.DeleteFunc(slices.Clone(s.only), func(id string) bool {
			return slices.ContainsFunc(s.book.requests, func(r ledger.Request) bool { return r.ID == id })
		}))
	}
}

// writeBook writes the ledger of a session whose workers are done with it, one file in each of its directories.
func (p *profileState) writeBook(s *profileSession) *ProfileLedger {
	p.mu.Lock()
	booked := s.book
	about := ledger.Session{
		Session: s.name, StampNS: s.stampNS, StoppedNS: s.stopped, Running: booked.running, Dropped: booked.dropped, Trigger: s.trigger,
		RequestIDs: s.only,
	}
	for _, t := range s.taps {
		about.Workers = append(about.Workers, t.ledger())
	}
	p.mu.Unlock()
	written := &ProfileLedger{Requests: len(booked.requests), Running: booked.running}
	var faults []error
	for _, dir := range s.dirs(func(profiler.Config) bool { return true }) {
		path := ledger.Path(dir, about.Session, about.StampNS)
		if err := ledger.Write(path, about, booked.requests); err != nil {
			faults = append(faults, err)
			continue
		}
		written.Paths = append(written.Paths, path)
	}
	if err := errors.Join(faults...); err != nil {
		written.Error = err.Error()
	}
	return written
}

// ledger is what a session's ledger says of the worker. The caller holds profileState.mu, and final is there.
func (t *tap) ledger() ledger.Worker {
	r := t.final
	return ledger.Worker{
		Worker: r.Worker, Stage: r.Stage, Rank: r.Rank, Device: r.Device, State: string(r.State), Ended: r.Ended, Error: r.Error,
		Steps: r.Steps, Events: r.Events, Dropped: r.Dropped, OverheadPercent: r.OverheadPct,
		Clock: ledger.Clock(t.start.Clock),
	}
}

// ledger is the line of a run that has ended.
func (a *attempt) ledger(done time.Time, err error) ledger.Request {
	line := a.request.line(done)
	line.EnteredNS, line.Stages = a.request.entered.UnixNano(), a.stages()
	if err != nil {
		line.Error = err.Error()
	}
	return line
}

// line is what is known of a request before it is let into the stages, as of now, or as of its end.
func (r *request) line(now time.Time) ledger.Request {
	return ledger.Request{
		ID: r.ID, ArrivedNS: r.arrived.UnixNano(), DoneNS: now.UnixNano(), PromptTokens: len(r.prepared.PromptTokenIDs),
	}
}

// stages is what is known of a run in its stages. It may be called while it runs.
func (a *attempt) stages() []ledger.Stage {
	a.mu.Lock()
	defer a.mu.Unlock()
	var stages []ledger.Stage
	for _, p := range a.parts {
		l := p.moments.ledger
		if p.moments.live != nil {
			onThisClock(&l, p.moments.live.correction())
		}
		s := ledger.Stage{
			ID: p.stage.id, Name: p.stage.name,
			DispatchedNS: p.moments.dispatchedNS, DoneNS: p.moments.doneNS,
			ReceivedNS: l.ReceivedNS, FirstInputNS: l.FirstInputNS, LastInputNS: l.LastInputNS,
			FirstComputeNS: l.FirstStepNS, LastComputeNS: l.LastStepNS, FirstOutputNS: l.FirstOutputNS, LastOutputNS: l.LastOutputNS,
			QueueNS: l.QueueNS, WaitNS: l.WaitNS, ComputeNS: l.ComputeNS, TransferNS: l.TransferNS,
			Steps: l.Steps, Tokens: l.Tokens, BytesIn: l.BytesIn, BytesOut: l.BytesOut,
		}
		for _, from := range a.parts {
			if slices.ContainsFunc(from.outlets, func(o outlet) bool { return o.to == p }) {
				s.From = append(s.From, from.stage.id)
			}
		}
		stages = append(stages, s)
	}
	return stages
}

// onThisClock turns a worker's moments into the pipeline's.
func onThisClock(l *message.Ledger, correction int64) {
	for _, moment := range []*int64{
		&l.ReceivedNS, &l.FirstInputNS, &l.LastInputNS, &l.FirstStepNS, &l.LastStepNS, &l.FirstOutputNS, &l.LastOutputNS,
	} {
		if *moment != 0 {
			*moment += correction
		}
	}
}
