package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/omni-run/omni/profiler/ledger"
)

// watch is what the flight recorders keep of a request. It is guarded by profileState.mu.
type watch struct {
	timer *time.Timer // dumps the rings when the request has run for too long; nil without ring_slo_ms
	told  bool        // a dump has it marked as slow
	over  bool        // the request has ended
}

// watch keeps a request for the flight recorders from its arrival on, and has it dump them when it has been running for longer
// than ring_slo_ms; unwatch must follow.
func (o *Omni) watch(r *request) {
	p := &o.profile
	if p.ring.seconds == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ring.running[r] = nil
	if p.ring.slo > 0 {
		r.watch.timer = time.AfterFunc(time.Until(r.arrived.Add(p.ring.slo)), func() { o.overdue(r) })
	}
}

// runs says that a request has been let into the stages.
func (o *Omni) runs(a *attempt) {
	p := &o.profile
	if p.ring.seconds == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ring.running[a.request] = a
}

// unwatch says that a request has ended.
func (o *Omni) unwatch(r *request) {
	p := &o.profile
	if p.ring.seconds == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.ring.running, r)
	r.watch.over = true
	if r.watch.timer != nil {
		r.watch.timer.Stop()
	}
}

// overdue dumps the flight recorders because of a request that has been running for too long, unless it is in a dump already.
// While it is too early after another dump, or a session records, it is left to a later time.
func (o *Omni) overdue(r *request) {
	p := &o.profile
	recording := len(p.active(p.last())) > 0
	p.mu.Lock()
	defer p.mu.Unlock()
	pause := p.ring.pause(time.Now())
	switch {
	case r.watch.over || r.watch.told:
	case recording:
		r.watch.timer.Reset(p.ring.apart)
	case pause > 0:
		r.watch.timer.Reset(pause)
	default:
		line := r.line(time.Now())
		line.Unfinished = true
		o.dumpSlow(&line)
		r.watch.timer.Reset(p.ring.apart) // in case that fails
	}
}

// dumpSlow dumps the rings because of a request, which is counted in: a pipeline that closes lets the workers set their part
// aside, and they write it before they end. The caller holds profileState.mu.
func (o *Omni) dumpSlow(line *ledger.Request) {
	ring := &o.profile.ring
	dumped := make(chan struct{})
	ring.dumped, ring.dumping = time.Now(), dumped
	verb := "took"
	if line.Unfinished {
		verb = "has been running for"
	}
	took := time.Duration(line.DoneNS - line.ArrivedNS).Round(time.Millisecond)
	trigger := fmt.Sprintf("request %q %s %v, more than ring_slo_ms allows (%v)", line.ID, verb, took, ring.slo)
	o.running.Go(func() {
		defer close(dumped)
		ctx, cancel := context.WithTimeoutCause(context.Background(), o.limits.Dump,
			fmt.Errorf("it has not answered for %v", o.limits.Dump))
		defer cancel()
		report, err := o.dump(ctx, trigger)
		switch {
		case errors.Is(err, ErrProfileActive): // it is being recorded anyway
		case err != nil:
			o.log.Error("flight recorder could not be dumped", "because", trigger, "error", err)
		default:
			o.log.Warn("flight recorder is dumped", "because", trigger, "session", report.Session)
		}
	})
}
