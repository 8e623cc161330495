package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/picture"
	"github.com/omni-run/omni/profiler/telemetry"
)

// ProfileOptions say what a profile session records.
type ProfileOptions struct {
	// Stages are the ids of the stages that record; empty for all that have a profiler configuration.
	Stages []int
	// Settings are laid over the configuration of each stage, under the names of [profiler.Config], within the
	// pipeline's ceilings.
	Settings map[string]any
	// RequestIDs are the requests whose times the session keeps: its ledger, and the requests in what is made of it, have no
	// others. Empty for all. What the workers record does not depend on it.
	RequestIDs []string
}

// ProfileStopOptions say what StopProfileWith ends.
type ProfileStopOptions struct {
	// Stages are the ids of the stages that stop; empty for all.
	Stages []int
	// Session is the session that is meant; empty for the current one. Naming one that has ended stops nothing.
	Session string
	// Wait makes the call return when the files are complete, not when collection has ended.
	Wait bool
}

// ProfileReport says how a profile session stands, worker by worker.
type ProfileReport struct {
	// Session is empty if there never was one.
	Session string `json:"session"`
	// ID tells the session apart from those of other runs: [archive.Session.ID].
	ID string `json:"id"`
	// Active is true until the session is stopped in every stage.
	Active bool `json:"active"`
	// Complete is true when everything that the session leaves is there: the workers' files, the ledger, the pictures.
	Complete bool `json:"complete"`
	// Trigger says why a flight recorder was dumped; empty for a session that was started.
	Trigger string `json:"trigger,omitempty"`
	// RequestIDs are the only requests whose times are kept; empty for all.
	RequestIDs []string `json:"request_ids,omitempty"`
	// Workers has one report for each worker of the session, by stage.
	Workers []profiler.Report `json:"workers"`
	// Files are all files of workers that are complete.
	Files []ProfileFile `json:"files"`
	// Ledger is nil until the files of all workers are complete.
	Ledger *ProfileLedger `json:"ledger,omitempty"`
	// FlightRecorders are those of all workers; only ProfileStatus has them.
	FlightRecorders []ProfileRing `json:"flight_recorders,omitempty"`
	// Pictures are what was made of the workers' files; nil until the session is complete.
	Pictures *ProfilePictures `json:"pictures,omitempty"`
}

// ProfileFile is one file of a profile session.
type ProfileFile struct {
	Path    string `json:"path"`
	Stage   int    `json:"stage"`
	Rank    int    `json:"rank"`
	Kind    string `json:"kind"` // trace or table
	Bytes   int64  `json:"bytes"`
	Events  int64  `json:"events"`  // of the worker
	Dropped int64  `json:"dropped"` // of the worker
}

// ProfileRing is the flight recorder of a stage's worker.
type ProfileRing struct {
	Stage int `json:"stage"`
	profiler.Ring
}

// ProfilePictures are the merged trace and the page of a session.
type ProfilePictures struct {
	picture.Result
	Error string `json:"error,omitempty"`
}

// profileState is the pipeline's side of profile sessions.
type profileState struct {
	sessions *profiler.Sessions
	ceilings profiler.Ceilings
	configs  map[int]profiler.Config // of the stages that can be profiled; read-only
	dir      string

	// turn holds a token while a session begins, or its collection ends: who comes first decides.
	turn      chan struct{}
	finishing sync.WaitGroup // of the sessions whose files are being completed

	mu     sync.Mutex        // guards what follows, and the sessions; held for moments only
	recent []*profileSession // the last ones, the latest at the end
	ring   ringBook
}

// keptSessions is how many sessions can still be asked for by name.
const keptSessions = 8

// profileSession is one session, from its beginning in all its workers on.
type profileSession struct {
	name     string
	stampNS  int64
	trigger  string
	only     []string // the requests that are kept; empty for all
	taps     []*tap
	book     book
	stopped  int64 // Unix nanoseconds; 0 while it is active
	pictures *ProfilePictures
	written  *ProfileLedger
	filed    chan struct{} // closed when the workers' files and the ledger are there
	complete chan struct{} // closed when the pictures are, too

	gpus      *telemetry.Recording // nil if there is nothing to watch
	gpusError error
}

// newProfileSession makes the session that the taps' starts name.
func newProfileSession(taps []*tap) *profileSession {
	first := taps[0].start
	return &profileSession{name: first.Session, stampNS: first.StampNS, taps: taps, filed: make(chan struct{}), complete: make(chan struct{})}
}

// configure joins the pipeline's profiler configuration with that of each stage.
func (p *profileState) configure(cfg *Config, deployed *config.Config) error {
	p.sessions = profiler.NewSessions()
	p.ceilings = cfg.ProfileCeilings
	p.turn = make(chan struct{}, 1)
	p.configs = map[int]profiler.Config{}
	if err := p.ceilings.Validate(); err != nil {
		return fmt.Errorf("profile ceilings: %w", err)
	}
	base, err := cfg.Profiler.Checked()
	if err != nil {
		return fmt.Errorf("profiler configuration: %w", err)
	}
	var faults []error
	for _, s := range deployed.Stages {
		c, err := base.Override(s.Profiler)
		if err != nil {
			faults = append(faults, fmt.Errorf("stage %d: profiler_config: %w", s.ID, err))
			continue
		}
		if !c.Enabled() {
			continue
		}
		p.configs[s.ID] = c
		if p.dir == "" {
			p.dir = c.TorchProfilerDir
		}
	}
	p.ring.configure(p.configs, cfg.Limits.filled().DumpPause)
	return errors.Join(faults...)
}

