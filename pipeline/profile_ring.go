package pipeline

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/ledger"
)

// ringBook is what the pipeline keeps for its workers' flight recorders: the requests that ended while the rings were
// recording what they still hold, and those that run. What changes is guarded by profileState.mu.
type ringBook struct {
	seconds time.Duration // that the longest ring holds; 0 without rings
	slo     time.Duration // the least ring_slo_ms; 0 without
	apart   time.Duration // the least time between two dumps that nobody has asked for

	requests []ledger.Request
	running  map[*request]*attempt // nil for one that has not been let into the stages
	dumped   time.Time             // the last dump that nobody has asked for
	dumping  chan struct{}         // closed when that has become a session; nil if there was none
}

func (r *ringBook) configure(configs map[int]profiler.Config, pause time.Duration) {
	r.running = map[*request]*attempt{}
	for _, c := range configs {
		r.seconds = max(r.seconds, seconds(c.RingSeconds))
		if slo := seconds(c.RingSLOMS / 1e3); slo > 0 && (r.slo == 0 || slo < r.slo) {
			r.slo = slo
		}
	}
	r.apart = max(pause, r.seconds) // so that no two of them tell of the same time
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// keep adds a request and forgets those that ended before the rings begin.
func (r *ringBook) keep(line *ledger.Request) {
	if r.seconds == 0 {
		return
	}
	from := line.DoneNS - r.seconds.Nanoseconds()
	r.requests = slices.DeleteFunc(r.requests, func(old ledger.Request) bool { return old.DoneNS < from })
	if len(r.requests) < maxBooked {
		r.requests = append(r.requests, *line)
	}
}

// slow reports whether a request has taken, or is taking, longer than ring_slo_ms.
func (r *ringBook) slow(line *ledger.Request) bool {
	return r.slo > 0 && line.DoneNS-line.ArrivedNS > r.slo.Nanoseconds()
}

// pause is how long no slow request may dump the rings.
func (r *ringBook) pause(now time.Time) time.Duration {
	if r.dumping == nil {
		return 0
	}
	select {
	case <-r.dumping:
		return max(0, r.apart-now.Sub(r.dumped))
	default:
		return r.apart // another does just now
	}
}

// book is the requests of a dump: those that ended, and those that run.
func (r *ringBook) book() book {
	now := time.Now()
	var running []ledger.Request
	for request, a := range r.running {
		line := request.line(now)
		line.Unfinished = true
		if a != nil {
			line.EnteredNS, line.Stages = request.entered.UnixNano(), a.stages()
		}
		if line.Slow = r.slow(&line); line.Slow {
			request.watch.told = true
		}
		running = append(running, line)
	}
	slices.SortFunc(running, func(a, b ledger.Request) int { return cmp.Compare(a.ArrivedNS, b.ArrivedNS) })
	return book{requests: slices.Concat(r.requests, running)}
}

// ringOf is the configuration of a stage's flight recorder, nil if it has none.
func (p *profileState) ringOf(stage int) *profiler.Config {
	if c, ok := p.configs[stage]; ok && c.RingSeconds > 0 {
		return &c
	}
	return nil
}

// DumpProfile makes an ordinary session of what the flight recorders of all stages hold now, while they go on. It returns
// when every worker has set its part aside; WaitProfile waits for the files. Without ring_seconds it fails with
// profiler.ErrNoRing, while a session is active with ErrProfileActive.
func (o *Omni) DumpProfile(ctx context.Context) (*ProfileReport, error) {
	return o.profileCall(ctx, "dump profile", func(ctx context.Context) (*ProfileReport, error) { return o.dump(ctx, "dump") })
}

// dump is DumpProfile for a caller that is counted in.
func (o *Omni) dump(ctx context.Context, trigger string) (*ProfileReport, error) {
	p := &o.profile
	if err := p.takeIdle(ctx); err != nil {
		return nil, err
	}
	defer p.give()
	session, err := o.ringSession()
	if err != nil {
		return nil, err
	}
	session.trigger = trigger
	faults := make([]error, len(session.taps))
	_ = each(session.taps, func(t *tap) error {
		faults[slices.Index(session.taps, t)] = o.dumpTap(ctx, t)
		return nil
	})
	if !slices.Contains(faults, nil) {
		return nil, errors.Join(faults...)
	}
	p.mu.Lock()
	session.book = p.ring.book()
	session.stopped = time.Now().UnixNano()
	p.mu.Unlock()
	o.dumpGPUs(session)
	p.keep(session)
	for _, t := range p.openTaps(session) {
		p.finishing.Go(func() { o.completeTap(t) })
	}
	p.finishing.Go(func() { o.completeSession(session) })
	return p.report(session, nil), nil
}

// ringSession names a session of all stages that have a flight recorder.
func (o *Omni) ringSession() (*profileSession, error) {
	p := &o.profile
	var taps []*tap
	var configs []profiler.Config
	for _, s := range o.stages {
		if c := p.ringOf(s.id); c != nil {
			taps = append(taps, newTap(s, s.current()))
			configs = append(configs, *c)
		}
	}
	if len(taps) == 0 {
		return nil, profiler.ErrNoRing
	}
	if err := o.nameSession(taps, configs); err != nil {
		return nil, err
	}
	return newProfileSession(taps), nil
}

// dumpTap dumps the ring of one worker. Rings hold little, so there is no waiting for a worker that is being started again.
func (o *Omni) dumpTap(ctx context.Context, t *tap) error {
	err := error(message.Errorf(message.FailedPrecondition, "stage %d (%s) has no worker at the moment", t.stage.id, t.stage.name))
	var report profiler.Report
	if t.live != nil {
		err = t.measureClock(ctx)
	}
	if err == nil {
		report, err = t.ask(ctx, func(id uint64) message.Message { return &message.ProfileDump{ID: id, Start: t.start} })
	}
	o.profile.mu.Lock()
	t.said, t.stopped = report, true
	o.profile.mu.Unlock()
	if err != nil {
		o.profile.settle(t, o.profile.lost(t, err))
		return err
	}
	t.writes(true)
	return nil
}

// dumped waits for a dump that is under way because of a slow request.
func (p *profileState) dumped(ctx context.Context) error {
	p.mu.Lock()
	dumping := p.ring.dumping
	p.mu.Unlock()
	if dumping == nil {
		return nil
	}
	return await(ctx, dumping)
}

// rings asks all workers for the state of their flight recorders.
func (o *Omni) rings(ctx context.Context) []ProfileRing {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	var taps []*tap
	for _, s := range o.stages {
		if o.profile.ringOf(s.id) != nil {
			taps = append(taps, newTap(s, s.current()))
		}
	}
	rings := make([]ProfileRing, len(taps))
	_ = each(taps, func(t *tap) error {
		r := ProfileRing{Stage: t.stage.id, Ring: profiler.Ring{Seconds: o.profile.configs[t.stage.id].RingSeconds, Error: "the stage has no worker at the moment"}}
		if t.live != nil {
			report, err := t.ask(ctx, func(id uint64) message.Message { return &message.ProfileStatus{ID: id} })
			switch {
			case err != nil:
				r.Error = err.Error()
			case report.Ring != nil:
				r.Ring = *report.Ring
			}
		}
		rings[slices.Index(taps, t)] = r
		return nil
	})
	return rings
}
