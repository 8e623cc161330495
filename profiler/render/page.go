package render

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"gonum.org/v1/gonum/stat"

	"github.com/omni-run/omni/profiler/analysis"
	"github.com/omni-run/omni/profiler/render/uplot"
)

// The page: its text, look and behaviour.
var (
	//go:embed page/page.html.tmpl
	pageText string
	//go:embed page/page.css
	pageStyle template.CSS
	//go:embed page/page.js
	pageScript template.JS
)

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"ms":       duration,
	"ns":       nanoseconds,
	"percent":  percent,
	"bytes":    sizeText,
	"share":    func(f float64) string { return percent(f, 1) },
	"width":    func(a, b float64) string { return fmt.Sprintf("%.2f", 100*min(1, max(0, a/max(b, 1e-12)))) },
	"div":      func(a float64, b int) float64 { return a / float64(max(1, b)) },
	"busyNS":   func(s analysis.StageSummary) float64 { return s.BusyMS * 1e6 },
	"deviceNS": func(s analysis.StageSummary) float64 { return s.DeviceMS * 1e6 },
	"float":    func(n int64) float64 { return float64(n) },
	"perCall":  func(op *analysis.Op) int64 { return op.SelfNS / max(1, op.Calls) },
	"label":    label,
	"count":    count,
	"gauge":    gauge,
	"memory":   memory,
	"join":     func(list []string) string { return strings.Join(list, ", ") },
}).Parse(pageText))

// PageInput is what the page shows. Path may be nil.
type PageInput struct {
	Summary  *analysis.Summary
	Timeline *analysis.Timeline
	Path     *analysis.CriticalPath
	// Limit is how many requests to draw.
	Limit int
}

// card is one number at the top of the page.
type card struct{ Title, Value, More string }

// series is a chart's data; page.js draws it.
type series struct {
	Values  []*float64 `json:"values"`
	Unit    string     `json:"unit"`
	Color   string     `json:"color"` // a variable of page.css
	Top     float64    `json:"top"`   // of the axis, 0 to fit
	Stepped bool       `json:"stepped"`
}

// chart is where a series goes.
type chart struct {
	Series       int
	Title, Value string
}

// charts collects series and where they go.
type charts struct {
	At     []float64 `json:"at"` // seconds
	Series []series  `json:"series"`
}

func (c *charts) add(title, value string, s series) chart {
	c.Series = append(c.Series, s)
	return chart{Series: len(c.Series) - 1, Title: title, Value: value}
}

// stageGPU is a row of the table of GPUs.
type stageGPU struct {
	Stage string
	Use   *analysis.GPUUse
}

// Page writes a page about a session that needs nothing else: what stages and GPUs did over time, tables, and the
// waterfalls of requests.
func Page(w io.Writer, in PageInput) error {
	s, t := in.Summary, in.Timeline
	drawn := &charts{Series: []series{}}
	seconds := float64(t.EndNS-t.StartNS) / 1e9
	for i := range analysis.Intervals {
		drawn.At = append(drawn.At, (float64(i)+0.5)/analysis.Intervals*seconds)
	}
	var stageCharts []chart
	for _, track := range t.Stages {
		values := make([]*float64, len(track.Busy))
		name, busy := track.Worker, ""
		for i, share := range track.Busy {
			of := math.Round(1000*min(1, share)) / 10
			values[i] = &of
		}
		for _, st := range s.Stages {
			if st.Worker == track.Worker {
				name, busy = label(st.Worker, st.Name), percent(st.BusyMS, st.WindowMS)
			}
		}
		stageCharts = append(stageCharts, drawn.add(name, busy, series{Values: values, Unit: " %", Color: "compute", Top: 100, Stepped: true}))
	}
	var gpus []stageGPU
	for _, st := range s.Stages {
		if st.GPU != nil {
			gpus = append(gpus, stageGPU{Stage: label(st.Worker, st.Name), Use: st.GPU})
		}
	}
	rows, ticks := waterfallRows(s.Requests[:min(in.Limit, len(s.Requests))])
	return page.Execute(w, map[string]any{
		"Summary": s, "Path": in.Path, "Style": pageStyle, "UPlotStyle": template.CSS(uplot.Style), "UPlot": template.JS(uplot.Script), //nolint:gosec // ours and the library's, not what a trace says
		"Script": pageScript, "Data": drawn, "Cards": cards(in), "Notes": notes(s), "Began": time.Unix(0, t.StartNS).UTC().Format("2006-01-02 15:04:05 UTC"),
		"Lasted": nanoseconds(t.EndNS - t.StartNS), "StageCharts": stageCharts, "GPUs": gpus, "GPUCharts": gpuCharts(drawn, t.GPUs),
		"Rows": rows, "Ticks": ticks, "More": max(0, len(s.Requests)-in.Limit),
	})
}

// gpuCharts adds a chart per number that a GPU has reported.
func gpuCharts(drawn *charts, gpus []*analysis.GPU) []chart {
	var list []chart
	for _, g := range gpus {
		for _, number := range g.Gauges {
			var known []float64 // not at every moment
			for _, v := range number.Values {
				if v != nil {
					known = append(known, *v)
				}
			}
			s := series{Values: number.Values, Unit: " " + number.Unit, Color: "gpu"}
			if number.Unit == "%" {
				s.Top = 100
			}
			title := fmt.Sprintf("GPU %d, %s: %s", g.Index, g.Name, number.Name)
			list = append(list, drawn.add(title, fmt.Sprintf("%.0f%s on average", stat.Mean(known, nil), s.Unit), s))
		}
	}
	return list
}

