package render

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"

	"github.com/omni-run/omni/profiler/analysis"
)

//go:embed page.html.tmpl
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"ms":      duration,
	"ns":      nanoseconds,
	"percent": percent,
	"share":   func(f float64) string { return percent(f, 1) },
	"div":     func(a float64, b int) float64 { return a / float64(max(1, b)) },
	"busyNS":  func(s analysis.StageSummary) float64 { return s.BusyMS * 1e6 },
	"float":   func(n int64) float64 { return float64(n) },
	"label":   label,
}).Parse(pageText))

// Measures of the page's pictures, in pixels.
const (
	pageWidth = 1000.0
	pageLabel = 160.0 // before the axis of time
	pageRow   = 20
)

// PageInput is what the page shows. Path may be nil.
type PageInput struct {
	Summary  *analysis.Summary
	Timeline *analysis.Timeline
	Path     *analysis.CriticalPath
	// Limit is how many requests to draw.
	Limit int
}

// mark is a rectangle of a picture.
type mark struct {
	X, Width, Y, Height float64
	Class, Title        string
}

// caption is a text of a picture.
type caption struct {
	Y    float64
	Text string
}

// picture is a drawing with rows along the time.
type picture struct {
	Height   float64
	Width    float64
	Marks    []mark
	Captions []caption
	From, To string // ends of the axis
}

// Page writes a page about a session that needs nothing else: what stages did over time, tables, and the waterfalls of
// requests.
func Page(w io.Writer, in PageInput) error {
	return page.Execute(w, map[string]any{
		"Summary": in.Summary, "Path": in.Path, "Timeline": timelinePicture(in.Timeline),
		"Waterfall": waterfallPicture(in.Summary.Requests[:min(in.Limit, len(in.Summary.Requests))]),
		"More":      max(0, len(in.Summary.Requests)-in.Limit),
	})
}

func timelinePicture(t *analysis.Timeline) picture {
	p := picture{Width: pageWidth, From: "0", To: nanoseconds(t.EndNS - t.StartNS)}
	for row, track := range t.Stages {
		top := float64(row * 2 * pageRow)
		p.Captions = append(p.Captions, caption{Y: top + pageRow, Text: track.Worker})
		width := (pageWidth - pageLabel) / float64(len(track.Busy))
		for i, busy := range track.Busy {
			busy = min(1, busy)
			if busy <= 0 {
				continue
			}
			height := busy * (2*pageRow - 6)
			p.Marks = append(p.Marks, mark{
				X: pageLabel + float64(i)*width, Width: width, Y: top + 2*pageRow - 3 - height, Height: height, Class: "compute",
				Title: fmt.Sprintf("%s, busy %s at %s", track.Worker, percent(busy, 1),
					nanoseconds(int64((float64(i)+0.5)/float64(len(track.Busy))*float64(t.EndNS-t.StartNS)))),
			})
		}
	}
	p.Height = float64(len(t.Stages) * 2 * pageRow)
	return p
}

func waterfallPicture(requests []analysis.RequestSummary) picture {
	start, end := int64(math.MaxInt64), int64(0)
	for _, r := range requests {
		start, end = min(start, r.ArrivedNS), max(end, r.ArrivedNS+int64(r.E2EMS*1e6))
	}
	p := picture{Width: pageWidth, From: "0"}
	if end <= start {
		return p
	}
	p.To = nanoseconds(end - start)
	scale := (pageWidth - pageLabel) / float64(end-start)
	y := 0.0
	for _, r := range requests {
		text := r.ID + ", " + duration(r.E2EMS)
		if r.Error != "" {
			text += ", failed"
		}
		p.Captions = append(p.Captions, caption{Y: y + 14, Text: shorten(text, 60)})
		y += pageRow
		for _, s := range r.Stages {
			p.Captions = append(p.Captions, caption{Y: y + 14, Text: "  " + s.Name})
			for _, part := range s.Parts {
				p.Marks = append(p.Marks, mark{
					X: pageLabel + float64(part.StartNS-start)*scale, Width: max(0.5, float64(part.NS())*scale), Y: y + 3, Height: pageRow - 6,
					Class: string(part.Kind), Title: fmt.Sprintf("%s, %s: %s %s", r.ID, s.Name, part.Kind, nanoseconds(part.NS())),
				})
			}
			y += pageRow
		}
		y += 6
	}
	p.Height = y
	return p
}
