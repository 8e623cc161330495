// Package merge makes one trace of the traces of a session's workers, with the session's requests in it.
//
// Every trace is read twice, an event at a time: first to learn when it begins and which ids it uses, then to copy it. The
// merged trace has
//
//   - a process per worker, and one more per device that a worker used, in the order of the stages;
//   - process, thread, flow, correlation and External ids that no two workers share;
//   - one clock: event times count from a moment just before the first event, which keeps the numbers small enough for
//     readers that take them for floating-point numbers;
//   - a process Requests with a slice per request, which holds the request's critical path, and in every worker's process
//     the time of each request in that stage, divided into transfer, wait, queue and compute;
//   - slices that overlap on one track, as Kineto writes them, on tracks of their own;
//   - arrows from stage to stage, one per request and hand-over;
//   - a process per GPU with what it did meanwhile, as counters, and slices where something kept its clocks down.
//
// What it needs of memory depends on the number of threads and requests, not on that of events.
package merge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/trace"
)

// Input is what to merge.
type Input struct {
	// Traces are paths of traces.
	Traces []string
	// Requests may be empty.
	Requests []ledger.Request
	// Session is named in the merged trace.
	Session string
	// Workers are those of the session. Their clocks' offsets are taken out of the traces' times.
	Workers []ledger.Worker
	// Missing says what the merged trace lacks, in its header and in a process of its own.
	Missing []string
	// Telemetry is the path of what GPUs did meanwhile. Empty and a file that does not exist mean that nothing is known.
	Telemetry string
}

// Result says what the merged trace holds.
type Result struct {
	Path    string   `json:"path"`
	Sources []Source `json:"sources"`
	// Events counts those of the sources that are in the trace: all of them but the names of processes, which are new.
	Events   int64 `json:"events"`
	Requests int   `json:"requests"`
	Arrows   int   `json:"arrows"`
	// Counters counts the numbers of GPUs over time.
	Counters int64 `json:"counters"`
	// Missing are the inputs' and the traces that could not be read.
	Missing []string `json:"missing"`
}

// Source is one trace that was merged.
type Source struct {
	Path   string `json:"path"`
	Worker string `json:"worker"`
	Stage  int    `json:"stage"`
	Rank   int    `json:"rank"`
	Events int64  `json:"events"`
	// ShiftNS was added to the trace's times to bring its worker's clock in line, which is exact to ClockErrorNS.
	ShiftNS      int64 `json:"shift_ns"`
	ClockErrorNS int64 `json:"clock_error_ns"`
}

// merger is one run of Merge.
type merger struct {
	out     *trace.Writer
	sources []*source
	baseNS  int64 // of the merged trace, Unix nanoseconds
	firstNS int64 // of its first event, likewise
	nextID  int64 // the first flow id that no source uses
	result  Result
}

// Merge writes the merged trace to path, compressed if that ends in .gz.
func Merge(ctx context.Context, in Input, path string) (*Result, error) {
	m := &merger{result: Result{Path: path, Sources: []Source{}, Missing: append([]string{}, in.Missing...)}}
	if len(in.Traces) == 0 {
		return nil, errors.New("merge: there are no traces")
	}
	if err := m.survey(ctx, in); err != nil {
		return nil, fmt.Errorf("merge: %w", err)
	}
	out, err := trace.Create(path)
	if err != nil {
		return nil, fmt.Errorf("merge: %w", err)
	}
	defer out.Discard()
	m.out = out
	if err := m.write(ctx, in); err != nil {
		return nil, fmt.Errorf("merge: %w", err)
	}
	if err := out.Commit(); err != nil {
		return nil, fmt.Errorf("merge: %w", err)
	}
	return &m.result, nil
}

func (m *merger) write(ctx context.Context, in Input) error {
	if err := m.header(in.Session); err != nil {
		return err
	}
	if err := m.missing(); err != nil {
		return err
	}
	if err := m.telemetry(in.Telemetry); err != nil {
		return err
	}
	for _, s := range m.sources {
		if err := m.nameProcesses(s); err != nil {
			return err
		}
		if err := m.copy(ctx, s); err != nil {
			return err
		}
		m.result.Events += s.Events
		m.result.Sources = append(m.result.Sources, s.Source)
	}
	return m.requests(in.Requests)
}

