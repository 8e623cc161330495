package merge

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/trace"
)

// requestsPID is the process of the requests, before all workers.
const requestsPID = pidStride

// missingPID is the process that says what is missing.
const missingPID = pidStride / 2

// category of everything that comes from the ledger.
const category = "request"

// lanes puts intervals that overlap on tracks of their own.
type lanes struct{ ends []int64 }

// place returns the number of a track that is free from start to end.
func (l *lanes) place(start, end int64) int64 {
	for i, free := range l.ends {
		if free <= start {
			l.ends[i] = end
			return int64(i)
		}
	}
	l.ends = append(l.ends, end)
	return int64(len(l.ends) - 1)
}

// track is where the requests of one stage go.
type track struct {
	pid   int64
	lanes lanes
	named int64 // lanes that have a name
}

// requests writes the requests' slices and arrows.
func (m *merger) requests(requests []ledger.Request) error {
	if len(requests) == 0 {
		return nil
	}
	if err := m.name(requestsPID, "Requests", "", 0); err != nil {
		return err
	}
	all := &track{pid: requestsPID}
	stages := map[int]*track{}
	for _, s := range slices.Backward(m.sources) { // the first rank of a stage counts
		stages[s.Stage] = &track{pid: s.main.pid}
	}
	next := int64(len(m.sources)+1) * 100
	nextPID := m.sources[len(m.sources)-1].order[len(m.sources[len(m.sources)-1].order)-1].pid
	sorted := slices.Clone(requests)
	slices.SortStableFunc(sorted, func(a, b ledger.Request) int { return cmp.Compare(a.ArrivedNS, b.ArrivedNS) })
	for i := range sorted {
		for j := range sorted[i].Stages {
			s := &sorted[i].Stages[j]
			if stages[s.ID] != nil {
				continue
			}
			nextPID += pidStride
			next++
			stages[s.ID] = &track{pid: nextPID}
			if err := m.name(nextPID, fmt.Sprintf("stage-%d", s.ID), "not recorded", next); err != nil {
				return err
			}
		}
	}
	for i := range sorted {
		if err := m.request(all, stages, &sorted[i]); err != nil {
			return err
		}
		m.result.Requests++
	}
	return nil
}

// request writes one request.
func (m *merger) request(all *track, stages map[int]*track, r *ledger.Request) error {
	if r.DoneNS < r.ArrivedNS || r.ArrivedNS == 0 {
		return fmt.Errorf("request %q ends %d ns before it begins", r.ID, r.ArrivedNS-r.DoneNS)
	}
	args := trace.AppendText([]byte(`{"request": `), r.ID)
	args = fmt.Appendf(args, `, "prompt tokens": %d`, r.PromptTokens)
	name := r.ID
	if r.Error != "" {
		args = trace.AppendText(append(args, `, "error": `...), r.Error)
	}
	if r.Unfinished {
		args = append(args, `, "unfinished": true`...)
	}
	if r.Slow {
		name, args = "slow: "+name, append(args, `, "slow": true`...)
	}
	if _, err := m.slice(all, name, r.ArrivedNS, r.DoneNS, append(args, '}'), r.CriticalPath(), true); err != nil {
		return err
	}
	tids := map[int]int64{}
	for i := range r.Stages {
		s := &r.Stages[i]
		start, end := r.StageSpan(s)
		if end == 0 {
			continue // the run failed before
		}
		args := fmt.Appendf(nil, `{"request": %s, "queue ms": %.3f, "wait ms": %.3f, "compute ms": %.3f, "transfer ms": %.3f, `,
			trace.AppendText(nil, r.ID), ms(s.QueueNS), ms(s.WaitNS), ms(s.ComputeNS), ms(s.TransferNS))
		args = fmt.Appendf(args, `"steps": %d, "tokens": %d, "bytes in": %d, "bytes out": %d}`, s.Steps, s.Tokens, s.BytesIn, s.BytesOut)
		tid, err := m.slice(stages[s.ID], r.ID, start, end, args, r.StageParts(s), false)
		if err != nil {
			return err
		}
		tids[s.ID] = tid
	}
	for i := range r.Stages {
		to := &r.Stages[i]
		for j := range r.Stages[:i] {
			from := &r.Stages[j]
			outNS, inNS := to.HandOver(from)
			if tids[from.ID] == 0 || tids[to.ID] == 0 || !slices.Contains(to.From, from.ID) || outNS == 0 || inNS == 0 {
				continue
			}
			_, fromEnd := r.StageSpan(from)
			_, toEnd := r.StageSpan(to)
			err := m.arrow(
				stages[from.ID].pid, tids[from.ID], min(outNS, fromEnd), stages[to.ID].pid, tids[to.ID], min(inNS, toEnd))
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func ms(ns int64) float64 { return float64(ns) / 1e6 }

// slice writes a slice with its parts inside and returns the track's tid. staged says to name the parts' stages.
func (m *merger) slice(t *track, name string, start, end int64, args jsontext.Value, parts []ledger.Part, staged bool) (int64, error) {
	lane := t.lanes.place(start, end)
	tid := t.pid + requestLanes + lane
	if lane >= t.named {
		t.named = lane + 1
		if err := m.metadata("thread_name", t.pid, tid, "name", fmt.Appendf(nil, `"requests %d"`, lane+1)); err != nil {
			return 0, err
		}
		if err := m.metadata("thread_sort_index", t.pid, tid, "sort_index", fmt.Appendf(nil, "%d", lane-1000)); err != nil {
			return 0, err
		}
	}
	e := trace.Event{
		Phase: trace.Complete, Category: category, Name: name, Process: trace.Number(t.pid), Thread: trace.Number(tid),
		Time: start - m.baseNS, Duration: end - start, Args: args,
	}
	if err := m.out.Write(&e); err != nil {
		return 0, err
	}
	for _, p := range parts {
		e.Name, e.Args = string(p.Kind), nil
		if staged {
			e.Name = p.Name + " " + e.Name
		}
		e.Time, e.Duration = p.StartNS-m.baseNS, p.NS()
		if err := m.out.Write(&e); err != nil {
			return 0, err
		}
	}
	return tid, nil
}

// arrow writes both ends of an arrow. Perfetto turns arrows so that they point to the slice that begins later, whatever
// their ends say: hand-overs go to the part of the stage's time that begins with them.
func (m *merger) arrow(fromPID, fromTID, fromNS, toPID, toTID, toNS int64) error {
	e := trace.Event{
		Phase: trace.FlowStart, Category: category, Name: category, Process: trace.Number(fromPID), Thread: trace.Number(fromTID),
		Time: fromNS - m.baseNS, Flow: trace.Number(m.nextID), HasFlow: true,
	}
	if err := m.out.Write(&e); err != nil {
		return err
	}
	e.Phase, e.Binding, e.Process, e.Thread, e.Time = trace.FlowEnd, "e", trace.Number(toPID), trace.Number(toTID), max(fromNS, toNS)-m.baseNS
	m.nextID++
	m.result.Arrows++
	return m.out.Write(&e)
}
