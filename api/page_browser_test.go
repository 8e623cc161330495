package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline"
)

// browserLimit is for what a page does on a machine that is busy with everything else.
const browserLimit = 60 * time.Second

// tab is a page in a browser. Everything that goes wrong in it is a fault of the test, unless the test expects it.
type tab struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // to chromedp the browser is its context

	mu     sync.Mutex // guards what follows
	faults []string
	asked  map[string]bool // origins that the page has sent requests to
}

// chromium is the browser's path, empty if there is none.
func chromium() string {
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	return ""
}

// openTab starts a browser of its own.
func openTab(t *testing.T) *tab {
	t.Helper()
	path := chromium()
	if path == "" {
		t.Skip("there is no chromium: scripts/deps.sh lint installs it")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("autoplay-policy", "no-user-gesture-required"), chromedp.WSURLReadTimeout(browserLimit), chromedp.WindowSize(1280, 900))
	// By itself chromedp has the kernel end the browser with the thread that started it. Threads of this program end with the
	// pipelines that tests close, so that browsers would die at random.
	options = append(options, chromedp.ModifyCmdFunc(func(*exec.Cmd) {}))
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(allocator)
	t.Cleanup(end)
	b := &tab{t: t, ctx: ctx, asked: map[string]bool{}}
	chromedp.ListenTarget(ctx, b.listen)
	// The browser ends with the context of the first run, so that has no limit.
	require.NoError(t, chromedp.Run(ctx, network.Enable(), log.Enable(), runtime.Enable()))
	return b
}

// listen notes what goes wrong, and whom the page asks.
func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, e.ExceptionDetails.Error())
	case *log.EventEntryAdded:
		if e.Entry.Level == log.LevelError || e.Entry.Level == log.LevelWarning {
			b.faults = append(b.faults, e.Entry.Text+" "+e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		parts := strings.SplitN(e.Request.URL, "/", 4)
		if len(parts) == 4 && !strings.HasPrefix(e.Request.URL, "blob:") && !strings.HasPrefix(e.Request.URL, "data:") {
			b.asked[parts[0]+"//"+parts[2]] = true
		}
	case *page.EventJavascriptDialogOpening:
		go func() { _ = chromedp.Run(b.ctx, page.HandleJavaScriptDialog(true)) }()
	}
}

// run does things in the page.
func (b *tab) run(actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserLimit)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		var text string
		_ = chromedp.Run(b.ctx, chromedp.Evaluate(`document.body.innerText`, &text)) // for the message
		b.t.Fatalf("%v; the page says:\n%s\nfaults: %v", err, text, b.faults)
	}
}

// sees waits until the page shows a text.
func (b *tab) sees(text string) {
	b.t.Helper()
	quoted, err := json.Marshal(text)
	require.NoError(b.t, err)
	b.run(chromedp.Poll(fmt.Sprintf(`document.body.innerText.includes(%s)`, quoted), nil, chromedp.WithPollingTimeout(browserLimit)))
}

// seesFlame scrolls to the flame graph, which is loaded when it comes into sight.
func (b *tab) seesFlame() {
	b.t.Helper()
	b.run(chromedp.Evaluate(`[...document.querySelectorAll('h2')].find(h => h.textContent === 'Flame graph').scrollIntoView()`, nil),
		chromedp.WaitVisible(`.flame .box`, chromedp.ByQuery))
}

// click clicks the first button or link of a name that can be clicked.
func (b *tab) click(name string) {
	b.t.Helper()
	b.run(chromedp.Click(fmt.Sprintf(`//*[(self::button or self::a or self::summary or self::label) and normalize-space(.)=%q and not(@disabled)]`, name), chromedp.BySearch, chromedp.NodeVisible))
}