// cards are the numbers that people look for first.
func cards(in PageInput) []card {
	s := in.Summary
	var list []card
	if s.E2EMeanMS > 0 {
		list = append(list, card{"end to end, mean", duration(s.E2EMeanMS), fmt.Sprintf("p50 %s, p99 %s", duration(s.E2EP50MS), duration(s.E2EP99MS))})
	}
	if len(s.Requests) > 0 {
		list = append(list, card{"requests", fmt.Sprint(len(s.Requests)), fmt.Sprintf("%d failed, %d had not ended", s.Failed, s.Running)})
	}
	if in.Path != nil && len(in.Path.Parts) > 0 {
		first := in.Path.Parts[0]
		list = append(list, card{"most of the time", first.Name + " " + string(first.Kind), percent(first.Share, 1) + " of end to end"})
	}
	var events, dropped int64
	overhead := 0.0
	busiest := -1
	for i, st := range s.Stages {
		events, dropped, overhead = events+st.Events, dropped+st.Dropped, max(overhead, st.OverheadPercent)
		if busiest < 0 || st.BusyMS/max(st.WindowMS, 1e-9) > s.Stages[busiest].BusyMS/max(s.Stages[busiest].WindowMS, 1e-9) {
			busiest = i
		}
	}
	if busiest >= 0 {
		st := s.Stages[busiest]
		list = append(list, card{"busiest stage", label(st.Worker, st.Name), percent(st.BusyMS, st.WindowMS) + " of its time"})
	}
	return append(list, card{"events", fmt.Sprint(events), fmt.Sprintf("%d dropped, overhead %.2f %%", dropped, overhead)})
}

// notedIDs is how many of the requests that a session was begun for are named.
const notedIDs = 5

// notes say what makes the numbers inexact, or other than one may think.
func notes(s *analysis.Summary) []string {
	var list []string
	for _, st := range s.Stages {
		if st.Dropped > 0 {
			list = append(list, fmt.Sprintf("%s: %d events were dropped, so its operators' times are too small", label(st.Worker, st.Name), st.Dropped))
		}
		if st.Disordered > 0 {
			list = append(list, fmt.Sprintf("%s: %d of %d events overlap others; times around them are not exact", label(st.Worker, st.Name), st.Disordered, st.Events))
		}
	}
	if n := len(s.RequestIDs); n > 0 {
		names := strings.Join(s.RequestIDs[:min(n, notedIDs)], ", ")
		if n > notedIDs {
			names += ", …"
		}
		list = append(list, fmt.Sprintf("requests, tokens and waiting are those of %s alone, which the session was begun for: %s", count(n, "request"), names))
	}
	if s.Unbooked > 0 {
		list = append(list, fmt.Sprintf("%d requests are not here: the ledger had no room for them", s.Unbooked))
	}
	return list
}

// gauge formats what may not have been reported.
func gauge(v *float64, format string) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf(format, *v)
}

// memory formats the memory of a GPU, in the unit in which those are sold.
func memory(v *float64) string {
	if v == nil {
		return "-"
	}
	return humanize.IBytes(uint64(max(*v, 0)))
}

// mark is a part of a request's row; Left and Width are in percent.
type mark struct {
	Left, Width  float64
	Class, Title string
}

// requestRow is a line of the waterfall: a request, or it in one stage.
type requestRow struct {
	Text, More  string
	First, Slow bool
	Marks       []mark
}

// waterfallRows places the requests on one axis of time, which has the ticks.
func waterfallRows(requests []analysis.RequestSummary) (rows []requestRow, ticks []string) {
	start, end := int64(math.MaxInt64), int64(0)
	for _, r := range requests {
		start, end = min(start, r.ArrivedNS), max(end, r.ArrivedNS+int64(r.E2EMS*1e6))
	}
	if end <= start {
		return nil, nil
	}
	const steps = 8
	for i := range int64(steps + 1) {
		ticks = append(ticks, nanoseconds((end-start)*i/steps))
	}
	ticks[0] = "0"
	scale := 100 / float64(end-start)
	for _, r := range requests {
		row := requestRow{Text: "request " + r.ID, More: duration(r.E2EMS), First: true, Slow: r.Slow || r.Error != ""}
		if r.Slow {
			row.More += ", slow"
		}
		if r.Unfinished {
			row.More += ", had not ended"
		}
		if r.Error != "" {
			row.More += ", failed: " + r.Error
		}
		row.Marks = []mark{{Left: float64(r.ArrivedNS-start) * scale, Width: r.E2EMS * 1e6 * scale, Class: "whole", Title: r.ID + ", " + duration(r.E2EMS)}}
		rows = append(rows, row)
		for _, s := range r.Stages {
			row := requestRow{Text: s.Name, More: fmt.Sprintf("%d steps", s.Steps)}
			for _, part := range s.Parts {
				row.Marks = append(row.Marks, mark{
					Left: float64(part.StartNS-start) * scale, Width: float64(part.NS()) * scale,
					Class: string(part.Kind), Title: fmt.Sprintf("%s, %s: %s %s", r.ID, s.Name, part.Kind, nanoseconds(part.NS())),
				})
			}
			rows = append(rows, row)
		}
	}
	return rows, ticks
}
