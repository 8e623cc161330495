//go:build !race

package main

import (
	"bufio"
	"bytes"
	"cmp"
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
	recording phase = "recording"           // the stream recorder formats, compresses and writes meanwhile
	writing   phase = "after it is stopped" // files are closed, the merged trace and the page are made
)

// window is a time in one phase, as clients of the server saw it.
type window struct {
	phase  phase
	gaps   []float64 // milliseconds between two pieces of text of one request
	health int       // good answers of /health
}

// p99 is that of the time between two pieces.
func (w *window) p99() float64 { return quantile(0.99, w.gaps) }

func quantile(p float64, list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	return stat.Quantile(p, stat.Empirical, slices.Sorted(slices.Values(list)), nil)
}

// watched is what clients of a server see.
type watched struct {
	url    string
	client *http.Client
	ended  chan struct{}

	mu       sync.Mutex // guards what follows
	windows  []*window  // the last is open
	prompts  int        // requests whose first piece of text has not come
	prompted time.Time  // when the last first piece came
	faults   []string
}

// piece notes the time between two pieces of one request, unless somebody's prompt was being taken in: that takes much longer than
// a token, and has nothing to do with profiles.
func (w *watched) piece(last, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.prompts == 0 && !last.Before(w.prompted) {
		open := w.windows[len(w.windows)-1]
		open.gaps = append(open.gaps, float64(now.Sub(last).Microseconds())/1000)
	}
}

// prompt notes that a request begins, or that its first piece has come.
func (w *watched) prompt(change int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prompts += change
	w.prompted = time.Now()
}

// enter begins a window.
func (w *watched) enter(p phase) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.windows = append(w.windows, &window{phase: p})
}

// now changes the window that is open.
func (w *watched) now(change func(*window)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w.windows[len(w.windows)-1])
}

// filled waits until the window that is open has so many gaps, and returns how many it has.
func (w *watched) filled(t *testing.T, gaps int) (have int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if w.now(func(open *window) { have = len(open.gaps) }); have >= gaps {
			return have
		}
	}
	t.Fatalf("only %d pieces of text came", have)
	return 0
}

// p99s are those of all windows of a phase, from the least to the largest.
func (w *watched) p99s(p phase) (list []float64) {
	for _, window := range w.windows {
		if window.phase == p {
			list = append(list, window.p99())
		}
	}
	slices.Sort(list)
	return list
}

