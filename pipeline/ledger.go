package pipeline

import (
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/omni-run/omni/profiler/ledger"
)

// ProfileLedger says where the times of a session's requests are.
type ProfileLedger struct {
	// Paths has one file per profile directory of the session, none if there were no requests.
	Paths    []string `json:"paths"`
	Requests int      `json:"requests"`
	// Running counts the requests that had not ended when the session did: they are not in the file.
	Running int    `json:"running"`
	Error   string `json:"error,omitempty"`
}

// maxBooked bounds the requests that a session keeps in memory; a ledger line takes about a kilobyte.
const maxBooked = 1 << 16

// book is where the requests that end during a profile session are noted. Its fields are guarded by profileState.mu.
type book struct {
	stampNS  int64
	requests []ledger.Request
	dropped  int64
	written  *ProfileLedger // of the last session, once it has ended
}

// note books a run that has ended, if a session is active.
func (p *profileState) note(a *attempt, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !slices.ContainsFunc(p.taps, func(t *tap) bool { return !t.ended }):
	case len(p.book.requests) >= maxBooked:
		p.book.dropped++
	default:
		p.book.requests = append(p.book.requests, a.ledger(err))
	}
}

// closeBook writes what was booked, unless that is done or there never was a session. The session is stopped in all
// stages, or the pipeline closes.
func (p *profileState) closeBook(running int) {
	p.mu.Lock()
	booked := p.book
	if booked.stampNS == 0 {
		p.mu.Unlock()
		return
	}
	session := ledger.Session{
		Session: p.name, StampNS: booked.stampNS, StoppedNS: time.Now().UnixNano(), Running: running, Dropped: booked.dropped,
	}
	var dirs []string
	for _, t := range p.taps {
		dirs = append(dirs, p.configs[t.stage.id].TorchProfilerDir)
	}
	p.mu.Unlock()
	slices.Sort(dirs)
	written := &ProfileLedger{Requests: len(booked.requests), Running: running}
	var errs []error
	if len(booked.requests) == 0 && running == 0 {
		dirs = nil // there is nothing to say
	}
	for _, dir := range slices.Compact(dirs) {
		path := ledger.Path(filepath.Clean(dir), session.Session, session.StampNS)
		if err := ledger.Write(path, session, booked.requests); err != nil {
			errs = append(errs, err)
			continue
		}
		written.Paths = append(written.Paths, path)
	}
	if err := errors.Join(errs...); err != nil {
		written.Error = err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.book = book{written: written}
}

// ledger is the run's line; its pumps have ended.
func (a *attempt) ledger(err error) ledger.Request {
	r := a.request
	line := ledger.Request{
		ID: r.ID, ArrivedNS: r.arrived.UnixNano(), EnteredNS: r.entered.UnixNano(), DoneNS: time.Now().UnixNano(),
		PromptTokens: len(r.prepared.PromptTokenIDs),
	}
	if err != nil {
		line.Error = err.Error()
	}
	for _, p := range a.parts {
		l := p.ledger
		s := ledger.Stage{
			ID: p.stage.id, Name: p.stage.name,
			ReceivedNS: l.ReceivedNS, FirstInputNS: l.FirstInputNS, LastInputNS: l.LastInputNS,
			FirstComputeNS: l.FirstStepNS, LastComputeNS: l.LastStepNS, FirstOutputNS: l.FirstOutputNS, LastOutputNS: l.LastOutputNS,
			QueueNS: l.QueueNS, WaitNS: l.WaitNS, ComputeNS: l.ComputeNS, TransferNS: l.TransferNS,
			Steps: l.Steps, Tokens: l.Tokens, BytesIn: l.BytesIn, BytesOut: l.BytesOut,
		}
		if p.flow != nil {
			s.DispatchedNS = p.flow.sentNS
		}
		if !p.ended.IsZero() {
			s.DoneNS = p.ended.UnixNano()
		}
		for _, from := range a.parts {
			if slices.ContainsFunc(from.outlets, func(o outlet) bool { return o.to == p }) {
				s.From = append(s.From, from.stage.id)
			}
		}
		line.Stages = append(line.Stages, s)
	}
	return line
}
