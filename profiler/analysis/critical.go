package analysis

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"gonum.org/v1/gonum/stat"

	"github.com/omni-run/omni/profiler/ledger"
)

// CriticalPath says what the end-to-end times of a session's requests were spent on. The parts of a request follow each
// other without gaps, so the shares sum up to the whole.
type CriticalPath struct {
	Session  string        `json:"session"`
	E2EMS    float64       `json:"e2e_ms"` // of all requests together
	Parts    []PathPart    `json:"parts"`  // the longest first
	Ops      []PathOp      `json:"ops"`    // the longest first
	Requests []RequestPath `json:"requests"`
	Failed   int           `json:"failed"` // requests that have no path: they failed or had not ended
}

// PathPart is one kind of part in one stage, over all requests.
type PathPart struct {
	Stage   int         `json:"stage"`
	Name    string      `json:"name"`
	Kind    ledger.Kind `json:"kind"`
	TotalMS float64     `json:"total_ms"`
	Share   float64     `json:"share"` // of E2EMS
	// P50MS and P99MS are over the requests.
	P50MS float64 `json:"p50_ms"`
	P99MS float64 `json:"p99_ms"`
	// InStepsMS is how much of a compute part the stage's recorded steps cover, those for other requests included; the
	// rest went by between steps.
	InStepsMS float64 `json:"in_steps_ms"`
}

// PathOp is an operator's self time in the compute parts of the requests' paths. Requests that are computed together
// count each for itself, as their times do.
type PathOp struct {
	Stage  int     `json:"stage"`
	Worker string  `json:"worker"`
	Name   string  `json:"name"`
	MS     float64 `json:"ms"`
	Share  float64 `json:"share"` // of the E2EMS of all requests
}

// RequestPath is the path of one request.
type RequestPath struct {
	ID    string        `json:"id"`
	E2EMS float64       `json:"e2e_ms"`
	Parts []PathSegment `json:"parts"` // in the order of time
}

// PathSegment is one part of one request's time.
type PathSegment struct {
	Stage   int         `json:"stage"`
	Name    string      `json:"name"`
	Kind    ledger.Kind `json:"kind"`
	StartMS float64     `json:"start_ms"` // from the request's arrival
	MS      float64     `json:"ms"`
}

// partKey tells the parts of a path apart.
type partKey struct {
	stage int
	kind  ledger.Kind
}

// CriticalPath follows the requests of the session, or the one of the given id.
func (s *Session) CriticalPath(id string) (*CriticalPath, error) {
	path := &CriticalPath{Session: s.ID, Parts: []PathPart{}, Ops: []PathOp{}, Requests: []RequestPath{}}
	samples := map[partKey][]float64{}
	parts := map[partKey]*PathPart{}
	opNS := map[*Worker]map[string]float64{}
	for i := range s.Requests {
		r := &s.Requests[i]
		if id != "" && r.ID != id {
			continue
		}
		segments := r.CriticalPath()
		if segments == nil {
			path.Failed++
			continue
		}
		own := map[partKey]float64{} // a kind may come several times
		request := RequestPath{ID: r.ID, E2EMS: ms(r.DoneNS - r.ArrivedNS)}
		for _, p := range segments {
			key := partKey{p.Stage, p.Kind}
			if parts[key] == nil {
				parts[key] = &PathPart{Stage: p.Stage, Name: p.Name, Kind: p.Kind}
			}
			own[key] += ms(p.NS())
			if p.Kind == ledger.Compute {
				parts[key].InStepsMS += ms(s.inSteps(p, opNS))
			}
			request.Parts = append(request.Parts, PathSegment{
				Stage: p.Stage, Name: p.Name, Kind: p.Kind, StartMS: ms(p.StartNS - r.ArrivedNS), MS: ms(p.NS()),
			})
		}
		for key, sum := range own {
			samples[key] = append(samples[key], sum)
			parts[key].TotalMS += sum
		}
		path.E2EMS += request.E2EMS
		path.Requests = append(path.Requests, request)
	}
	if len(path.Requests) == 0 {
		return nil, s.noPath(id, path.Failed)
	}
	for key, p := range parts {
		// A request without such a part has waited for it for no time.
		all := append(samples[key], make([]float64, len(path.Requests)-len(samples[key]))...)
		slices.Sort(all)
		p.P50MS, p.P99MS = stat.Quantile(0.5, stat.Empirical, all, nil), stat.Quantile(0.99, stat.Empirical, all, nil)
		p.Share = p.TotalMS / path.E2EMS
		path.Parts = append(path.Parts, *p)
	}
	slices.SortFunc(path.Parts, func(a, b PathPart) int {
		return cmp.Or(cmp.Compare(b.TotalMS, a.TotalMS), cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Kind, b.Kind))
	})
	for w, byName := range opNS {
		for name, ns := range byName {
			path.Ops = append(path.Ops, PathOp{Stage: w.Stage, Worker: w.Worker, Name: name, MS: ns / 1e6, Share: ns / 1e6 / path.E2EMS})
		}
	}
	slices.SortFunc(path.Ops, func(a, b PathOp) int {
		return cmp.Or(cmp.Compare(b.MS, a.MS), cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Name, b.Name))
	})
	return path, nil
}

// noPath says why there is nothing to follow.
func (s *Session) noPath(id string, failed int) error {
	switch {
	case len(s.Requests) == 0:
		return fmt.Errorf("session %s has no requests in its ledger", s.ID)
	case id != "" && failed == 0:
		return fmt.Errorf("session %s has no request %q", s.ID, id)
	}
	return fmt.Errorf("no request of session %s was completed: %d failed or had not ended", s.ID, failed)
}

// inSteps returns how much of a part its stage's steps cover and adds what operators took of that to opNS. Of a step that
// is covered in part its operators count in proportion.
func (s *Session) inSteps(p ledger.Part, opNS map[*Worker]map[string]float64) int64 {
	i := slices.IndexFunc(s.Workers, func(w *Worker) bool { return w.Stage == p.Stage })
	if i < 0 {
		return 0
	}
	w := s.Workers[i]
	if opNS[w] == nil {
		opNS[w] = map[string]float64{}
	}
	var covered, detailed int64
	own := map[string]float64{}
	first := sort.Search(len(w.steps), func(i int) bool { return w.steps[i].startNS+w.steps[i].ns > p.StartNS })
	for _, step := range w.steps[first:] {
		if step.startNS >= p.EndNS {
			break
		}
		overlap := min(p.EndNS, step.startNS+step.ns) - max(p.StartNS, step.startNS)
		if overlap <= 0 {
			continue
		}
		covered += overlap
		if step.self == nil {
			continue
		}
		detailed += overlap
		for key, ns := range step.self {
			own[key.name] += float64(ns) * float64(overlap) / float64(step.ns)
		}
	}
	for name, ns := range own { // the steps that keep their operators' times stand for the others
		opNS[w][name] += ns * float64(covered) / float64(detailed)
	}
	return covered
}
