package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/omni-run/omni/pipeline"
)

// The prefixes of names: of what vLLM-Omni has too, whose dashboards work here, and of what only this server has.
const (
	sharedPrefix = "vllm_omni:"
	ownPrefix    = "omni:"
)

// Buckets, in the units of the names.
var (
	secondBuckets = []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300}
	fastBuckets   = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	ratioBuckets  = []float64{.1, .2, .3, .5, .7, .9, 1, 1.2, 1.5, 2, 3, 5, 10}
	byteBuckets   = prometheus.ExponentialBuckets(1<<10, 4, 10)
)

// collectors are the server's metrics.
type collectors struct {
	registry *prometheus.Registry
	handler  http.Handler

	answers                            *prometheus.CounterVec
	succeeded, failures                *prometheus.CounterVec
	promptTokens, tokens, audioSamples prometheus.Counter
	latency, firstText, firstAudio     prometheus.Histogram
	audioSeconds, rtf, queueWait       prometheus.Histogram
	textGap                            prometheus.Histogram
	stageTime, stageQueue, transfer    *prometheus.HistogramVec
	transferBytes                      *prometheus.HistogramVec
}

// newCollectors makes the metrics of a server.
func newCollectors(s *Server) *collectors {
	m := &collectors{registry: prometheus.NewRegistry()}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	histograms := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	one := func(h *prometheus.HistogramVec) prometheus.Histogram {
		return h.WithLabelValues().(prometheus.Histogram)
	}

	m.answers = counters(ownPrefix+"http_requests_total", "Answers by route and status.", "method", "route", "status")
	m.succeeded = counters(sharedPrefix+"requests_success", "Generations that were completed.", "finished_reason")
	m.failures = counters(sharedPrefix+"requests_failed", "Generations that were not.", "reason")
	m.promptTokens = counters(sharedPrefix+"prompt_tokens", "Tokens of prompts.").WithLabelValues()
	m.tokens = counters(sharedPrefix+"generation_tokens", "Tokens of text that were made.").WithLabelValues()
	m.audioSamples = counters(sharedPrefix+"audio_frames", "Samples of speech that were made.").WithLabelValues()
	m.latency = one(histograms(sharedPrefix+"e2e_request_latency_s", "Time of a generation from its arrival to its end.", secondBuckets))
	m.firstText = one(histograms(ownPrefix+"text_ttft_s", "Time to the first text.", fastBuckets))
	m.textGap = one(histograms(ownPrefix+"text_gap_s", "Time between two pieces of text.", fastBuckets))
	m.firstAudio = one(histograms(sharedPrefix+"audio_ttfp_s", "Time to the first speech.", secondBuckets))
	m.audioSeconds = one(histograms(sharedPrefix+"audio_duration_s", "Duration of speech.", secondBuckets))
	m.rtf = one(histograms(sharedPrefix+"audio_rtf", "Time of a generation by the duration of its speech.", ratioBuckets))
	m.queueWait = one(histograms(sharedPrefix+"request_queue_wait_s", "Time in which the first stage could have worked on a request and did not.", fastBuckets))
	m.stageTime = histograms(sharedPrefix+"stage_gen_time_s", "Time of a request in a stage's steps.", secondBuckets, "stage", "stage_type")
	m.stageQueue = histograms(sharedPrefix+"stage_in_queue_s", "Time in which a stage could have worked on a request and did not.", fastBuckets, "stage", "stage_type")
	m.transfer = histograms(sharedPrefix+"transfer_in_flight_s", "Time that a stage's input was under way.", fastBuckets, "to_stage")
	m.transferBytes = histograms(sharedPrefix+"transfer_size_bytes", "Size of what a stage handed on for a request.", byteBuckets, "from_stage")
	m.registry.MustRegister(&state{server: s})
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	return m
}

// serve answers GET /metrics.
func (m *collectors) serve(c echo.Context) error {
	m.handler.ServeHTTP(c.Response(), c.Request())
	return nil
}

// answered counts an answer. Paths that are no route are counted together: clients choose them.
func (m *collectors) answered(c echo.Context) {
	route, method := c.Path(), c.Request().Method
	if entryOf(c).code == codeNotFound && route == "" {
		route = "none"
	}
	if !knownMethods[method] {
		method = "other"
	}
	m.answers.WithLabelValues(method, route, strconv.Itoa(c.Response().Status)).Inc()
}

// knownMethods keeps clients from making up labels.
var knownMethods = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "PATCH": true, "DELETE": true, "OPTIONS": true}

// observation is one generation that runs.
type observation struct {
	metrics  *collectors
	began    time.Time
	lastText time.Time
}

func (m *collectors) begin() *observation { return &observation{metrics: m, began: time.Now()} }

// event notes a piece of the result.
func (o *observation) event(e pipeline.Event) {
	if e.Kind != pipeline.EventText {
		return
	}
	now := time.Now()
	if !o.lastText.IsZero() {
		o.metrics.textGap.Observe(now.Sub(o.lastText).Seconds())
	}
	o.lastText = now
}

// failed counts a generation that was not completed, and returns its error.
func (o *observation) failed(err error) error {
	o.metrics.failures.WithLabelValues(string(classify(err).code)).Inc()
	return err
}