// checkDevices refuses profiler=cuda where no stage that has it runs on a GPU, before anything is loaded. reasons says why
// stages are where they are.
func (p *profileState) checkDevices(placed *config.Config, reasons map[int]string) error {
	var where, why []string
	for _, s := range placed.Stages {
		switch {
		case p.configs[s.ID].Profiler != profiler.KindCUDA:
		case strings.HasPrefix(s.Device, "cuda"):
			return nil // what the others lack their workers say
		default:
			where = append(where, fmt.Sprintf("stage %d on %s", s.ID, s.Device))
			if reason := reasons[s.ID]; reason != "" && !slices.Contains(why, reason) {
				why = append(why, reason)
			}
		}
	}
	if len(where) == 0 {
		return nil
	}
	text := strings.Join(append([]string{strings.Join(where, ", ")}, why...), ": ")
	return message.Errorf(message.FailedPrecondition, "profiler=cuda has nothing to watch, since no stage runs on a GPU (%s); profiler=torch records on every device", text)
}

// ProfileConfigs are the profiler configurations of the stages that have one, by id: the pipeline's with the stage's own
// settings laid over it.
func (o *Omni) ProfileConfigs() map[int]profiler.Config { return maps.Clone(o.profile.configs) }

// ProfileDir is the directory of profiles: the pipeline's, else that of the first stage that has one of its own. It is empty
// if no stage writes any.
func (o *Omni) ProfileDir() string { return o.profile.dir }

// statusLimit is how long a worker has for its status. Its receiving goroutine answers, so it is quick even in a step.
const statusLimit = 5 * time.Second

// ProfileStatus reports the current or last session, as its workers see it now.
func (o *Omni) ProfileStatus() (*ProfileReport, error) {
	return o.profileCall(context.Background(), "profile status", func(ctx context.Context) (*ProfileReport, error) {
		report := o.profile.fresh(ctx, o.profile.last())
		report.FlightRecorders = o.rings(ctx)
		return report, nil
	})
}

// profileCall does what a method about profiles is called for: counted in, at most as long as the pipeline is open, with an
// error that names the call.
func (o *Omni) profileCall(ctx context.Context, name string, do func(context.Context) (*ProfileReport, error)) (*ProfileReport, error) {
	if err := o.enter(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer o.running.Done()
	ctx, cancel := o.within(ctx)
	defer cancel()
	report, err := do(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return report, nil
}

// fresh asks the workers whose part in the session has not ended and reports.
func (p *profileState) fresh(ctx context.Context, s *profileSession) *ProfileReport {
	if s == nil {
		return p.report(nil, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	var mu sync.Mutex // guards latest
	latest := map[*tap]profiler.Report{}
	_ = each(p.openTaps(s), func(t *tap) error {
		report, err := t.status(ctx)
		if err != nil {
			report = p.lost(t, err)
		}
		mu.Lock()
		defer mu.Unlock()
		latest[t] = report
		return nil
	})
	return p.report(s, latest)
}

// openTaps returns the workers whose files are not complete.
func (p *profileState) openTaps(s *profileSession) []*tap {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.taps), func(t *tap) bool { return t.final != nil })
}

// last returns the current or last session, nil if there was none.
func (p *profileState) last() *profileSession {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.recent) == 0 {
		return nil
	}
	return p.recent[len(p.recent)-1]
}

// find returns the session of a name, the current or last for an empty one.
func (p *profileState) find(name string) (*profileSession, error) {
	s := p.last()
	if name == "" {
		return s, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.recent {
		if s.name == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrNoProfile, name)
}

// keep makes s the current session.
func (p *profileState) keep(s *profileSession) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.recent = append(p.recent, s); len(p.recent) > keptSessions {
		p.recent = slices.Delete(p.recent, 0, 1)
	}
}

// active returns the stages in which the session has not been stopped.
func (p *profileState) active(s *profileSession) (ids []int) {
	if s == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range s.taps {
		if !t.stopped {
			ids = append(ids, t.stage.id)
		}
	}
	return ids
}

// report puts together what the workers have said last; latest is later than what is kept.
func (p *profileState) report(s *profileSession, latest map[*tap]profiler.Report) *ProfileReport {
	r := &ProfileReport{Workers: []profiler.Report{}, Files: []ProfileFile{}}
	if s == nil {
		return r
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r.ID = (&archive.Session{Name: s.name, StampNS: s.stampNS}).ID()
	r.RequestIDs = s.only
	r.Session, r.Trigger, r.Ledger, r.Pictures, r.Complete = s.name, s.trigger, s.written, s.pictures, s.pictures != nil
	for _, t := range s.taps {
		w, ok := latest[t]
		switch {
		case t.final != nil:
			w = *t.final
		case !ok:
			w = t.said
		}
		r.Active = r.Active || !t.stopped
		r.Workers = append(r.Workers, w)
		for _, f := range w.Files {
			r.Files = append(r.Files, ProfileFile{
				Path: f.Path, Stage: w.Stage, Rank: w.Rank, Kind: f.Kind, Bytes: f.Bytes, Events: w.Events, Dropped: w.DroppedTotal(),
			})
		}
	}
	return r
}

// take waits for the turn; give must follow unless it fails.
func (p *profileState) take(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *profileState) give() { <-p.turn }

// takeIdle is take for a session that is to begin, and fails while another is active.
func (p *profileState) takeIdle(ctx context.Context) error {
	if err := p.take(ctx); err != nil {
		return err
	}
	s := p.last()
	if active := p.active(s); len(active) > 0 {
		p.give()
		return fmt.Errorf("%w: session %s in stages %v; stop it first", ErrProfileActive, s.name, active)
	}
	return nil
}
