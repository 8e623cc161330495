package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"gonum.org/v1/gonum/stat"

	"github.com/omni-run/omni/pipeline"
)

// printStats prints one table with a row per request, and one with a row per stage.
func printStats(w io.Writer, results []result) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\nrequest\ttokens\tspeech\tfirst text\tfirst audio\tend to end\tRTF\t")
	stages := map[int][]pipeline.StageReport{}
	for _, r := range results {
		if r.Error != nil {
			fmt.Fprintf(table, "%s\tfailed\t\t\t\t\t\t\n", r.RequestID)
			continue
		}
		speech := "-"
		if r.Audio != nil && r.Audio.SampleRate > 0 {
			speech = fmt.Sprintf("%.2f s", float64(r.Audio.Samples)/float64(r.Audio.SampleRate))
		}
		rtf := "-"
		if r.RTF != nil {
			rtf = fmt.Sprintf("%.2f", *r.RTF)
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t\n", r.RequestID, len(r.TokenIDs), speech,
			optional(r.FirstTextMS), optional(r.FirstAudioMS), milliseconds(r.E2EMS), rtf)
		for _, stage := range r.Stages {
			stages[stage.ID] = append(stages[stage.ID], stage)
		}
	}
	_ = table.Flush()

	fmt.Fprintln(table, "\nstage\trequests\ttokens\thanded on\tqueue p50\tp99\tcompute p50\tp99\ttransfer p50\tp99\t")
	for _, id := range slices.Sorted(maps.Keys(stages)) {
		printStage(table, stages[id])
	}
	_ = table.Flush()
}

func printStage(w io.Writer, reports []pipeline.StageReport) {
	var tokens, bytes int64
	var queue, compute, transfer []float64
	for _, report := range reports {
		tokens += report.Tokens
		bytes += report.BytesOut
		queue = append(queue, report.QueueMS)
		compute = append(compute, report.ComputeMS)
		transfer = append(transfer, report.TransferMS)
	}
	fmt.Fprintf(w, "%d %s\t%d\t%d\t%s\t", reports[0].ID, reports[0].Name, len(reports), tokens, size(bytes))
	for _, times := range [][]float64{queue, compute, transfer} {
		slices.Sort(times)
		fmt.Fprintf(w, "%s\t%s\t", quantile(0.5, times), quantile(0.99, times))
	}
	fmt.Fprintln(w)
}

// quantile formats a quantile of sorted milliseconds; there is at least one.
func quantile(p float64, sorted []float64) string {
	return milliseconds(stat.Quantile(p, stat.Empirical, sorted, nil))
}

func optional(ms *float64) string {
	if ms == nil {
		return "-"
	}
	return milliseconds(*ms)
}