// done counts a generation that was completed.
func (o *observation) done(r *pipeline.Response) {
	m := o.metrics
	m.succeeded.WithLabelValues(r.FinishReason).Inc()
	m.promptTokens.Add(float64(len(r.PromptTokenIDs)))
	m.tokens.Add(float64(len(r.TokenIDs)))
	m.latency.Observe(time.Since(o.began).Seconds())
	if r.FirstTextMS != nil {
		m.firstText.Observe(*r.FirstTextMS / 1e3)
	}
	if r.FirstAudioMS != nil {
		m.firstAudio.Observe(*r.FirstAudioMS / 1e3)
	}
	if r.RTF != nil {
		m.rtf.Observe(*r.RTF)
	}
	if r.Audio != nil && r.Audio.SampleRate > 0 {
		m.audioSamples.Add(float64(len(r.Audio.PCM)))
		m.audioSeconds.Observe(float64(len(r.Audio.PCM)) / float64(r.Audio.SampleRate))
	}
	for i, stage := range r.Stages {
		id := strconv.Itoa(stage.ID)
		if i == 0 {
			m.queueWait.Observe(stage.QueueMS / 1e3)
		} else {
			m.transfer.WithLabelValues(id).Observe(stage.TransferMS / 1e3)
		}
		if i < len(r.Stages)-1 {
			m.transferBytes.WithLabelValues(id).Observe(float64(stage.BytesOut))
		}
		m.stageTime.WithLabelValues(id, stage.Name).Observe(stage.ComputeMS / 1e3)
		m.stageQueue.WithLabelValues(id, stage.Name).Observe(stage.QueueMS / 1e3)
	}
}

// state collects what is true at the moment of asking.
type state struct {
	server *Server
	mu     sync.Mutex // one question to the profiler at a time
}

// What state collects.
var (
	runningDesc   = prometheus.NewDesc(sharedPrefix+"num_requests_running", "Generations that run.", nil, nil)
	waitingDesc   = prometheus.NewDesc(sharedPrefix+"num_requests_waiting", "Generations that wait for one that runs to end.", nil, nil)
	readyDesc     = prometheus.NewDesc(ownPrefix+"stage_ready", "1 if the stage's worker is ready.", []string{"stage", "stage_type"}, nil)
	restartsDesc  = prometheus.NewDesc(ownPrefix+"stage_restarts_total", "How often the stage's worker was started again.", []string{"stage", "stage_type"}, nil)
	queuedDesc    = prometheus.NewDesc(sharedPrefix+"stage_waiting_requests", "Requests that could be in the stage's step that runs and are not.", []string{"stage", "stage_type"}, nil)
	sequencesDesc = prometheus.NewDesc(ownPrefix+"stage_requests", "Requests in the stage.", []string{"stage", "stage_type"}, nil)
	memoryDesc    = prometheus.NewDesc(ownPrefix+"stage_memory_bytes", "Memory of the stage's worker.", []string{"stage", "stage_type"}, nil)
	activeDesc    = prometheus.NewDesc(ownPrefix+"profiler_active", "1 if a profile session is active.", nil, nil)
	eventsDesc    = prometheus.NewDesc(ownPrefix+"profiler_events", "Events of the current or last session.", []string{"stage", "rank"}, nil)
	droppedDesc   = prometheus.NewDesc(ownPrefix+"profiler_dropped_events", "Events that the session lost.", []string{"stage", "rank", "reason"}, nil)
	bytesDesc     = prometheus.NewDesc(ownPrefix+"profiler_bytes", "Size of the session's files.", []string{"stage", "rank"}, nil)
	overheadDesc  = prometheus.NewDesc(ownPrefix+"profiler_overhead_ratio", "Share of the recorded time that recording took.", []string{"stage", "rank"}, nil)
	stopDesc      = prometheus.NewDesc(ownPrefix+"profiler_stop_s", "How long the end of collection held the model up.", []string{"stage", "rank"}, nil)
)

// Describe implements prometheus.Collector.
func (*state) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{runningDesc, waitingDesc, readyDesc, restartsDesc, queuedDesc, sequencesDesc, memoryDesc, activeDesc, eventsDesc, droppedDesc, bytesDesc, overheadDesc, stopDesc} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (s *state) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	inside, running := s.server.inside.Load(), int64(s.server.cfg.Limits.Running)
	gauge(runningDesc, float64(min(inside, running)))
	gauge(waitingDesc, float64(max(inside-running, 0)))
	for _, stage := range s.server.cfg.Engine.Load(context.Background()) {
		id := strconv.Itoa(stage.ID)
		gauge(readyDesc, truth(stage.State == pipeline.StageReady), id, stage.Name)
		metrics <- prometheus.MustNewConstMetric(restartsDesc, prometheus.CounterValue, float64(stage.Restarts), id, stage.Name)
		if stage.Answered {
			gauge(queuedDesc, float64(stage.Queued), id, stage.Name)
			gauge(sequencesDesc, float64(stage.Sequences), id, stage.Name)
			gauge(memoryDesc, float64(stage.RSSBytes), id, stage.Name)
		}
	}
	if s.server.cfg.Profiler == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	report, err := s.server.cfg.Profiler.ProfileStatus()
	if errors.Is(err, pipeline.ErrClosed) || report == nil {
		return
	}
	gauge(activeDesc, truth(report.Active))
	for _, w := range report.Workers {
		stage, rank := strconv.Itoa(w.Stage), strconv.Itoa(w.Rank)
		gauge(eventsDesc, float64(w.Events), stage, rank)
		gauge(bytesDesc, float64(w.Bytes), stage, rank)
		gauge(overheadDesc, w.OverheadPct/100, stage, rank)
		gauge(stopDesc, w.StopMS/1e3, stage, rank)
		for reason, n := range w.Dropped {
			gauge(droppedDesc, float64(n), stage, rank, reason)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
