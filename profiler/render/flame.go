package render

import (
	_ "embed"
	"fmt"
	"hash/fnv"
	"html/template"
	"io"
	"strings"

	"github.com/omni-run/omni/profiler/analysis"
)

// Folded writes the form that flame graph tools read: names from the outermost to the innermost, and the self time in
// microseconds. The root is left out: it is the same in every line.
func Folded(w io.Writer, root *analysis.Flame) error {
	clean := strings.NewReplacer(";", ":", "\n", " ")
	return root.Walk(func(path []string, f *analysis.Flame) error {
		us := (f.SelfNS + 500) / 1000
		if us <= 0 || len(path) < 2 {
			return nil
		}
		names := make([]string, 0, len(path))
		for _, name := range path[1:] {
			names = append(names, clean.Replace(name))
		}
		_, err := fmt.Fprintf(w, "%s %d\n", strings.Join(names, ";"), us)
		return err
	})
}

// FlameCSV writes a row per place in the call tree.
func FlameCSV(w io.Writer, root *analysis.Flame) error {
	var rows [][]string
	err := root.Walk(func(path []string, f *analysis.Flame) error {
		if len(path) > 1 {
			rows = append(rows, []string{
				strings.Join(path[1:], ";"), f.Category, integer(f.Calls), integer(f.TotalNS), integer(f.SelfNS),
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return Rows(w, []string{"path", "category", "calls", "total_ns", "self_ns"}, rows)
}

// Measures of the picture, in pixels.
const (
	flameWidth  = 1200.0
	flameRow    = 18
	flameHidden = 0.2 // narrower boxes are left out
	charWidth   = 6.5
)

// box is one rectangle of the picture.
type box struct {
	X, Width    float64
	Y, Depth    int
	Name, Title string
	Label       string // what of the name fits in
	Color       string
}

//go:embed flame.html.tmpl
var flameText string

var flamePage = template.Must(template.New("flame").Parse(flameText))

// FlameHTML writes a page that needs nothing else: a box per place in the call tree, as wide as the time in it. A click
// zooms into a box, the field searches for names.
func FlameHTML(w io.Writer, root *analysis.Flame) error {
	var boxes []box
	depth := layout(&boxes, root, 0, 0, flameWidth/float64(max(1, root.TotalNS)), root.TotalNS)
	return flamePage.Execute(w, map[string]any{
		"Title": root.Name, "Width": flameWidth, "Height": (depth + 1) * flameRow, "Row": flameRow, "CharWidth": charWidth, "Boxes": boxes,
	})
}

// layout places a node and what it called and returns the deepest row. scale is pixels per nanosecond.
func layout(boxes *[]box, f *analysis.Flame, x float64, depth int, scale float64, all int64) int {
	width := float64(f.TotalNS) * scale
	if width < flameHidden {
		return depth
	}
	title := fmt.Sprintf("%s\n%s, %s of all", f.Name, nanoseconds(f.TotalNS), percent(float64(f.TotalNS), float64(all)))
	if f.Calls > 0 {
		title += fmt.Sprintf("\nself %s, %d calls", nanoseconds(f.SelfNS), f.Calls)
	}
	b := box{X: x, Width: width, Y: depth * flameRow, Depth: depth, Name: f.Name, Title: title, Color: color(f)}
	if fits := int(width/charWidth) - 1; fits >= 3 {
		b.Label = f.Name
		if runes := []rune(f.Name); len(runes) > fits {
			b.Label = string(runes[:fits-1]) + "…"
		}
	}
	*boxes = append(*boxes, b)
	deepest := depth
	for _, c := range f.Children {
		deepest = max(deepest, layout(boxes, c, x, depth+1, scale, all))
		x += float64(c.TotalNS) * scale
	}
	return deepest
}

// color gives equal names equal colours: annotations are blue, work on devices green, operators between red and yellow.
func color(f *analysis.Flame) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(f.Name)) // a hash takes everything
	n := int(h.Sum32() % 40)
	switch {
	case f.Category == "":
		return "#d8d8d8"
	case strings.HasSuffix(f.Category, "user_annotation"):
		return fmt.Sprintf("hsl(%d,45%%,%d%%)", 200+n/2, 72+n%10)
	case f.Category == "kernel" || strings.HasPrefix(f.Category, "gpu_"):
		return fmt.Sprintf("hsl(%d,45%%,%d%%)", 100+n, 65+n%10)
	}
	return fmt.Sprintf("hsl(%d,75%%,%d%%)", 10+n, 62+n%12)
}
