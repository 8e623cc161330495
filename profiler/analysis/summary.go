package analysis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/ledger"
)

// Session is one profile session, read.
type Session struct {
	ID       string
	Workers  []*Worker // by stage and rank
	Requests []ledger.Request
	// About is what the ledger says of the session; empty without a ledger.
	About ledger.Session
	// Missing says what the session lacks: workers without a trace, traces that cannot be read.
	Missing []string
	// GPUs is what GPUs did meanwhile, empty if nothing is known.
	GPUs []*GPU
}

// ReadSession reads the traces of a session, with what its ledger says. A trace that cannot be read is missing.
func ReadSession(ctx context.Context, s *archive.Session, about ledger.Session, requests []ledger.Request) (*Session, error) {
	session := &Session{ID: s.ID(), Requests: requests, About: about, Missing: s.Missing(about.Workers)}
	var broken error
	for _, t := range s.Traces {
		w, err := ReadWorker(ctx, t.Path)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read session %s: %w", s.ID(), context.Cause(ctx))
		}
		if err != nil { // what is wrong with one trace says nothing of the others
			broken = errors.Join(broken, err)
			session.Missing = append(session.Missing, err.Error())
			continue
		}
		if known := session.known(w); known != nil {
			w.shift(known.Correction())
		}
		session.Workers = append(session.Workers, w)
	}
	if len(session.Workers) == 0 {
		return nil, cmp.Or(broken, errors.New("read session: there are no traces"))
	}
	slices.SortStableFunc(session.Workers, func(a, b *Worker) int {
		return cmp.Or(cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Rank, b.Rank), strings.Compare(a.Worker, b.Worker))
	})
	if err := session.readTelemetry(s.Path(archive.TelemetryName)); err != nil {
		session.Missing = append(session.Missing, err.Error())
	}
	return session, nil
}

// known is what the ledger says of a worker, nil if nothing.
func (s *Session) known(w *Worker) *ledger.Worker {
	i := slices.IndexFunc(s.About.Workers, func(l ledger.Worker) bool { return l.Worker == w.Worker })
	if i < 0 {
		return nil
	}
	return &s.About.Workers[i]
}

// Summary says what a session's stages did and what its requests waited for.
type Summary struct {
	Session  string           `json:"session"`
	Stages   []StageSummary   `json:"stages"`
	Requests []RequestSummary `json:"requests"`
	// Missing says which workers have no trace, and why.
	Missing []string `json:"missing"`
	// Trigger says why a flight recorder was dumped, empty for a session that somebody began.
	Trigger string `json:"trigger,omitempty"`
	// RequestIDs are the only requests whose times were kept; empty for all.
	RequestIDs []string `json:"request_ids,omitempty"`
	// E2EMeanMS, E2EP50MS and E2EP99MS are over the requests that were completed; Failed counts the others.
	E2EMeanMS float64 `json:"e2e_mean_ms"`
	E2EP50MS  float64 `json:"e2e_p50_ms"`
	E2EP99MS  float64 `json:"e2e_p99_ms"`
	Failed    int     `json:"failed"`
	// Running and Unbooked count the requests that had not ended with the session, whether they are in Requests or not, and
	// those for which there was no room.
	Running  int   `json:"running"`
	Unbooked int64 `json:"unbooked"`
}

// StageSummary is one worker's use of its time.
type StageSummary struct {
	Stage  int    `json:"stage"`
	Name   string `json:"name"` // of the stage; empty without a ledger
	Worker string `json:"worker"`
	// WindowMS is the length of the recording: BusyMS in steps, WaitingMS without a step although requests were in the
	// stage, IdleMS without any. Without a ledger nobody knows what was waiting: it is counted as idle.
	WindowMS  float64 `json:"window_ms"`
	BusyMS    float64 `json:"busy_ms"`
	WaitingMS float64 `json:"waiting_ms"`
	IdleMS    float64 `json:"idle_ms"`
	Steps     int     `json:"steps"`
	StepP50MS float64 `json:"step_p50_ms"`
	StepP99MS float64 `json:"step_p99_ms"`
	// Requests, Tokens and BytesOut are sums over the ledger.
	Requests int   `json:"requests"`
	Tokens   int64 `json:"tokens"`
	BytesOut int64 `json:"bytes_out"`
	Events   int64 `json:"events"`
	// Dropped counts what the trace lacks, OverheadPercent is the share of the time that recording took, and Ended says why
	// the recording ended; as the worker has said it.
	Dropped         int64   `json:"dropped"`
	OverheadPercent float64 `json:"overhead_pct"`
	Ended           string  `json:"ended,omitempty"`
	// Disordered counts events whose surroundings have inexact times.
	Disordered int64 `json:"disordered"`
	// GPU is what the worker's GPU did meanwhile, nil if nothing is known.
	GPU *GPUUse `json:"gpu,omitempty"`
	// Top are the operators with the longest self time, DeviceTop what the GPU was busy with longest, DeviceMS the sum of
	// all that it did; without a GPU there is none.
	Top       []*Op   `json:"top"`
	DeviceTop []*Op   `json:"device_top,omitempty"`
	DeviceMS  float64 `json:"device_ms,omitempty"`
}