// value evaluates an expression.
func value[T any](b *tab, expression string) (v T) {
	b.t.Helper()
	b.run(chromedp.Evaluate(expression, &v, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return v
}

// good checks that nothing went wrong but what is expected, and that only the server was asked.
func (b *tab) good(server string, expected ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		known := false
		for _, e := range expected {
			known = known || strings.Contains(fault, e)
		}
		require.True(b.t, known, "in the page: %s", fault)
	}
	for origin := range b.asked {
		require.Equal(b.t, server, origin, "the page asks somebody else")
	}
}

// picture takes pictures of the whole page, light and dark, if OMNI_PAGE_SHOTS names a folder for them, and in any case checks
// that the page fits its width.
func (b *tab) picture(name string, width int64) {
	b.t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		var shot []byte
		b.run(emulation.SetDeviceMetricsOverride(width, 900, 1, false),
			emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
			chromedp.FullScreenshot(&shot, 100))
		_, err := png.Decode(bytes.NewReader(shot))
		require.NoError(b.t, err)
		if folder := os.Getenv("OMNI_PAGE_SHOTS"); folder != "" {
			require.NoError(b.t, os.WriteFile(filepath.Join(folder, name+"-"+scheme+".png"), shot, 0o600))
		}
	}
	require.LessOrEqual(b.t, value[float64](b, `document.documentElement.scrollWidth - innerWidth`), 0.0, "%s is wider than its window", name)
}

// served starts a profiled server over fakes and returns its address.
func served(t *testing.T, change func(*fakeProfiler)) (string, *fakeProfiler) {
	t.Helper()
	s, f := newProfiled(t, change)
	address, _ := serveOn(t, s)
	return "http://" + address, f
}

func TestBrowserRecordsAndLooks(t *testing.T) {
	b := openTab(t)
	url, f := served(t, func(f *fakeProfiler) { f.slower = 1.3; f.writing = make(chan struct{}) })
	b.run(chromedp.Navigate(url))
	b.sees("No profiles yet.")
	b.sees("Nothing has been recorded")
	require.Equal(t, "0thinker, 1talker, 2code2wav", value[string](b, `[...document.querySelectorAll('.stage h3')].map(h => h.textContent).join(', ')`))
	b.picture("home-empty", 1280)

	b.run(chromedp.Click(`input[name=stage][value="1"]`, chromedp.ByQuery))
	b.click("Limits and more")
	b.run(chromedp.SendKeys(`input[name=max_iterations]`, "7", chromedp.ByQuery))
	b.click("Start profiling")
	b.sees("Session s1 records")
	f.mu.Lock()
	require.Equal(t, []int{0, 2}, f.options.Stages)
	require.Equal(t, map[string]any{"max_iterations": 7.0}, f.options.Settings)
	f.mu.Unlock()
	b.picture("home-recording", 1280)
	b.click("Stop profiling")
	b.sees("Session s1 is being written")
	close(f.writing)
	_, err := f.StopProfileWith(t.Context(), f.stops[len(f.stops)-1])
	require.NoError(t, err)
	b.sees("Session s1 is complete")
	b.run(chromedp.WaitVisible(`a[href="#/profiles/s1.1795311375000000000"]`, chromedp.ByQuery))

	b.click("Look at it")
	b.sees("What requests waited for")
	b.seesFlame()
	require.Positive(t, value[int](b, `[...document.querySelectorAll('.op')].filter(e => e.textContent === 'aten::addmm').length`))
	require.Positive(t, value[int](b, `document.querySelectorAll('.part.compute').length`))
	require.Positive(t, value[int](b, `document.querySelectorAll('.lane path').length`))
	b.picture("session", 1280)
	b.picture("session-narrow", 390)
	b.good(url)
}

