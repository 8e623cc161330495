package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
)

// benchReport is what a load has shown. Its JSON form is that of bench serve --format json.
type benchReport struct {
	Requests      int           `json:"requests"`
	Failed        int           `json:"failed"`
	FirstError    string        `json:"first_error,omitempty"`
	Concurrency   int           `json:"concurrency,omitempty"`
	Rate          float64       `json:"rate,omitempty"`
	Seconds       float64       `json:"seconds"`
	RequestsPerS  float64       `json:"requests_per_s"`
	TokensPerS    float64       `json:"tokens_per_s"`
	AudioPerS     float64       `json:"audio_s_per_s"`
	TTFT          *distribution `json:"ttft_ms"` // these are null if there was nothing to measure
	TPOT          *distribution `json:"tpot_ms"`
	FirstAudio    *distribution `json:"first_audio_ms"`
	RTF           *distribution `json:"rtf"`
	E2E           *distribution `json:"e2e_ms"`
	Stages        []benchStage  `json:"stages"`
	E2EHistogram  []bin         `json:"e2e_histogram"`
	TTFTHistogram []bin         `json:"ttft_histogram"`
	// Profile is the session that was recorded meanwhile, as GET /profiles names it.
	Profile string `json:"profile,omitempty"`
}

// benchStage are the times of requests in one stage, in milliseconds.
type benchStage struct {
	ID       int           `json:"id"`
	Name     string        `json:"name"`
	Queue    *distribution `json:"queue_ms"`
	Compute  *distribution `json:"compute_ms"`
	Transfer *distribution `json:"transfer_ms"`
}

// distribution describes values.
type distribution struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
}

// bin counts the values from From to To.
type bin struct {
	From  float64 `json:"from"`
	To    float64 `json:"to"`
	Count int     `json:"count"`
}

// describe returns nil if there are no values.
func describe(values []float64) *distribution {
	if len(values) == 0 {
		return nil
	}
	slices.Sort(values) // stat.Quantile wants it
	at := func(p float64) float64 { return stat.Quantile(p, stat.Empirical, values, nil) }
	return &distribution{
		Mean: stat.Mean(values, nil), P50: at(0.5), P90: at(0.9), P99: at(0.99), Max: values[len(values)-1],
	}
}

// bins is how many bars a histogram has.
const bins = 12

// histogram counts values in bins of one width.
func histogram(values []float64) []bin {
	if len(values) == 0 {
		return []bin{}
	}
	slices.Sort(values)
	least, most := values[0], values[len(values)-1]
	if most == least {
		return []bin{{From: least, To: most, Count: len(values)}}
	}
	dividers := floats.Span(make([]float64, bins+1), least, most)
	dividers[bins] = most * (1 + 1e-9) // stat.Histogram leaves out the last divider itself
	counts := stat.Histogram(nil, dividers, values, nil)
	var list []bin
	for i, n := range counts {
		list = append(list, bin{From: dividers[i], To: dividers[i+1], Count: int(n)})
	}
	return list
}

