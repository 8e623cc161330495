package ledger

import "slices"

// Kind says what a part of a request's time went for.
type Kind string

// The kinds of parts.
const (
	Queue    Kind = "queue"    // it could have been worked on and was not
	Transfer Kind = "transfer" // it, or what it needs, was under way between processes
	Wait     Kind = "wait"     // a stage had it and lacked input
	Compute  Kind = "compute"  // from its first step in a stage to its last, the gaps between steps included
)

// Part is an interval of a request's time, in Unix nanoseconds.
type Part struct {
	Kind    Kind
	Stage   int
	Name    string // of the stage
	StartNS int64
	EndNS   int64
}

// NS is the length of the part.
func (p Part) NS() int64 { return p.EndNS - p.StartNS }

// tiles collects parts that follow each other without a gap. Moments that lie before the last are taken for it.
type tiles struct {
	parts []Part
	at    int64
}

// to ends a part at a moment. Empty parts are left out; 0, a moment that never came, ends none.
func (t *tiles) to(kind Kind, s *Stage, ns int64) {
	if ns <= t.at {
		return
	}
	t.parts = append(t.parts, Part{Kind: kind, Stage: s.ID, Name: s.Name, StartNS: t.at, EndNS: ns})
	t.at = ns
}

// StageSpan is the request's time in one of its stages: from DispatchedNS to DoneNS, or to when it was written down that it
// was still in there. It is 0, 0 if it never came there, or failed while it was there.
func (r *Request) StageSpan(s *Stage) (startNS, endNS int64) {
	endNS = s.DoneNS
	if endNS == 0 && r.Unfinished {
		endNS = r.DoneNS
	}
	if s.DispatchedNS == 0 || endNS == 0 {
		return 0, 0
	}
	return s.DispatchedNS, endNS
}

// StageParts divides the StageSpan without gaps or overlaps. For a stage that is not done with the request they end with what
// it has said last.
func (r *Request) StageParts(s *Stage) []Part {
	start, end := r.StageSpan(s)
	if end == 0 {
		return nil
	}
	t := tiles{at: start}
	t.to(Transfer, s, min(s.ReceivedNS, end))
	t.to(Wait, s, min(s.ready(), end))
	t.to(Queue, s, min(s.FirstComputeNS, end))
	t.to(Compute, s, min(s.LastComputeNS, end))
	if s.DoneNS != 0 {
		t.to(Transfer, s, end)
	}
	return t.parts
}

// ready is when the input was there without which the first step could not begin: stages differ in whether they begin
// with the first or with the last of it.
func (s *Stage) ready() int64 {
	if s.FirstComputeNS >= s.LastInputNS {
		return s.LastInputNS
	}
	return s.FirstInputNS
}

// HandOver returns when a stage that feeds s gave out what let s begin, and when s had it; 0 if that never came.
func (s *Stage) HandOver(from *Stage) (outNS, inNS int64) {
	if in := s.ready(); in != s.LastInputNS {
		return from.FirstOutputNS, in
	}
	return from.LastOutputNS, s.LastInputNS
}

// CriticalPath divides the request's whole time, from ArrivedNS to DoneNS, by what its end was waiting for: back from the
// result, each stage counts from the moment at which it had its last input, and before that the stage that gave it. The
// parts follow each other without gaps, so they sum up to the time of the request. It is nil for a run without a result.
func (r *Request) CriticalPath() []Part {
	if r.Error != "" || r.Unfinished || len(r.Stages) == 0 {
		return nil
	}
	last := 0
	for i := range r.Stages {
		if r.Stages[i].DoneNS == 0 {
			return nil
		}
		if r.Stages[i].LastOutputNS > r.Stages[last].LastOutputNS {
			last = i
		}
	}
	chain := []*Stage{&r.Stages[last]}
	for i := last; ; {
		if i = r.feeder(i); i < 0 {
			break
		}
		chain = append(chain, &r.Stages[i])
	}
	slices.Reverse(chain)
	first := chain[0]
	t := tiles{at: r.ArrivedNS}
	t.to(Queue, first, min(first.DispatchedNS, r.DoneNS))
	for i, s := range chain {
		input := s.ReceivedNS
		if i > 0 {
			input = s.LastInputNS
		}
		t.to(Transfer, s, min(input, r.DoneNS))
		t.to(Queue, s, min(s.FirstComputeNS, r.DoneNS))
		t.to(Compute, s, min(max(s.LastComputeNS, s.LastOutputNS), r.DoneNS))
	}
	t.to(Transfer, chain[len(chain)-1], r.DoneNS)
	return t.parts
}

// feeder is the index of the stage whose output stage i got last, -1 if no stage feeds it.
func (r *Request) feeder(i int) int {
	found := -1
	for j := range r.Stages[:i] { // those of a pipeline are in the order of the data
		if slices.Contains(r.Stages[i].From, r.Stages[j].ID) && (found < 0 || r.Stages[j].LastOutputNS > r.Stages[found].LastOutputNS) {
			found = j
		}
	}
	return found
}
