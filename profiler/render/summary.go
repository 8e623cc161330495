package render

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/omni-run/omni/profiler/analysis"
	"github.com/omni-run/omni/profiler/ledger"
)

// waterfallWidth is how many characters the time of all shown requests takes.
const waterfallWidth = 64

// marks of the waterfall, by what a stage did for the request.
var marks = map[ledger.Kind]rune{ledger.Queue: ':', ledger.Transfer: '-', ledger.Wait: '.', ledger.Compute: '#'}

// Summary writes a summary with the waterfalls of at most limit requests.
func Summary(w io.Writer, s *analysis.Summary, limit int) error {
	out := &errorWriter{w: w}
	fmt.Fprintf(out, "session %s\n", s.Session)
	if s.Trigger != "" {
		fmt.Fprintf(out, "from the flight recorder (%s)\n", s.Trigger)
	}
	fmt.Fprintln(out)
	t := table(out)
	fmt.Fprintln(t, "stage\trecorded\tbusy\t\twaiting\t\tidle\t\tsteps\tp50\tp99\trequests\ttokens\thanded on\t")
	for _, st := range s.Stages {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%d\t%d\t%s\t\n", label(st.Worker, st.Name), duration(st.WindowMS),
			duration(st.BusyMS), percent(st.BusyMS, st.WindowMS), duration(st.WaitingMS), percent(st.WaitingMS, st.WindowMS),
			duration(st.IdleMS), percent(st.IdleMS, st.WindowMS), st.Steps, duration(st.StepP50MS), duration(st.StepP99MS),
			st.Requests, st.Tokens, sizeText(st.BytesOut))
	}
	_ = t.Flush()
	for _, note := range notes(s) {
		fmt.Fprintln(out, note)
	}
	gpus(out, s.Stages)
	for _, st := range s.Stages {
		if len(st.Top) == 0 {
			continue
		}
		fmt.Fprintf(out, "\n%s, operators by self time (shares of busy)\n", label(st.Worker, st.Name))
		if err := Ops(out, st.Top, int64(st.BusyMS*1e6)); err != nil {
			return err
		}
	}
	for _, st := range s.Stages {
		if len(st.DeviceTop) == 0 {
			continue
		}
		fmt.Fprintf(out, "\n%s, on the GPU (shares of %s)\n", label(st.Worker, st.Name), duration(st.DeviceMS))
		if err := DeviceOps(out, st.DeviceTop, int64(st.DeviceMS*1e6)); err != nil {
			return err
		}
	}
	if len(s.Requests) > 0 {
		waterfall(out, s.Requests, limit)
	}
	return out.err
}

// gpus writes what the GPUs of stages did, if anything is known.
func gpus(w io.Writer, stages []analysis.StageSummary) {
	if !slices.ContainsFunc(stages, func(st analysis.StageSummary) bool { return st.GPU != nil }) {
		return
	}
	fmt.Fprintln(w)
	t := table(w)
	fmt.Fprintln(t, "stage\tGPU\tbusy\tpower\thighest\tenergy\tSM clock\tlowest\tmemory\ttemperature\tkept down\t  by")
	for _, st := range stages {
		if use := st.GPU; use != nil {
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t  %s\n", label(st.Worker, st.Name), use.Device, gauge(use.BusyPercent, "%.0f %%"),
				gauge(use.PowerWatts, "%.0f W"), gauge(use.PowerMaxWatts, "%.0f W"), gauge(use.EnergyJoules, "%.1f J"), gauge(use.SMClockMHz, "%.0f MHz"),
				gauge(use.SMClockMinMHz, "%.0f MHz"), memory(use.MemoryMaxBytes), gauge(use.TemperatureC, "%.0f C"), percent(use.Throttled, 1), strings.Join(use.Throttle, ", "))
		}
	}
	_ = t.Flush() // w remembers the error
}

// label names a stage by its worker and, if it is known, its role.
func label(worker, name string) string {
	if name == "" {
		return worker
	}
	return worker + " " + name
}

