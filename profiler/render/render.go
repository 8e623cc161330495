// Package render writes the results of package analysis for people, as text and as pages of one file that need no server and
// no network, and for programs, as CSV.
//
// It decides how numbers look and nothing about what they are: whatever is counted or compared is counted in analysis.
package render

import (
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/dustin/go-humanize"

	"github.com/omni-run/omni/profiler/analysis"
)

// errorWriter remembers the first error, so that text can be written without a check per line.
type errorWriter struct {
	w   io.Writer
	err error
}

func (e *errorWriter) Write(p []byte) (int, error) {
	if e.err == nil {
		_, e.err = e.w.Write(p)
	}
	return len(p), e.err
}

// table makes a writer of aligned columns, which tabs end.
func table(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
}

// duration formats milliseconds with about four digits.
func duration(ms float64) string {
	switch {
	case ms >= 10_000:
		return fmt.Sprintf("%.2f s", ms/1000)
	case ms >= 100:
		return fmt.Sprintf("%.0f ms", ms)
	case ms >= 1:
		return fmt.Sprintf("%.2f ms", ms)
	default:
		return fmt.Sprintf("%.1f us", ms*1000)
	}
}

func nanoseconds(ns int64) string { return duration(float64(ns) / 1e6) }

// percent is a's share of b.
func percent(a, b float64) string {
	if b <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*a/b)
}

// count says how many things there are.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// sizeText formats a number of bytes, as the command does everywhere.
func sizeText(n int64) string { return humanize.Bytes(uint64(max(n, 0))) }

// operator names what took time by itself: a step is what was done in it outside of operators and modules.
func operator(name string) string {
	if name == "ProfilerStep" {
		return "(steps, outside of operators)"
	}
	return shorten(name, 60)
}

// shorten cuts text in the middle, where operators' names differ least.
func shorten(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	head := (width - 3) * 2 / 3
	return string(runes[:head]) + "..." + string(runes[len(runes)-(width-3-head):])
}

// Rows writes CSV with a header.
func Rows(w io.Writer, header []string, rows [][]string) error {
	out := csv.NewWriter(w)
	if err := out.Write(header); err != nil {
		return err
	}
	if err := out.WriteAll(rows); err != nil {
		return err
	}
	return out.Error()
}

// number formats a number of CSV.
func number(f float64) string { return strconv.FormatFloat(f, 'g', 9, 64) }

func integer[T int | int64](n T) string { return strconv.FormatInt(int64(n), 10) }

// Ops writes a table of operators; windowNS is what shares refer to, the sum of self times if 0. Where GPUs worked for them
// it has a column more.
func Ops(w io.Writer, ops []*analysis.Op, windowNS int64) error {
	out := &errorWriter{w: w}
	t := table(out)
	onGPU := slices.ContainsFunc(ops, func(op *analysis.Op) bool { return op.DeviceNS > 0 })
	head := "self\tshare\ttotal\tcalls\tself/call\t"
	if onGPU {
		head += "on the GPU\t"
	}
	fmt.Fprintln(t, head+"  operator")
	if windowNS == 0 {
		for _, op := range ops {
			windowNS += op.SelfNS
		}
	}
	for _, op := range ops {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t", nanoseconds(op.SelfNS), percent(float64(op.SelfNS), float64(windowNS)),
			nanoseconds(op.TotalNS), op.Calls, nanoseconds(op.SelfNS/max(1, op.Calls)))
		if onGPU {
			fmt.Fprintf(t, "%s\t", nanoseconds(op.DeviceNS))
		}
		fmt.Fprintf(t, "  %s\n", operator(op.Name))
	}
	_ = t.Flush()
	return out.err
}

// DeviceOps writes a table of what a GPU did; totalNS is what shares refer to.
func DeviceOps(w io.Writer, ops []*analysis.Op, totalNS int64) error {
	out := &errorWriter{w: w}
	t := table(out)
	fmt.Fprintln(t, "time\tshare\tcalls\ttime/call\t  kernel, copy or set")
	for _, op := range ops {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t  %s\n", nanoseconds(op.TotalNS), percent(float64(op.TotalNS), float64(totalNS)), op.Calls,
			nanoseconds(op.TotalNS/max(1, op.Calls)), shorten(op.Name, 60))
	}
	_ = t.Flush()
	return out.err
}
