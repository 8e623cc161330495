package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"

	"github.com/omni-run/omni/pipeline"
)

// progress tells a person how far the command has come: a bar on a terminal, plain lines elsewhere. Every method may
// be called from any goroutine.
type progress struct {
	out      io.Writer
	terminal bool

	mu       sync.Mutex // guards what follows
	bar      *progressbar.ProgressBar
	began    time.Time // of the current phase
	stages   map[int]pipeline.Progress
	done     int
	requests int
}

func newProgress(out io.Writer, terminal bool) *progress {
	return &progress{out: out, terminal: terminal, stages: map[int]pipeline.Progress{}}
}

// loading takes the pipeline's own reports.
func (p *progress) loading(report pipeline.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, known := p.stages[report.Stage]
	if !known && len(p.stages) == 0 {
		p.begin("loading", -1, progressbar.OptionShowBytes(true))
	}
	p.stages[report.Stage] = report
	var done, total int64
	for _, stage := range p.stages {
		done, total = done+stage.Done, total+stage.Total
	}
	if p.bar != nil {
		if total > 0 {
			p.bar.ChangeMax64(total)
		}
		_ = p.bar.Set64(done) // a bar that cannot be drawn is no reason to stop
		return
	}
	switch {
	case !known:
		p.line("loading stage %d (%s)", report.Stage, report.Name)
	case report.Ready && !before.Ready:
		p.line("stage %d (%s) is ready: %s after %s", report.Stage, report.Name, size(report.Total), p.elapsed())
	}
}

// loaded ends loading.
func (p *progress) loaded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var total int64
	for _, stage := range p.stages {
		total += stage.Total
	}
	p.end()
	if len(p.stages) > 0 {
		p.line("loaded %d stages, %s, in %s", len(p.stages), size(total), p.elapsed())
	}
}

// generating begins the phase in which requests run.
func (p *progress) generating(requests int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = requests
	if requests == 1 {
		p.begin("generating", -1)
		return
	}
	p.begin("generating", int64(requests), progressbar.OptionShowCount())
}

// finished ends one request. paths are the files that were written for it.
func (p *progress) finished(r result, paths []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if p.bar != nil {
		_ = p.bar.Add(1) // a bar that cannot be drawn is no reason to stop
	}
	if r.Error != nil {
		p.line("%d of %d failed: %s", p.done, p.requests, r.Error.Message)
		return
	}
	p.line("%d of %d done: request %q: %s, %s; wrote %s", p.done, p.requests, r.RequestID, amount(r.Response), milliseconds(r.E2EMS), join(paths))
}

// writing begins the phase in which profiles are written, which has no known length.
func (p *progress) writing() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin("writing profiles", -1)
	if p.bar == nil {
		p.line("writing profiles")
	}
}

// stop ends the current phase.
func (p *progress) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
}

// say prints a line that belongs to no phase.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line(format, args...)
}

// begin starts a phase; max -1 shows a spinner.
func (p *progress) begin(name string, max int64, more ...progressbar.Option) {
	p.end()
	p.began = time.Now()
	if !p.terminal {
		return
	}
	p.bar = progressbar.NewOptions64(max, append([]progressbar.Option{
		progressbar.OptionSetWriter(p.out),
		progressbar.OptionSetDescription(name),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetRenderBlankState(true),
	}, more...)...)
}

func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Exit() // a bar that cannot be drawn is no reason to stop
		_ = p.bar.Clear()
		p.bar = nil
	}
}

func (p *progress) line(format string, args ...any) {
	if p.bar != nil {
		_ = p.bar.Clear() // it is drawn again with its next change
	}
	fmt.Fprintf(p.out, format+"\n", args...)
}

func (p *progress) elapsed() string {
	return fmt.Sprintf("%.1f s", time.Since(p.began).Seconds())
}

func size(bytes int64) string { return humanize.Bytes(uint64(max(bytes, 0))) }

func milliseconds(ms float64) string {
	if ms < 1000 {
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.2f s", ms/1000)
}

// amount says how much a response holds.
func amount(r *pipeline.Response) string {
	text := fmt.Sprintf("%d tokens", len(r.TokenIDs))
	if r.Audio != nil && r.Audio.SampleRate > 0 {
		text += fmt.Sprintf(", %.2f s of speech", float64(r.Audio.Samples)/float64(r.Audio.SampleRate))
	}
	return text
}

func join(paths []string) string {
	if len(paths) == 0 {
		return "nothing"
	}
	text := paths[0]
	for _, path := range paths[1:] {
		text += " and " + path
	}
	return text
}