// RequestSummary is where one request's time went.
type RequestSummary struct {
	ID        string  `json:"id"`
	ArrivedNS int64   `json:"arrived_ns"`
	E2EMS     float64 `json:"e2e_ms"`
	Error     string  `json:"error,omitempty"`
	Slow      bool    `json:"slow,omitempty"`
	// Unfinished says that the request was running; its times are those until then.
	Unfinished bool          `json:"unfinished,omitempty"`
	Stages     []RequestPart `json:"stages"`
}

// RequestPart is a request in one stage.
type RequestPart struct {
	Stage      int           `json:"stage"`
	Name       string        `json:"name"`
	QueueMS    float64       `json:"queue_ms"`
	WaitMS     float64       `json:"wait_ms"`
	ComputeMS  float64       `json:"compute_ms"`
	TransferMS float64       `json:"transfer_ms"`
	Steps      int64         `json:"steps"`
	Tokens     int64         `json:"tokens"`
	Parts      []ledger.Part `json:"-"`
}

// Summarise sums up a session, with the top operators of each stage.
func (s *Session) Summarise(top int) *Summary {
	sum := &Summary{
		Session: s.ID, Stages: []StageSummary{}, Requests: []RequestSummary{}, Missing: s.Missing,
		Running: s.About.Running, Unbooked: s.About.Dropped, Trigger: s.About.Trigger,
		RequestIDs: s.About.RequestIDs,
	}
	for _, w := range s.Workers {
		sum.Stages = append(sum.Stages, s.stage(w, top))
	}
	var e2e []float64
	for i := range s.Requests {
		r := summariseRequest(&s.Requests[i])
		sum.Requests = append(sum.Requests, r)
		switch {
		case r.Unfinished:
			sum.Running++
		case r.Error != "":
			sum.Failed++
		default:
			e2e = append(e2e, r.E2EMS)
		}
	}
	slices.Sort(e2e)
	sum.E2EMeanMS, sum.E2EP50MS, sum.E2EP99MS = mean(e2e), median(e2e), quantile(0.99, e2e)
	return sum
}

func (s *Session) stage(w *Worker, top int) StageSummary {
	window := w.EndNS - w.StartNS
	sum := StageSummary{
		Stage: w.Stage, Worker: w.Worker, WindowMS: ms(window), BusyMS: ms(w.BusyNS), Steps: len(w.StepNS),
		Events: w.Events, Disordered: w.Disordered, Top: []*Op{},
	}
	sum.GPU = w.gpu.use()
	if known := s.known(w); known != nil {
		sum.Dropped, sum.OverheadPercent, sum.Ended = known.DroppedTotal(), known.OverheadPercent, known.Ended
	}
	var present [][2]int64
	for i := range s.Requests {
		r := &s.Requests[i]
		for _, part := range r.Stages {
			if part.ID != w.Stage {
				continue
			}
			sum.Name = part.Name
			sum.Requests++
			sum.Tokens += part.Tokens
			sum.BytesOut += part.BytesOut
			from, to := part.ReceivedNS, part.LastOutputNS
			if r.Unfinished && part.DoneNS == 0 {
				from, to = r.StageSpan(&part) // it may not have said that it has the request
			}
			if from, to := max(from, w.StartNS), min(to, w.EndNS); from < to {
				present = append(present, [2]int64{from, to})
			}
		}
	}
	waiting := max(0, min(union(present), window)-w.BusyNS)
	sum.WaitingMS, sum.IdleMS = ms(waiting), ms(max(0, window-w.BusyNS-waiting))
	if len(w.StepNS) > 0 {
		steps := milliseconds(w.StepNS)
		slices.Sort(steps)
		sum.StepP50MS, sum.StepP99MS = median(steps), quantile(0.99, steps)
	}
	for _, op := range w.Ops {
		if len(sum.Top) < top && !op.Annotation() {
			sum.Top = append(sum.Top, op)
		}
	}
	sum.DeviceTop, sum.DeviceMS = w.DeviceOps[:min(top, len(w.DeviceOps))], ms(w.DeviceNS)
	return sum
}

func summariseRequest(r *ledger.Request) RequestSummary {
	sum := RequestSummary{ID: r.ID, ArrivedNS: r.ArrivedNS, E2EMS: ms(r.DoneNS - r.ArrivedNS), Error: r.Error, Slow: r.Slow, Unfinished: r.Unfinished, Stages: []RequestPart{}}
	for i := range r.Stages {
		p := &r.Stages[i]
		sum.Stages = append(sum.Stages, RequestPart{
			Stage: p.ID, Name: p.Name, QueueMS: ms(p.QueueNS), WaitMS: ms(p.WaitNS), ComputeMS: ms(p.ComputeNS),
			TransferMS: ms(p.TransferNS), Steps: p.Steps, Tokens: p.Tokens, Parts: r.StageParts(p),
		})
	}
	return sum
}

// union is the length of what intervals cover together.
func union(intervals [][2]int64) int64 {
	slices.SortFunc(intervals, func(a, b [2]int64) int { return cmp.Compare(a[0], b[0]) })
	var total, end int64
	for _, i := range intervals {
		if i[1] <= end {
			continue
		}
		total += i[1] - max(i[0], end)
		end = i[1]
	}
	return total
}

func ms(ns int64) float64 { return float64(ns) / 1e6 }

func milliseconds(ns []int64) []float64 {
	list := make([]float64, len(ns))
	for i, n := range ns {
		list[i] = ms(n)
	}
	return list
}
