package merge

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/trace"
)

// Numbers of processes are multiples of pidStride; those of a process's threads lie between, and from requestLanes on
// those of the requests in it.
const (
	pidStride    = 1_000_000
	requestLanes = 900_000
)

// classes of ids. Arrows from launches to kernels carry the correlation id of the launch.
const (
	correlations = "ac2g"
	externals    = "External id"
)

// source is a trace with what the survey has learned of it.
type source struct {
	Source
	index     int   // among the sources
	baseNS    int64 // that its event times count from
	firstNS   int64 // of its first event, from baseNS
	main      *process
	processes map[trace.ID]*process
	order     []*process // main first
	highest   map[string]int64
	offset    map[string]int64 // added to the ids of a class
}

// process is a process of a source.
type process struct {
	old     trace.ID
	label   string // CPU, GPU 0
	events  int64
	pid     int64
	threads map[trace.ID]int64
	nesting map[int64]*nesting // by new thread
}

// survey reads all sources once, puts them in order and shares out ids and the time.
func (m *merger) survey(ctx context.Context, in Input) error {
	var broken error
	for _, path := range in.Traces {
		s, err := surveyOne(ctx, path)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil { // what is wrong with one trace says nothing of the others
			broken = errors.Join(broken, err)
			m.result.Missing = append(m.result.Missing, err.Error())
			continue
		}
		s.align(in.Workers)
		m.sources = append(m.sources, s)
	}
	if len(m.sources) == 0 {
		return broken
	}
	slices.SortStableFunc(m.sources, func(a, b *source) int {
		return cmp.Or(cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Rank, b.Rank), strings.Compare(a.Worker, b.Worker))
	})
	first := int64(math.MaxInt64)
	for _, s := range m.sources {
		first = min(first, s.baseNS+s.firstNS)
	}
	for _, r := range in.Requests {
		if r.ArrivedNS > 0 {
			first = min(first, r.ArrivedNS)
		}
	}
	const second = 1_000_000_000
	m.firstNS, m.baseNS = first, first/second*second
	m.nextID = 1
	next := int64(1) // number 1 is the process of the requests
	for i, s := range m.sources {
		s.index = i
		for _, p := range s.order {
			next++
			p.pid = next * pidStride
		}
		s.offset = map[string]int64{}
		for _, class := range slices.Sorted(maps.Keys(s.highest)) {
			s.offset[class] = m.nextID - 1
			m.nextID += s.highest[class]
		}
	}
	return nil
}

// align takes the offset of the worker's clock out of the trace's times.
func (s *source) align(workers []ledger.Worker) {
	i := slices.IndexFunc(workers, func(w ledger.Worker) bool { return w.Worker == s.Worker })
	if i < 0 {
		return
	}
	s.ShiftNS, s.ClockErrorNS = workers[i].Correction(), workers[i].ErrorNS
	s.baseNS += s.ShiftNS
}

// surveyOne reads a trace for its times, processes and ids.
func surveyOne(ctx context.Context, path string) (*source, error) {
	s := &source{
		Source: Source{Path: path}, firstNS: math.MaxInt64,
		processes: map[trace.ID]*process{}, highest: map[string]int64{},
	}
	header, err := trace.Read(ctx, path, func(e *trace.Event) error { s.see(e); return nil })
	if err != nil {
		return nil, err
	}
	if s.firstNS == math.MaxInt64 {
		s.firstNS = 0
	}
	if s.baseNS, err = header.Base(); err != nil {
		return nil, fmt.Errorf("trace %s: %w", path, err)
	}
	who := header.Source()
	s.Worker, s.Stage, s.Rank = who.Worker, who.Stage, who.Rank
	if s.Worker == "" {
		s.Worker, _, _ = strings.Cut(filepath.Base(path), ".")
	}
	s.sortProcesses()
	return s, nil
}

// see notes an event.
func (s *source) see(e *trace.Event) {
	if e.Phase != trace.Metadata {
		s.firstNS = min(s.firstNS, e.Time)
	}
	if !isProcessName(e) {
		s.Events++
	}
	// What recorders put beside processes has texts or negative numbers for them, and becomes tracks of the main process.
	if !e.Process.IsText && e.Process.Number >= 0 {
		p := s.processes[e.Process]
		if p == nil {
			p = &process{old: e.Process, threads: map[trace.ID]int64{}, nesting: map[int64]*nesting{}}
			s.processes[e.Process] = p
		}
		if e.Phase != trace.Metadata {
			p.events++
		}
		if e.Phase == trace.Metadata && e.Name == "process_labels" {
			var args struct {
				Labels string `json:"labels"`
			}
			_ = json.Unmarshal(e.Args, &args) // a label that is no text is no label
			p.label = args.Labels
		}
	}
	if class, n := flowOf(e); n > 0 {
		s.highest[class] = max(s.highest[class], n)
	}
	for key, value := range trace.Members(e.Args) {
		if class := classOf(key); class != "" {
			n, _ := strconv.ParseInt(string(value), 10, 64) // 0 for what is no number
			if n > 0 {
				s.highest[class] = max(s.highest[class], n)
			}
		}
	}
}