// stretches are the p99s of all stretches of so many gaps in the windows of a phase. How they differ among themselves is the noise
// of the machine.
func (w *watched) stretches(p phase, gaps int) (list []float64) {
	for _, window := range w.windows {
		if window.phase != p {
			continue
		}
		for stretch := range slices.Chunk(window.gaps, gaps) {
			if len(stretch) == gaps {
				list = append(list, quantile(0.99, stretch))
			}
		}
	}
	return list
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
	w.prompt(1)
	begun := sync.OnceFunc(func() { w.prompt(-1) })
	defer begun()
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
		begun()
		now := time.Now()
		if !last.IsZero() {
			w.piece(last, now)
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
	w.now(func(open *window) {
		if response.StatusCode != http.StatusOK {
			w.faults = append(w.faults, fmt.Sprintf("health: %s while %s", response.Status, open.phase))
			return
		}
		open.health++
	})
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

// disturbance is how many times the largest p99 of a quiet window that of a profile's may be. Recording has a cost of its own
// (docs/performance.md); what this test is about are steps that wait for something.
const disturbance = 3

// Serving goes on while a profile is recorded and its files are written: every request is answered, /health is good all the
// time, and steps do not stall. Quiet windows alternate with those of a profile, under the same load; the measure of a phase is
// the median over its windows of the p99 in each, and that of noise the largest p99 of a quiet window, so that what else the
// machine does spoils neither. OMNI_PROFILE_EVENTS=1000000 makes each profile one of a million events,
// OMNI_PROFILE_PRESET=small takes a model with steps of tens of milliseconds.
func TestServingGoesOnWhileAProfileIsWritten(t *testing.T) {
	const rounds, gaps = 3, 400
	events := int64(20_000)
	if text := os.Getenv("OMNI_PROFILE_EVENTS"); text != "" {
		var err error
		if events, err = strconv.ParseInt(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	o := open(t, cmp.Or(os.Getenv("OMNI_PROFILE_PRESET"), "tiny"), 1, func(c *pipeline.Config) {
		c.Profiler = profiler.FromDir(t.TempDir())
		c.Profiler.Recorder, c.Profiler.TorchProfilerRecordShapes = "stream", true
	})
	server, err := api.New(api.Config{Engine: o, Profiler: o, Models: []string{"tiny"}, Limits: api.DefaultLimits()})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	defer web.Close()
	w := &watched{url: web.URL, client: web.Client(), ended: make(chan struct{})}
	w.enter(quiet)
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

	w.filled(t, gaps) // the first requests are slower
	w.windows = nil
	w.enter(quiet)
	w.filled(t, gaps)
	for range rounds {
		w.enter(recording)
		w.post(t, "/start_profile", "")
		recorded(t, o, events)
		like := w.filled(t, gaps)
		w.enter(writing)
		began := time.Now()
		session := w.post(t, "/stop_profile", `{"wait":false}`).Session
		report, err := o.WaitProfile(t.Context(), session)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		like = min(like+w.filled(t, 0), 10*gaps)
		w.enter(quiet)
		for _, worker := range report.Workers {
			if worker.State != profiler.StateDone {
				t.Errorf("%s is %s: %s", worker.Worker, worker.State, worker.Error)
			}
			t.Logf("session %s, %s: %d steps, %d events, %d dropped, stop held it up %.1f ms, files took %.1f ms", session, worker.Worker,
				worker.Steps, worker.Events, worker.DroppedTotal(), worker.StopMS, worker.WriteMS)
		}
		t.Logf("session %s: merged trace and page were there %v after stop", session, took.Round(time.Millisecond))
		w.filled(t, like) // quiet windows are as long, within reason
	}
	stop()
	w.verdict(t, gaps)
}

// asking is the pause between two questions how far a profile is: each goes to all workers, and they have steps to do.
const asking = 250 * time.Millisecond

// recorded waits until the workers have recorded so many events.
func recorded(t *testing.T, o *pipeline.Omni, events int64) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); time.Sleep(asking) {
		report, err := o.ProfileStatus()
		if err != nil {
			t.Fatal(err)
		}
		have := int64(0)
		for _, worker := range report.Workers {
			have += worker.Events
		}
		if have >= events {
			return
		}
	}
	t.Fatal("the events do not come")
}

// verdict says what the windows show, stretches of so many gaps among them, and whether that is as it should be. The clients have
// ended.
func (w *watched) verdict(t *testing.T, gaps int) {
	t.Helper()
	for _, window := range w.windows {
		t.Logf("%-20s %6d pieces of text, p99 of the time between two %7.2f ms, longest %7.2f ms; /health was good %d times", window.phase,
			len(window.gaps), window.p99(), slices.Max(append(window.gaps, 0)), window.health)
	}
	for _, fault := range w.faults {
		t.Error(fault)
	}
	quietest := w.p99s(quiet)
	noise, still := quietest[len(quietest)-1], w.stretches(quiet, gaps)
	for _, p := range []phase{recording, writing} {
		list := w.p99s(p)
		got := list[len(list)/2]
		t.Logf("%s, the median p99 is %.2f ms; quiet windows have %.2f to %.2f ms", p, got, quietest[0], noise)
		stretches, word := w.stretches(p, gaps), "within"
		middle, low, high := quantile(0.5, stretches), quantile(0.05, still), quantile(0.95, still)
		if middle > high {
			word = "beyond"
		}
		t.Logf("%s, in stretches of %d pieces, the median p99 of %d is %.2f ms; of %d quiet ones it is %.2f ms, nine of ten have %.2f to %.2f ms: %s the noise",
			p, gaps, len(stretches), middle, len(still), quantile(0.5, still), low, high, word)
		if got > disturbance*noise {
			t.Errorf("%s, steps take too long: the median p99 is %.2f ms, the largest of a quiet window %.2f ms", p, got, noise)
		}
		good := 0
		for _, window := range w.windows {
			if window.phase == p {
				good += window.health
			}
		}
		if good == 0 {
			t.Errorf("%s, /health was never asked", p)
		}
	}
}