// A session on GPUs shows what they did: the numbers that the report has, and their course.
func TestBrowserShowsGPUs(t *testing.T) {
	b := openTab(t)
	url, f := served(t, func(f *fakeProfiler) { f.gpu = true })
	recordWith(t, f)
	b.run(chromedp.Navigate(url + "/#/profiles/s1.1795311375000000000"))
	b.sees("kept down")
	cells := value[[][]string](b, `[...document.querySelectorAll('[aria-label="GPUs"] tbody tr')].map(row => [...row.cells].map(c => c.textContent))`)
	require.Len(t, cells, 3)
	require.Equal(t, []string{"stage-0 thinker", "0", "50 %", "200 W", "200 W"}, cells[0][:5])
	require.Equal(t, []string{"1500 MHz", "1500 MHz", "1.1 GB", "60 °C", "0 %", ""}, cells[0][6:])
	require.Equal(t, []string{"100 %", "power cap"}, cells[1][10:])
	require.Equal(t, []string{"1 %", "–", "–", "–", "–", "–", "–", "–", "0 %", ""}, cells[2][2:])
	rows := value[[]string](b, `[...document.querySelectorAll('.track-name')].map(e => e.textContent)`)
	require.Equal(t, []string{
		"GPU 0 busy", "GPU 0 memory used", "GPU 0 power", "GPU 0 SM clock", "GPU 0 temperature", "GPU 1 busy", "GPU 1 power", "GPU 1 SM clock", "GPU 1 kept down", "GPU 2 busy",
	}, rows[3:])
	b.picture("session-gpus", 1280)
	b.good(url)
}

// recordWith makes a session without a browser.
func recordWith(t *testing.T, f *fakeProfiler) {
	t.Helper()
	_, err := f.StartProfileWith(t.Context(), pipeline.ProfileOptions{})
	require.NoError(t, err)
	_, err = f.StopProfileWith(t.Context(), pipeline.ProfileStopOptions{Wait: true})
	require.NoError(t, err)
}

func TestBrowserDownloadsAndDeletes(t *testing.T) {
	b := openTab(t)
	url, f := served(t, nil)
	recordWith(t, f)
	folder := t.TempDir()
	ended := make(chan *browser.EventDownloadProgress, 1)
	chromedp.ListenTarget(b.ctx, func(event any) {
		if e, ok := event.(*browser.EventDownloadProgress); ok && e.State != browser.DownloadProgressStateInProgress {
			ended <- e
		}
	})
	b.run(browser.SetDownloadBehavior(browser.SetDownloadBehaviorBehaviorAllowAndName).WithDownloadPath(folder).WithEventsEnabled(true))
	b.run(chromedp.Navigate(url + "/#/profiles/s1.1795311375000000000"))
	b.sees("requests_s1.1795311375000000000.jsonl")
	const name = "stage-1_s1.1795311375000000000.pt.trace.json.gz"
	// Not with the mouse: what is above the link grows while it is loaded.
	b.run(chromedp.Evaluate(fmt.Sprintf(`[...document.querySelectorAll('a')].find(a => a.textContent === %q).click()`, name), nil))
	select { // a browser on a busy machine takes its time; the end of the download is an event of its own
	case e := <-ended:
		require.Equal(t, browser.DownloadProgressStateCompleted, e.State)
		have, err := os.ReadFile(filepath.Join(folder, e.GUID))
		require.NoError(t, err)
		want, err := os.ReadFile(filepath.Join(f.dir, name))
		require.NoError(t, err)
		require.Equal(t, want, have)
	case <-b.ctx.Done():
		t.Fatal("the browser has ended without a download")
	}
	b.click("Delete") // and the question whether to is answered with yes
	b.sees("No profiles yet.")
	require.NoFileExists(t, filepath.Join(f.dir, name))
	b.good(url)
}