// sortProcesses finds the process of the worker itself: that of the CPU, else the busiest.
func (s *source) sortProcesses() {
	for id, p := range s.processes {
		if p.events == 0 { // names of devices that were never used
			delete(s.processes, id)
			continue
		}
		if p.label == "" {
			p.label = "process " + p.old.String()
		}
		s.order = append(s.order, p)
	}
	if len(s.order) == 0 {
		s.order = append(s.order, &process{label: "no events", threads: map[trace.ID]int64{}, nesting: map[int64]*nesting{}})
	}
	slices.SortFunc(s.order, func(a, b *process) int {
		cpu := func(p *process) int {
			if p.label == "CPU" {
				return 0
			}
			return 1
		}
		if c := cmp.Compare(cpu(a), cpu(b)); c != 0 {
			return c
		}
		if cpu(a) == 0 || strings.HasPrefix(a.label, "GPU") && strings.HasPrefix(b.label, "GPU") {
			return cmp.Compare(a.old.Number, b.old.Number)
		}
		return cmp.Compare(b.events, a.events)
	})
	s.main = s.order[0]
}

// classOf is the class of ids that an argument belongs to, empty if it is none.
func classOf(quotedKey []byte) string {
	switch string(quotedKey) {
	case `"correlation"`:
		return correlations
	case `"External id"`:
		return externals
	}
	return ""
}

// flowOf returns the class and the number of the id of a flow; 0 if it has none or none that is a number.
func flowOf(e *trace.Event) (string, int64) {
	if !e.HasFlow {
		return "", 0
	}
	class := e.Category
	if class == externals { // no recorder's, but the class is taken
		class += " flow"
	}
	n := e.Flow.Number
	if hex, ok := strings.CutPrefix(e.Flow.Text, "0x"); ok && e.Flow.IsText {
		n, _ = strconv.ParseInt(hex, 16, 64) // 0 for what is no number
	}
	return class, n
}

// rename gives an event of the source the ids that it has in the merged trace, and returns its process.
func (s *source) rename(e *trace.Event) (*process, error) {
	p, thread := s.processes[e.Process], e.Thread
	if p == nil {
		p = s.main
		if !e.Process.IsText && e.Process.Number >= 0 { // metadata of a process without events
			thread = trace.ID{Text: "process " + e.Process.String(), IsText: true}
		} else if !thread.IsText || thread.Text == "" {
			thread = trace.ID{Text: strings.TrimSpace(e.Process.String() + " " + e.Thread.String()), IsText: true}
		}
		if e.Scope == "g" {
			e.Scope = "p" // one worker's mark concerns that worker
		}
	}
	tid, ok := p.threads[thread]
	if !ok {
		tid = p.pid + 1 + int64(len(p.threads))
		p.threads[thread] = tid
		if len(p.threads) >= requestLanes {
			return nil, fmt.Errorf("process %s has more than %d threads", p.old, requestLanes)
		}
	}
	e.Process, e.Thread = trace.Number(p.pid), trace.Number(tid)
	if e.HasFlow {
		if class, n := flowOf(e); n > 0 {
			e.Flow = trace.Number(n + s.offset[class])
		} else {
			e.Flow = trace.ID{Text: s.Worker + ":" + e.Flow.String(), IsText: true}
		}
	}
	e.Args = s.renameArgs(e.Args)
	return p, nil
}

// renameArgs replaces ids among the arguments. Where there are none the text is not touched.
func (s *source) renameArgs(args jsontext.Value) jsontext.Value {
	var out []byte
	rest := 0 // index of what has not been copied
	for key, value := range trace.Members(args) {
		class := classOf(key)
		if class == "" {
			continue
		}
		n, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil || n <= 0 {
			continue
		}
		at := cap(args) - cap(value) // value is a part of args
		out = append(out, args[rest:at]...)
		out = strconv.AppendInt(out, n+s.offset[class], 10)
		rest = at + len(value)
	}
	if out == nil {
		return args
	}
	return append(out, args[rest:]...)
}
