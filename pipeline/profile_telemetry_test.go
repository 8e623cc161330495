package pipeline_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/picture"
	"github.com/omni-run/omni/profiler/telemetry"
)

// oneGPU is a source with a GPU that draws 300 W; err is why it cannot be opened.
type oneGPU struct{ err error }

func (g oneGPU) Open() (telemetry.Probe, error) { return g, g.err }
func (oneGPU) Devices() []telemetry.Device      { return []telemetry.Device{{Name: "a GPU"}} }
func (oneGPU) Close() error                     { return nil }
func (oneGPU) Sample() ([]telemetry.Sample, error) {
	watts := 300.0
	return []telemetry.Sample{{PowerWatts: &watts}}, nil
}

// session runs a request in a profile session and returns its report.
func session(t *testing.T, source telemetry.Source) *pipeline.ProfileReport {
	t.Helper()
	cfg := pipelinetest.Config(t, nil)
	cfg.Profiler = profiler.FromDir(t.TempDir())
	cfg.Telemetry = source
	o := pipelinetest.Open(t, cfg)
	if _, err := o.StartProfile(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Generate(t.Context(), pipeline.Request{Prompt: "hello", MaxTokens: 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.StopProfile(nil); err != nil {
		t.Fatal(err)
	}
	report, err := o.WaitProfile(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestSessionHasPicturesWithTelemetry(t *testing.T) {
	report := session(t, oneGPU{})
	if report.Pictures == nil || report.Pictures.Error != "" || len(report.Pictures.Missing) != 0 || len(report.Pictures.Files) != 2 {
		t.Fatalf("got %+v, want two pictures", report.Pictures)
	}
	folder := filepath.Dir(report.Pictures.Files[0].Path)
	count := 0
	devices, err := telemetry.Read(filepath.Join(folder, archive.TelemetryName), func(telemetry.Sample) error { count++; return nil })
	if err != nil || len(devices) != 1 || count < 2 {
		t.Errorf("got %d devices, %d samples and %v, want one device, sampled at the beginning and at the end", len(devices), count, err)
	}
	for _, file := range report.Pictures.Files {
		text, err := os.ReadFile(file.Path)
		if file.Kind == picture.KindReport && (err != nil || !strings.Contains(string(text), "a GPU")) {
			t.Errorf("%s does not name the GPU: %v", file.Path, err)
		}
	}
}

// A dump tells of the time before it.
func TestDumpHasTelemetry(t *testing.T) {
	for _, want := range []error{nil, errors.New("the driver hangs")} {
		o := flying(t, nil, func(cfg *pipeline.Config) { cfg.Telemetry = oneGPU{err: want} })
		generate(t, o, "one")
		if _, err := o.DumpProfile(t.Context()); err != nil {
			t.Fatal(err)
		}
		report, err := o.WaitProfile(t.Context(), "")
		if err != nil || len(report.Pictures.Files) != 2 {
			t.Fatalf("got %+v and %v, want two pictures", report, err)
		}
		folder := filepath.Dir(report.Pictures.Files[0].Path)
		count := 0
		devices, err := telemetry.Read(filepath.Join(folder, archive.TelemetryName), func(telemetry.Sample) error { count++; return nil })
		switch {
		case err != nil:
			t.Error(err)
		case want != nil && !strings.Contains(report.Pictures.Error, want.Error()):
			t.Errorf("got the error %q, want it to say %v", report.Pictures.Error, want)
		case want == nil && (len(devices) != 1 || count == 0 || report.Pictures.Error != ""):
			t.Errorf("got %d devices, %d samples and the error %q, want a device that was sampled", len(devices), count, report.Pictures.Error)
		}
	}
}

func TestTelemetryThatFailsIsSaid(t *testing.T) {
	report := session(t, oneGPU{err: errors.New("the driver hangs")})
	if report.Pictures == nil || !strings.Contains(report.Pictures.Error, "the driver hangs") || len(report.Pictures.Files) != 2 {
		t.Errorf("got %+v, want pictures and the error", report.Pictures)
	}
}