func TestBrowserHandsATraceToPerfetto(t *testing.T) {
	b := openTab(t)
	url, f := served(t, nil)
	recordWith(t, f)
	got := make(chan map[string]any, 1)
	perfetto := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			var m map[string]any
			_ = json.NewDecoder(r.Body).Decode(&m) // nothing is nothing
			got <- m
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<script>addEventListener('message', e => {
			if (e.data === 'PING') e.source.postMessage('PONG', e.origin);
			else fetch('/', {method: 'POST', body: JSON.stringify({bytes: e.data.perfetto.buffer.byteLength, title: e.data.perfetto.title, name: e.data.perfetto.fileName})});
		})</script>`)
	}))
	t.Cleanup(perfetto.Close)
	b.run(chromedp.Navigate(url), chromedp.Evaluate(fmt.Sprintf(`localStorage.setItem('omni.perfetto', %q)`, perfetto.URL), nil),
		chromedp.Navigate(url+"/#/profiles/s1.1795311375000000000"))
	b.click("Open in Perfetto")
	info, err := os.Stat(filepath.Join(f.dir, "stage-0_s1.1795311375000000000.pt.trace.json.gz"))
	require.NoError(t, err)
	select {
	case m := <-got:
		require.Equal(t, map[string]any{"bytes": float64(info.Size()), "title": "omni s1.1795311375000000000", "name": info.Name()}, m)
	case <-time.After(browserLimit):
		t.Fatal("Perfetto got nothing")
	}
	b.sees("is in the window of " + perfetto.URL)
	b.good(url)
}

func TestBrowserCompares(t *testing.T) {
	b := openTab(t)
	url, f := served(t, func(f *fakeProfiler) { f.slower = 1.3 })
	for range 2 {
		recordWith(t, f)
	}
	b.run(chromedp.Navigate(url), chromedp.WaitVisible(`input[aria-label="compare s2"]`, chromedp.ByQuery))
	b.run(chromedp.Click(`input[aria-label="compare s2"]`, chromedp.ByQuery), chromedp.Click(`input[aria-label="compare s1"]`, chromedp.ByQuery))
	b.click("Compare two")
	b.sees("regressions.")
	b.sees("slower")
	require.Equal(t, "s1 → s2", value[string](b, `document.querySelector('h1').textContent`), "the older one comes first")
	b.picture("compare", 1280)
	b.good(url)
}

// The page works without a mouse.
func TestBrowserByKeyboard(t *testing.T) {
	b := openTab(t)
	url, f := served(t, nil)
	recordWith(t, f)
	b.run(chromedp.Navigate(url))
	b.sees("Start profiling")
	b.run(chromedp.KeyEvent("\t"))
	require.Equal(t, "Skip to content", value[string](b, `document.activeElement.textContent`))
	b.run(chromedp.Focus(`button.primary`, chromedp.ByQuery), chromedp.KeyEvent(kb.Enter))
	b.sees("Session s2 records")
	b.run(chromedp.Navigate(url + "/#/profiles/s1.1795311375000000000"))
	b.sees("Flame graph")
	b.seesFlame()
	focused := func() string { return value[string](b, `document.activeElement.getAttribute('aria-label')`) }
	b.run(chromedp.Focus(`.flame [tabindex="0"]`, chromedp.ByQuery))
	require.Contains(t, focused(), "session s1")
	b.run(chromedp.KeyEvent(kb.ArrowDown))
	require.Contains(t, focused(), "stage-")
	b.run(chromedp.KeyEvent(kb.ArrowDown))
	require.Contains(t, focused(), "ProfilerStep")
	b.run(chromedp.KeyEvent(kb.Enter))
	require.Equal(t, 2, value[int](b, `document.querySelectorAll('.flame .above').length`), "session and stage stand above what is zoomed into")
	b.run(chromedp.KeyEvent(kb.Escape))
	require.Equal(t, 0, value[int](b, `document.querySelectorAll('.flame .above').length`))
	b.good(url)
}

// speak answers a prompt in capital letters, and aloud if that is wanted.
func speak(_ context.Context, req pipeline.Request, yield func(pipeline.Event, error) bool) {
	prompt := req.Prompt
	if len(req.Messages) > 0 {
		prompt = req.Messages[len(req.Messages)-1].Text
	}
	for word := range strings.FieldsSeq(strings.ToUpper(prompt)) {
		if !yield(pipeline.Event{Kind: pipeline.EventText, Text: word + " ", TokenIDs: []int64{1}}, nil) {
			return
		}
	}
	response := &pipeline.Response{RequestID: req.ID, Text: strings.ToUpper(prompt), TokenIDs: []int64{1, 1}, FinishReason: "stop"}
	if slices.Contains(req.Modalities, pipeline.ModalityAudio) {
		samples := make([]float32, 12000)
		if !yield(pipeline.Event{Kind: pipeline.EventAudio, Samples: samples, SampleRate: 24000}, nil) {
			return
		}
		response.Audio = &pipeline.Audio{SampleRate: 24000, Samples: len(samples), PCM: samples}
	}
	yield(pipeline.Event{Kind: pipeline.EventDone, Response: response}, nil)
}

func TestBrowserTriesAPrompt(t *testing.T) {
	b := openTab(t)
	address, _ := serveOn(t, newServer(t, func(c *api.Config) { c.Engine = &fakeEngine{stream: speak} }))
	url := "http://" + address
	b.run(chromedp.Navigate(url), chromedp.WaitVisible(`.stage h3`, chromedp.ByQuery))
	b.run(chromedp.SendKeys(`textarea`, "hello there", chromedp.ByQuery), chromedp.KeyEvent(kb.Enter, chromedp.KeyModifiers(input.ModifierCtrl)))
	b.sees("HELLO THERE")
	b.run(chromedp.WaitVisible(`audio[src^="blob:"]`, chromedp.ByQuery))
	b.sees("first audio")
	require.Positive(t, value[float64](b, `new Promise(resolve => { const a = document.querySelector('audio'); a.readyState > 0 ? resolve(a.duration) : a.addEventListener('loadedmetadata', () => resolve(a.duration)); })`))
	b.run(chromedp.Click(`input[name=speech]`, chromedp.ByQuery))
	b.click("Send")
	b.run(chromedp.WaitNotPresent(`audio`, chromedp.ByQuery))
	b.sees("HELLO THERE")
	b.picture("home-tried", 1280)
	b.good(url)
}

// What goes wrong is said where it went wrong, and the rest of the page goes on.
func TestBrowserShowsErrors(t *testing.T) {
	b := openTab(t)
	url, f := served(t, func(f *fakeProfiler) { f.broken = map[int]string{1: "no space left on device"} })
	b.run(chromedp.Navigate(url))
	b.click("Limits and more")
	b.click("Dump the flight recorder")
	b.sees("profiling is not enabled")
	b.click("Start profiling")
	b.sees("Session s1 records")
	b.click("Stop profiling")
	b.sees("no space left on device")
	b.picture("home-failed-worker", 1280)
	b.run(chromedp.Navigate(url + "/#/profiles/s9.1"))
	b.sees(`no such profile session: "s9.1"`)
	b.picture("session-missing", 1280)
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "stage-0_s5.17.pt.trace.json.gz"), []byte("no trace"), 0o600))
	b.run(chromedp.Navigate(url + "/#/profiles/s5.17"))
	b.run(chromedp.WaitVisible(`.problem`, chromedp.ByQuery))
	b.good(url, "404", "500", "207")
}

func TestBrowserWithoutAProfiler(t *testing.T) {
	b := openTab(t)
	address, end := serveOn(t, newServer(t, nil))
	url := "http://" + address
	b.run(chromedp.Navigate(url))
	b.sees("--profile-dir ./profiles")
	b.picture("home-unprofiled-narrow", 390)
	require.NoError(t, end())
	b.sees("The server cannot be reached.")
	b.good(url, "ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")
}

func TestBrowserAsksForTheProfileKey(t *testing.T) {
	b := openTab(t)
	f := &fakeProfiler{t: t, dir: t.TempDir()}
	address, _ := serveOn(t, newServer(t, func(c *api.Config) { c.Profiler, c.ProfileKey = f, "secret" }))
	url := "http://" + address
	b.run(chromedp.Navigate(url))
	b.sees("Key for profile control")
	b.run(chromedp.SendKeys(`input[name=key]`, "wrong\r", chromedp.ByQuery))
	b.sees("the key is not the one for profile control")
	b.run(chromedp.SendKeys(`input[name=key]`, "secret\r", chromedp.ByQuery))
	b.sees("Start profiling")
	b.good(url, "401")
}