// header writes what stands before the events. The blank in "rank": 0 is what HTA looks for.
func (m *merger) header(session string) error {
	sources := make([]Source, len(m.sources))
	for i, s := range m.sources {
		sources[i] = s.Source
		sources[i].Path = filepath.Base(s.Path) // the folder may be moved
	}
	about, err := json.Marshal(map[string]any{
		"session": session, "worker": "merged", "stage": 0, "merged": len(m.sources), "sources": sources, "missing": m.result.Missing,
	})
	if err != nil {
		return err
	}
	for _, member := range []struct{ name, value string }{
		{"schemaVersion", "1"},
		{"deviceProperties", "[]"},
		{"distributedInfo", `{"backend": "pipeline", "rank": 0, "world_size": 1}`},
		{"omni", string(about)},
		{"displayTimeUnit", `"ms"`},
		{"baseTimeNanoseconds", strconv.FormatInt(m.baseNS, 10)},
	} {
		if err := m.out.Member(member.name, jsontext.Value(member.value)); err != nil {
			return err
		}
	}
	return nil
}

// missing puts a process in front of all others that says what is not there. It has a slice as long as nothing, since
// viewers hide processes without any.
func (m *merger) missing() error {
	if len(m.result.Missing) == 0 {
		return nil
	}
	if err := m.name(missingPID, "Missing", fmt.Sprintf("%d", len(m.result.Missing)), -1); err != nil {
		return err
	}
	for i, what := range m.result.Missing {
		tid := missingPID + 1 + int64(i)
		if err := m.metadata("thread_name", missingPID, tid, "name", trace.AppendText(nil, what)); err != nil {
			return err
		}
		e := trace.Event{
			Phase: trace.Instant, Category: "missing", Name: what, Process: trace.Number(missingPID), Thread: trace.Number(tid),
			Time: m.firstNS - m.baseNS, Scope: "t",
		}
		if err := m.out.Write(&e); err != nil {
			return err
		}
	}
	return nil
}

// nameProcesses names the processes of a source and gives them their order.
func (m *merger) nameProcesses(s *source) error {
	for i, p := range s.order {
		name := s.Worker
		if p != s.main {
			name += " " + p.label
		}
		labels := p.label
		if !p.old.IsText && p.old.Number > 0 && p == s.main {
			labels += ", pid " + p.old.String()
		}
		if err := m.name(p.pid, name, labels, int64(s.index+1)*100+int64(i)); err != nil {
			return err
		}
	}
	return nil
}

// name writes the metadata of a process.
func (m *merger) name(pid int64, name, labels string, sortIndex int64) error {
	if err := m.metadata("process_name", pid, 0, "name", trace.AppendText(nil, name)); err != nil {
		return err
	}
	if labels != "" {
		if err := m.metadata("process_labels", pid, 0, "labels", trace.AppendText(nil, labels)); err != nil {
			return err
		}
	}
	return m.metadata("process_sort_index", pid, 0, "sort_index", strconv.AppendInt(nil, sortIndex, 10))
}

func (m *merger) metadata(name string, pid, tid int64, key string, value []byte) error {
	args := append(append(trace.AppendText([]byte{'{'}, key), ": "...), value...)
	return m.out.Write(&trace.Event{
		Phase: trace.Metadata, Name: name, Process: trace.Number(pid), Thread: trace.Number(tid), Args: append(args, '}'),
	})
}

// copy copies the events of a source.
func (m *merger) copy(ctx context.Context, s *source) error {
	shift := s.baseNS - m.baseNS
	_, err := trace.Read(ctx, s.Path, func(e *trace.Event) error {
		if isProcessName(e) {
			return nil
		}
		e.Time = max(0, e.Time+shift) // metadata may have no time of its own
		p, err := s.rename(e)
		if err != nil {
			return fmt.Errorf("trace %s: %w", s.Path, err)
		}
		if err := m.lane(e, p); err != nil {
			return err
		}
		return m.out.Write(e)
	})
	return err
}

// isProcessName reports whether e names or sorts a process; the merged trace has names of its own.
func isProcessName(e *trace.Event) bool {
	return e.Phase == trace.Metadata && (e.Name == "process_name" || e.Name == "process_labels" || e.Name == "process_sort_index")
}