// waterfall draws each request's stages on one axis of time.
func waterfall(w io.Writer, requests []analysis.RequestSummary, limit int) {
	shown := requests[:min(limit, len(requests))]
	start, end := int64(math.MaxInt64), int64(0)
	for _, r := range shown {
		start = min(start, r.ArrivedNS)
		end = max(end, r.ArrivedNS+int64(r.E2EMS*1e6))
	}
	if len(shown) == 0 || end <= start {
		return
	}
	fmt.Fprintf(w, "\nrequests over %s: - transfer  . wait for input  : queue  # compute\n", nanoseconds(end-start))
	t := table(w)
	for _, r := range shown {
		note := ""
		if r.Slow {
			note = "  slow"
		}
		if r.Unfinished {
			note += "  had not ended"
		}
		if r.Error != "" {
			note = "  failed: " + shorten(r.Error, 60)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", shorten(r.ID, 24), duration(r.E2EMS), note)
		for _, p := range r.Stages {
			fmt.Fprintf(t, "%s\t%s\t  |%s|\n", p.Name, duration(p.ComputeMS), bar(p.Parts, start, end))
		}
	}
	_ = t.Flush() // w remembers the error
	if left := len(requests) - len(shown); left > 0 {
		fmt.Fprintf(w, "and %d more requests\n", left)
	}
}

// bar draws parts between two moments. Where several fall on one character the longest shows.
func bar(parts []ledger.Part, start, end int64) string {
	var cells [waterfallWidth]struct {
		mark rune
		ns   int64
	}
	width := float64(end-start) / waterfallWidth
	for _, p := range parts {
		from, to := float64(p.StartNS-start)/width, float64(p.EndNS-start)/width
		for i := max(0, int(from)); i < waterfallWidth && float64(i) < to; i++ {
			covered := int64((min(to, float64(i+1)) - max(from, float64(i))) * width)
			if covered >= cells[i].ns {
				cells[i].mark, cells[i].ns = marks[p.Kind], covered
			}
		}
	}
	var text strings.Builder
	for _, c := range cells {
		if c.mark == 0 {
			c.mark = ' '
		}
		text.WriteRune(c.mark)
	}
	return text.String()
}

// SummaryCSV writes a row per stage.
func SummaryCSV(w io.Writer, s *analysis.Summary) error {
	header := []string{
		"stage", "name", "worker", "window_ms", "busy_ms", "waiting_ms", "idle_ms", "steps", "step_p50_ms", "step_p99_ms",
		"requests", "tokens", "bytes_out", "events", "dropped", "overhead_pct", "ended", "disordered",
		"gpu", "gpu_busy_pct", "gpu_power_w", "gpu_energy_j", "gpu_sm_clock_mhz", "gpu_memory_max_bytes", "gpu_throttled", "gpu_throttle",
	}
	var rows [][]string
	for _, st := range s.Stages {
		row := []string{
			integer(st.Stage), st.Name, st.Worker, number(st.WindowMS), number(st.BusyMS), number(st.WaitingMS), number(st.IdleMS),
			integer(st.Steps), number(st.StepP50MS), number(st.StepP99MS), integer(st.Requests), integer(st.Tokens), integer(st.BytesOut),
			integer(st.Events), integer(st.Dropped), number(st.OverheadPercent), st.Ended, integer(st.Disordered),
		}
		if use := st.GPU; use != nil {
			row = append(row, integer(use.Device), csvGauge(use.BusyPercent), csvGauge(use.PowerWatts), csvGauge(use.EnergyJoules),
				csvGauge(use.SMClockMHz), csvGauge(use.MemoryMaxBytes), number(use.Throttled), strings.Join(use.Throttle, ";"))
		} else {
			row = append(row, make([]string, 8)...)
		}
		rows = append(rows, row)
	}
	return Rows(w, header, rows)
}

// OpsCSV writes a row per operator and worker, after those of the host those of its GPU.
func OpsCSV(w io.Writer, workers []analysis.WorkerOps) error {
	var rows [][]string
	for _, worker := range workers {
		for _, op := range slices.Concat(worker.Ops, worker.DeviceOps) {
			rows = append(rows, []string{
				integer(worker.Stage), worker.Worker, op.Name, op.Category, integer(op.Calls), integer(op.TotalNS), integer(op.SelfNS), integer(op.DeviceNS),
			})
		}
	}
	return Rows(w, []string{"stage", "worker", "name", "category", "calls", "total_ns", "self_ns", "device_ns"}, rows)
}

// csvGauge is empty for what was not reported.
func csvGauge(v *float64) string {
	if v == nil {
		return ""
	}
	return number(*v)
}