// summarise puts together what was measured.
func (l *load) summarise(samples []sample, took time.Duration) *benchReport {
	r := &benchReport{Requests: len(samples), Rate: l.rate, Seconds: took.Seconds(), Stages: []benchStage{}}
	if l.rate == 0 {
		r.Concurrency = l.concurrency
	}
	var ttft, tpot, firstAudio, rtf, e2e []float64
	tokens, audio := 0, time.Duration(0)
	for _, s := range samples {
		if s.err != nil {
			if r.Failed++; r.FirstError == "" {
				r.FirstError = s.err.Error()
			}
			continue
		}
		e2e = append(e2e, inMS(s.e2e))
		if s.firstText > 0 {
			ttft = append(ttft, inMS(s.firstText))
		}
		if s.tokens > 1 && s.lastText > s.firstText {
			tpot = append(tpot, inMS(s.lastText-s.firstText)/float64(s.tokens-1))
		}
		if s.firstAudio > 0 {
			firstAudio = append(firstAudio, inMS(s.firstAudio))
		}
		if s.audio > 0 {
			rtf = append(rtf, s.e2e.Seconds()/s.audio.Seconds())
		}
		tokens, audio = tokens+s.tokens, audio+s.audio
	}
	done := float64(len(samples) - r.Failed)
	r.RequestsPerS, r.TokensPerS, r.AudioPerS = done/r.Seconds, float64(tokens)/r.Seconds, audio.Seconds()/r.Seconds
	r.E2EHistogram, r.TTFTHistogram = histogram(slices.Clone(e2e)), histogram(slices.Clone(ttft))
	r.TTFT, r.TPOT, r.FirstAudio, r.RTF, r.E2E = describe(ttft), describe(tpot), describe(firstAudio), describe(rtf), describe(e2e)
	r.Stages = describeStages(samples)
	return r
}

// describeStages collects the times of each stage over all requests.
func describeStages(samples []sample) []benchStage {
	type times struct{ queue, compute, transfer []float64 }
	byID := map[int]*times{}
	list := []benchStage{}
	for _, s := range samples {
		for _, stage := range s.stages {
			t := byID[stage.ID]
			if t == nil {
				t = &times{}
				byID[stage.ID] = t
				list = append(list, benchStage{ID: stage.ID, Name: stage.Name})
			}
			t.queue, t.compute, t.transfer = append(t.queue, stage.QueueMS), append(t.compute, stage.ComputeMS), append(t.transfer, stage.TransferMS)
		}
	}
	for i := range list {
		t := byID[list[i].ID]
		list[i].Queue, list[i].Compute, list[i].Transfer = describe(t.queue), describe(t.compute), describe(t.transfer)
	}
	slices.SortFunc(list, func(a, b benchStage) int { return a.ID - b.ID })
	return list
}

func inMS(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// print writes the report for people.
func (r *benchReport) print(w io.Writer) error {
	fmt.Fprintf(w, "%d requests, %d failed, %.1f s: %.2f requests/s, %.1f tokens/s, %.2f s of speech/s\n\n",
		r.Requests, r.Failed, r.Seconds, r.RequestsPerS, r.TokensPerS, r.AudioPerS)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tmean\tp50\tp90\tp99\tmax\t")
	line := func(name string, d *distribution, digits int) {
		if d != nil {
			fmt.Fprintf(table, "%s\t%.*f\t%.*f\t%.*f\t%.*f\t%.*f\t\n", name, digits, d.Mean, digits, d.P50, digits, d.P90, digits, d.P99, digits, d.Max)
		}
	}
	line("TTFT, ms", r.TTFT, 1)
	line("TPOT, ms", r.TPOT, 2)
	line("first audio, ms", r.FirstAudio, 1)
	line("RTF", r.RTF, 3)
	line("E2E, ms", r.E2E, 1)
	for _, s := range r.Stages {
		stage := fmt.Sprintf("stage %d (%s) ", s.ID, s.Name)
		line(stage+"queue, ms", s.Queue, 1)
		line(stage+"compute, ms", s.Compute, 1)
		line(stage+"transfer, ms", s.Transfer, 1)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return errors.Join(printBars(w, "TTFT, ms", r.TTFTHistogram), printBars(w, "E2E, ms", r.E2EHistogram))
}

// printBars draws a histogram, if there is something to draw.
func printBars(w io.Writer, name string, bars []bin) error {
	if len(bars) == 0 {
		return nil
	}
	const width = 60
	most := 1
	for _, b := range bars {
		most = max(most, b.Count)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", name)
	for _, b := range bars {
		fmt.Fprintf(w, "%10.1f - %-10.1f %6d  %s\n", b.From, b.To, b.Count, strings.Repeat("#", (b.Count*width+most-1)/most))
	}
	return err
}
