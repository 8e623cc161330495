package profiler

import (
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestDefaultsAreTheDocumentedOnes(t *testing.T) {
	want := map[string]any{
		"profiler":                            nil,
		"torch_profiler_dir":                  "",
		"torch_profiler_with_stack":           true,
		"torch_profiler_with_flops":           false,
		"torch_profiler_use_gzip":             true,
		"torch_profiler_dump_cuda_time_total": true,
		"torch_profiler_record_shapes":        false,
		"torch_profiler_with_memory":          false,
		"delay_iterations":                    0,
		"max_iterations":                      0,
		"wait_iterations":                     0,
		"warmup_iterations":                   0,
		"active_iterations":                   5,
		"max_seconds":                         0.0,
		"max_events":                          0,
		"max_trace_mb":                        0.0,
		"activities":                          []string{"CPU", "CUDA"},
		"ring_seconds":                        0.0,
		"ring_slo_ms":                         0.0,
		"merge_profiles":                      true,
		"detail":                              "ops",
		"profile_prefix":                      "",
		"recorder":                            "stream",
	}
	if got := Default().ToMap(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if Default().Enabled() {
		t.Error("profiling is on by default")
	}
	c := Default()
	if err := c.Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
}

// everythingChanged has no field at its default.
func everythingChanged() Config {
	return Config{
		Profiler: KindTorch, TorchProfilerDir: "/d", TorchProfilerWithFLOPs: true, TorchProfilerRecordShapes: true,
		TorchProfilerWithMemory: true, DelayIterations: 3, MaxIterations: 2, MaxSeconds: 1.5, Recorder: "kineto",
		WaitIterations: 1, WarmupIterations: 4, ActiveIterations: 6, Detail: "modules", ProfilePrefix: "p",
		MaxEvents: 7, MaxTraceMB: 2.5, Activities: []string{"CPU"}, RingSeconds: 8, RingSLOMS: 250,
	}
}

func TestEveryFieldIsListed(t *testing.T) {
	if got, want := len(fields), reflect.TypeFor[Config]().NumField(); got != want {
		t.Fatalf("the table has %d fields, Config %d", got, want)
	}
	defaults, changed := Default().ToMap(), everythingChanged().ToMap()
	for name := range maps.Keys(defaults) {
		if reflect.DeepEqual(defaults[name], changed[name]) {
			t.Errorf("%s has its default in everythingChanged", name)
		}
	}
}

func TestRoundTrips(t *testing.T) {
	for name, c := range map[string]Config{"defaults": Default(), "everything changed": everythingChanged()} {
		t.Run(name, func(t *testing.T) {
			back, err := FromMap(c.ToMap())
			if err != nil || !reflect.DeepEqual(back, c) {
				t.Errorf("through a map: got %+v, %v", back, err)
			}
			text, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			var decoded Config
			if err := json.Unmarshal(text, &decoded); err != nil || !reflect.DeepEqual(decoded, c) {
				t.Errorf("through JSON %s: got %+v, %v", text, decoded, err)
			}
			parsed, err := Parse(string(text))
			if err != nil || !reflect.DeepEqual(parsed, c) {
				t.Errorf("through --profiler-config: got %+v, %v", parsed, err)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   []string // all must be in the error; none: valid
	}{
		{"torch with a directory", func(*Config) {}, nil},
		{"torch without a directory", func(c *Config) { c.TorchProfilerDir = "" }, []string{"must be set"}},
		{
			"a directory without torch",
			func(c *Config) { c.Profiler = KindNone },
			[]string{"only applicable"},
		},
		{"cuda", func(c *Config) { c.Profiler, c.TorchProfilerDir = KindCUDA, "" }, nil},
		{"cuda with a directory", func(c *Config) { c.Profiler = KindCUDA }, []string{`only applicable when profiler is "torch"`}},
		{"a ring", func(c *Config) { c.Recorder, c.RingSeconds, c.RingSLOMS = "stream", 10, 500 }, nil},
		{"a ring of torch's own profiler", func(c *Config) { c.Recorder, c.RingSeconds = "kineto", 10 }, []string{`ring_seconds needs recorder "stream", got "kineto"`}},
		{"a limit of requests without a ring", func(c *Config) { c.RingSLOMS = 10 }, []string{"ring_slo_ms needs ring_seconds"}},
		{
			"a ring of a CUDA profiler",
			func(c *Config) { c.Profiler, c.TorchProfilerDir, c.Recorder, c.RingSeconds = KindCUDA, "", "stream", 1 },
			[]string{`ring_seconds is only applicable when profiler is "torch"`},
		},
		{"no activities", func(c *Config) { c.Activities = nil }, []string{"activities: the list is empty"}},
		{"strange activities", func(c *Config) { c.Activities = []string{"CPU", "GPU", "CPU"} }, []string{`activities: got "GPU"`, `"CPU" is listed twice`}},
		{"an unknown profiler", func(c *Config) { c.Profiler = "nsys" }, []string{`got "nsys"`}},
		{"a URI", func(c *Config) { c.TorchProfilerDir = "gs://bucket/x" }, []string{"want a local directory"}},
		{"an unknown recorder", func(c *Config) { c.Recorder = "tape" }, []string{`got "tape"`, "kineto"}},
		{
			"everything wrong",
			func(c *Config) {
				*c = Config{
					Profiler: KindTorch, DelayIterations: -1, MaxIterations: -2, MaxSeconds: -3, WaitIterations: -4,
					WarmupIterations: -5, ProfilePrefix: "../x", MaxEvents: -6, MaxTraceMB: -7, RingSeconds: -8, RingSLOMS: math.NaN(),
				}
			},
			[]string{
				"must be set", "delay_iterations: got -1", "max_iterations: got -2", "max_seconds: got -3",
				"wait_iterations: got -4", "warmup_iterations: got -5", "active_iterations: got 0, want at least 1",
				"max_events: got -6", "max_trace_mb: got -7", "ring_seconds: got -8", "ring_slo_ms: got NaN", "activities: the list is empty",
				`profile_prefix: got "../x"`, `detail: got ""`, "recorder",
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := FromDir("/d")
			test.change(&c)
			err := c.Validate()
			if len(test.want) == 0 {
				if err != nil {
					t.Errorf("got %v, want none", err)
				}
				return
			}
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
		})
	}
}

func TestValidateMakesTheDirectoryAbsolute(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Chdir(t.TempDir())
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		"profiles":      filepath.Join(cwd, "profiles"),
		"./a/../b":      filepath.Join(cwd, "b"),
		"~":             home,
		"~/profiles":    filepath.Join(home, "profiles"),
		"/abs/x":        "/abs/x",
		"a~b":           filepath.Join(cwd, "a~b"),
		"~user/profile": filepath.Join(cwd, "~user/profile"),
	} {
		c := FromDir(dir)
		if err := c.Validate(); err != nil || c.TorchProfilerDir != want {
			t.Errorf("%q: got %q, %v; want %q", dir, c.TorchProfilerDir, err, want)
		}
	}
}

func TestFromMapReportsAllFaults(t *testing.T) {
	_, err := FromMap(map[string]any{
		"colour": 1, "delay_iterations": 1.5, "max_iterations": "2", "torch_profiler_use_gzip": 1, "recorder": nil,
		"max_seconds": "long", "profiler": 7, "activities": []any{"CPU", 3}, "max_events": true,
	})
	for _, want := range []string{
		`unknown field "colour"`, "delay_iterations: got 1.5", "max_iterations: got 2 (string)",
		"torch_profiler_use_gzip: got 1", "recorder: got <nil>", "max_seconds: got long", "profiler: got 7",
		"activities: got [CPU 3]", "max_events: got true",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestWithKeepsWhatIsNotNamed(t *testing.T) {
	base := everythingChanged()
	got, err := base.With(map[string]any{"max_iterations": uint64(9)})
	if err != nil {
		t.Fatal(err)
	}
	want := everythingChanged()
	want.MaxIterations = 9
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(base, everythingChanged()) {
		t.Errorf("got %+v from %+v", got, base)
	}
}

// upstream is a configuration type of someone else.
type upstream struct {
	Profiler         *string `json:"profiler"`
	TorchProfilerDir string  `json:"torch_profiler_dir"`
	WithStack        bool    `json:"torch_profiler_with_stack"`
	Max              int     `json:"max_iterations"`
	IgnoreFrontend   bool    `json:"ignore_frontend"`
}

func TestFromAny(t *testing.T) {
	torch := KindTorch
	own := FromDir("/d")
	off := Default()
	fromUpstream := FromDir("/d")
	fromUpstream.TorchProfilerWithStack, fromUpstream.MaxIterations = false, 4
	tests := []struct {
		name  string
		value any
		want  *Config // nil: none
		fault string
	}{
		{"nothing", nil, nil, ""},
		{"an own config", own, &own, ""},
		{"a pointer to one", &own, &own, ""},
		{"a nil pointer", (*Config)(nil), nil, ""},
		{"an own config without profiler", off, nil, ""},
		{"a map", map[string]any{"profiler": "torch", "torch_profiler_dir": "/d"}, &own, ""},
		{"a map with profiler null", map[string]any{"profiler": nil, "torch_profiler_dir": "/d"}, nil, ""},
		{"a map without profiler", map[string]any{"torch_profiler_dir": "/d"}, nil, ""},
		{"a map with an unknown key", map[string]any{"profiler": "torch", "colour": ""}, nil, `unknown field "colour"`},
		{"a foreign object", upstream{Profiler: &torch, TorchProfilerDir: "/d", Max: 4}, &fromUpstream, ""},
		{"a foreign object with profiler null", upstream{TorchProfilerDir: "/d"}, nil, ""},
		{"a foreign object without profiler", struct{ A int }{1}, nil, ""},
		{
			"a foreign object with a setting that we lack",
			upstream{Profiler: &torch, IgnoreFrontend: true},
			nil, `unknown field "ignore_frontend"`,
		},
		{"a number", 5, nil, "want an object"},
		{"a function", func() {}, nil, "profiler config from func()"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := FromAny(test.value)
			if test.fault != "" {
				if err == nil || !strings.Contains(err.Error(), test.fault) {
					t.Errorf("got %v, want %q in it", err, test.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
	if got, err := FromAny(&own); err != nil || got != &own {
		t.Error("an own config does not come back as itself")
	}
}

func TestOverride(t *testing.T) {
	torch := FromDir("/d")
	torch.MaxIterations, torch.RingSeconds = 3, 10
	limited := torch.clone()
	limited.MaxIterations = 9
	elsewhere := torch.clone()
	elsewhere.TorchProfilerDir = "/e"
	off := torch.clone()
	off.Profiler, off.TorchProfilerDir, off.RingSeconds = KindNone, "", 0
	cuda := off.clone()
	cuda.Profiler = KindCUDA
	fromOff := FromDir("/e")
	kept := Default()
	kept.MaxIterations = 5
	tests := []struct {
		name     string
		base     Config
		settings map[string]any
		want     Config
		faults   []string // all must be in the error
	}{
		{"nothing over nothing", Default(), nil, Default(), nil},
		{"nothing", torch, nil, torch, nil},
		{"a limit", torch, map[string]any{"max_iterations": 9}, limited, nil},
		{"a directory", torch, map[string]any{"torch_profiler_dir": "/e"}, elsewhere, nil},
		{"off", torch, map[string]any{"profiler": nil}, off, nil},
		{"another profiler, which has no directory", torch, map[string]any{"profiler": "cuda"}, cuda, nil},
		{"on", Default(), map[string]any{"profiler": "torch", "torch_profiler_dir": "/e"}, fromOff, nil},
		{"off in so many words, with settings for later", Default(), map[string]any{"profiler": nil, "max_iterations": 5}, kept, nil},
		{"settings without a profiler", Default(), map[string]any{"max_iterations": 5, "detail": "ops"}, Config{}, []string{
			"detail, max_iterations: nothing would be recorded, since no profiler is chosen; add profiler=torch",
		}},
		{"a directory without a profiler", Default(), map[string]any{"torch_profiler_dir": "x", "delay_iterations": -3}, Config{}, []string{
			`torch_profiler_dir is only applicable when profiler is "torch"`, "delay_iterations: got -3", "delay_iterations: nothing would be recorded",
		}},
		{"a directory for another profiler", torch, map[string]any{"profiler": "cuda", "torch_profiler_dir": "/e"}, Config{}, []string{"only applicable"}},
		{"faults of every kind", torch, map[string]any{"colour": 1, "delay_iterations": -1, "max_iterations": "2"}, Config{}, []string{
			`unknown field "colour"`, "delay_iterations: got -1", "max_iterations: got 2 (string)",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.base.Override(test.settings)
			for _, want := range test.faults {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
			if test.faults == nil && (err != nil || !reflect.DeepEqual(got, test.want)) {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

func TestChecked(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	unused := Default()
	unused.MaxIterations, unused.TorchProfilerWithMemory = 5, true
	negative := FromDir("/d")
	negative.DelayIterations = -1
	tests := []struct {
		name   string
		config Config
		want   Config
		faults []string
	}{
		{"the zero value is off", Config{}, Default(), nil},
		{"the defaults are off", Default(), Default(), nil},
		{"a directory becomes absolute", FromDir("~/d"), FromDir(filepath.Join(home, "d")), nil},
		{"a wrong value", negative, Config{}, []string{"delay_iterations: got -1"}},
		{"settings without a profiler", unused, Config{}, []string{"max_iterations, torch_profiler_with_memory: nothing would be recorded"}},
		{"the same, made by hand", Config{MaxIterations: -5}, Config{}, []string{"max_iterations: got -5", "max_iterations: nothing would be recorded"}},
		{"a directory without a profiler", Config{TorchProfilerDir: "/d"}, Config{}, []string{"only applicable"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.config.Checked()
			for _, want := range test.faults {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
			if test.faults == nil && (err != nil || !reflect.DeepEqual(got, test.want)) {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	full := FromDir("./profiles")
	full.DelayIterations, full.TorchProfilerUseGzip, full.MaxSeconds = 3, false, 0.5
	cuda := Default()
	cuda.Profiler, cuda.Activities, cuda.MaxEvents = KindTorch, []string{"CUDA"}, 9
	tests := []struct {
		text  string
		want  Config
		fault string
	}{
		{"profiler=torch,torch_profiler_dir=./profiles", FromDir("./profiles"), ""},
		{" profiler = torch , torch_profiler_dir = ./profiles , ", FromDir("./profiles"), ""},
		{
			"profiler=torch,torch_profiler_dir=./profiles,delay_iterations=3,torch_profiler_use_gzip=False,max_seconds=0.5",
			full, "",
		},
		{`{"profiler":"torch","torch_profiler_dir":"./profiles"}`, FromDir("./profiles"), ""},
		{"profiler=torch,activities=CPU, CUDA,torch_profiler_dir=./profiles", FromDir("./profiles"), ""},
		{"activities=,profiler=torch,activities=CUDA,max_events=9", cuda, ""},
		{"activities=CUDA,max_events=9,profiler=torch,CPU", Config{}, `got "CPU", want name=value`},
		{`{"activities":["CUDA"],"max_events":9,"profiler":"torch"}`, cuda, ""},
		{`{"activities":"CPU"}`, Config{}, "activities: got CPU (string), want a list of strings"},
		{`{} {}`, Config{}, "there is more after the JSON object"},
		{"profiler=none", Default(), ""},
		{"", Default(), ""},
		{"torch", Config{}, "want name=value"},
		{"profiler=torch,dir=x", Config{}, `unknown field "dir"`},
		{"delay_iterations=9007199254740992", Config{}, `delay_iterations: got "9007199254740992", want an integer of at most 9007199254740991`},
		{"delay_iterations=soon", Config{}, `delay_iterations: got "soon", want an integer`},
		{"torch_profiler_use_gzip=maybe", Config{}, "want true or false"},
		{"max_seconds=long", Config{}, "want a number"},
		{`{"profiler":"torch"`, Config{}, "unexpected EOF"},
		{`{"profilr":"torch"}`, Config{}, `unknown field "profilr"`},
		{"dir=x,colour=y", Config{}, `unknown field "colour"`},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			got, err := Parse(test.text)
			if test.fault != "" {
				if err == nil || !strings.Contains(err.Error(), test.fault) {
					t.Errorf("got %v, want %q in it", err, test.fault)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

func TestParseLaysTextOverAConfig(t *testing.T) {
	base := everythingChanged()
	for _, text := range []string{"max_events=9", `{"max_events":9}`} {
		got, err := base.Parse(text)
		want := everythingChanged()
		want.MaxEvents = 9
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("profiler=torch,torch_profiler_dir=./profiles")
	f.Add(`{"profiler":"torch","max_iterations":2}`)
	f.Add("activities=CPU,CUDA,max_trace_mb=1.5")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		if math.IsNaN(c.MaxSeconds + c.MaxTraceMB + c.RingSeconds + c.RingSLOMS) {
			return // equals nothing; Validate rejects it
		}
		if back, err := FromMap(c.ToMap()); err != nil || !reflect.DeepEqual(back, c) {
			t.Errorf("%q: got %+v, %v after a round trip of %+v", text, back, err, c)
		}
	})
}
