package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/profiler"
)

// phase is what went on while requests were served.
type phase string

const (
	quiet     phase = "without a profile"
	recording phase = "recording"
	writing   phase = "writing files and merged trace"
)

// watched is what clients of a server saw, phase by phase.
type watched struct {
	url    string
	client *http.Client
	ended  chan struct{}

	mu     sync.Mutex // guards what follows
	phase  phase
	gaps   map[phase][]float64 // milliseconds between two pieces of text of one request
	health map[phase]int       // good answers of /health
	faults []string
}

func (w *watched) enter(p phase) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phase = p
}

func (w *watched) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// until calls do again and again until the test's measurements have ended.
func (w *watched) until(do func()) {
	for {
		select {
		case <-w.ended:
			return
		default:
			do()
		}
	}
}

// ask streams one answer and notes when its pieces come.
func (w *watched) ask() {
	body := `{"messages":[{"role":"user","content":"Count for ever."}],"modalities":["text"],"max_tokens":200,"stream":true,
		"sampling_params_list":[{"min_tokens":200}]}`
	response, err := w.client.Post(w.url+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		w.fault("chat: %v", err)
		return
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body) // for the message
		w.fault("chat: %s: %s", response.Status, text)
		return
	}
	done := false
	var last time.Time
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		done = done || lines.Text() == "data: [DONE]"
		if !strings.Contains(lines.Text(), `"content":`) {
			continue
		}
		now := time.Now()
		if !last.IsZero() {
			w.mu.Lock()
			w.gaps[w.phase] = append(w.gaps[w.phase], float64(now.Sub(last).Microseconds())/1000)
			w.mu.Unlock()
		}
		last = now
	}
	if !done {
		w.fault("chat: the stream ended before its end")
	}
}

func (w *watched) probe() {
	response, err := w.client.Get(w.url + "/health")
	if err != nil {
		w.fault("health: %v", err)
		return
	}
	_ = response.Body.Close() // only the status matters
	w.mu.Lock()
	defer w.mu.Unlock()
	if response.StatusCode != http.StatusOK {
		w.faults = append(w.faults, fmt.Sprintf("health: %s while %s", response.Status, w.phase))
	}
	w.health[w.phase]++
}

// post sends a request to a profile route and decodes the answer.
func (w *watched) post(t *testing.T, route, body string) (report pipeline.ProfileReport) {
	t.Helper()
	response, err := w.client.Post(w.url+route, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode > http.StatusAccepted {
		t.Fatalf("%s: got %s, %v: %s", route, response.Status, err, text)
	}
	if err := json.Unmarshal(bytes.TrimSpace(text), &report); err != nil {
		t.Fatal(err)
	}
	return report
}

// Serving goes on while a profile is recorded and while its files are written: every request is answered, /health is good all
// the time, and the log says how long steps took in each phase. OMNI_PROFILE_SECONDS makes the profile longer than its three
// seconds.
func TestServingGoesOnWhileAProfileIsWritten(t *testing.T) {
	seconds := 3.0
	if text := os.Getenv("OMNI_PROFILE_SECONDS"); text != "" {
		var err error
		if seconds, err = strconv.ParseFloat(text, 64); err != nil {
			t.Fatal(err)
		}
	}
	o := open(t, "tiny", 1, func(c *pipeline.Config) {
		c.Profiler = profiler.FromDir(t.TempDir())
		c.Profiler.Recorder, c.Profiler.TorchProfilerRecordShapes = "stream", true
	})
	server, err := api.New(api.Config{Engine: o, Profiler: o, Models: []string{"tiny"}, Limits: api.DefaultLimits()})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	defer web.Close()
	w := &watched{url: web.URL, client: web.Client(), ended: make(chan struct{}), phase: quiet, gaps: map[phase][]float64{}, health: map[phase]int{}}
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() { w.until(w.ask) })
	}
	clients.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		w.until(func() { <-tick.C; w.probe() })
	})
	stop := sync.OnceFunc(func() { close(w.ended); clients.Wait(); web.Client().CloseIdleConnections() })
	defer stop()

	pause := func() { time.Sleep(time.Duration(seconds * float64(time.Second))) } // it is the length of the measurement
	pause()
	w.enter(recording)
	w.post(t, "/start_profile", "")
	pause()
	w.enter(writing)
	stopped := w.post(t, "/stop_profile", `{"wait":false}`)
	began := time.Now()
	if _, err := o.StopProfileWith(t.Context(), pipeline.ProfileStopOptions{Session: stopped.Session, Wait: true}); err != nil {
		t.Fatal(err)
	}
	wrote := time.Since(began)
	pause() // while the merged trace and the page are made
	w.enter(quiet)
	stop()
	report, err := o.WaitProfile(t.Context(), stopped.Session)
	if err != nil {
		t.Fatal(err)
	}

	var events int64
	for _, worker := range report.Workers {
		if worker.State != profiler.StateDone {
			t.Errorf("%s is %s: %s", worker.Worker, worker.State, worker.Error)
		}
		events += worker.Events
		t.Logf("%s: %d steps, %d events, stop held it up %.1f ms", worker.Worker, worker.Steps, worker.Events, worker.StopMS)
	}
	t.Logf("%d events; the workers' files were complete %v after stop was answered", events, wrote.Round(time.Millisecond))
	for _, p := range []phase{quiet, recording, writing} {
		gaps := w.gaps[p]
		if len(gaps) == 0 {
			gaps = []float64{0}
		}
		slices.Sort(gaps)
		t.Logf("%-30s %6d pieces of text, p99 of the time between two %6.2f ms, longest %7.2f ms; /health was good %d times", p,
			len(w.gaps[p]), stat.Quantile(0.99, stat.Empirical, gaps, nil), gaps[len(gaps)-1], w.health[p])
	}
	for _, fault := range w.faults {
		t.Error(fault)
	}
	if events == 0 || len(w.gaps[recording]) == 0 || w.health[recording] == 0 || w.health[writing] == 0 {
		t.Errorf("got %d events, %d tokens and %d answers of /health while recording, %d while writing: want some of all",
			events, len(w.gaps[recording]), w.health[recording], w.health[writing])
	}
}
