package profiler

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestSettingsOfAStart(t *testing.T) {
	base := FromDir("/d")
	base.MaxEvents, base.RingSeconds, base.Recorder = 50, 10, RecorderStream
	ceilings := Ceilings{MaxSeconds: 60, MaxEvents: 100, Kept: []string{"detail", "torch_profiler_with_stack"}}
	own := base.clone()
	own.MaxSeconds, own.RingSeconds = 60, 0
	changed := own.clone()
	changed.MaxSeconds, changed.MaxEvents, changed.MaxTraceMB, changed.Activities = 5, 100, 7, []string{"CPU"}
	kineto := own.clone()
	kineto.Recorder = "kineto"
	for name, test := range map[string]struct {
		settings map[string]any
		want     Config
		faults   []string
	}{
		"nothing is asked for": {nil, own, nil},
		"within the ceilings": {
			map[string]any{"max_seconds": 5.0, "max_events": 100.0, "max_trace_mb": 7, "activities": []any{"CPU"}}, changed, nil,
		},
		"a recorder that has no ring": {map[string]any{"recorder": "kineto"}, kineto, nil},
		"above": {
			map[string]any{"max_seconds": 61, "max_events": 101},
			Config{},
			[]string{"max_seconds: got 61, the server allows at most 60", "max_events: got 101, the server allows at most 100"},
		},
		"no limit at all": {map[string]any{"max_seconds": 0}, Config{}, []string{"max_seconds: got 0 (no limit), the server allows at most 60"}},
		"what belongs to the server": {
			map[string]any{"torch_profiler_dir": "/etc", "profiler": nil, "ring_seconds": 1, "ring_slo_ms": 1},
			Config{},
			[]string{"torch_profiler_dir: it belongs to the server", "profiler: it belongs", "ring_seconds: it belongs", "ring_slo_ms: it belongs"},
		},
		"an unknown setting": {map[string]any{"colour": 1}, Config{}, []string{`unknown field "colour"`}},
		"wrong values": {
			map[string]any{"delay_iterations": -1, "detail": "all"}, Config{}, []string{"delay_iterations: got -1", `detail: got "all"`},
		},
		"what the server keeps": {
			map[string]any{"detail": "modules", "torch_profiler_with_stack": false},
			Config{},
			[]string{"detail: got modules, the server keeps ops", "torch_profiler_with_stack: got false, the server keeps true"},
		},
		"what the server keeps, as it is": {map[string]any{"detail": "ops"}, own, nil},
		"a count that is no exact number": {
			map[string]any{"max_iterations": float64(MaxCount + 1)}, Config{}, []string{"max_iterations: got 9.007199254740992e+15"},
		},
		"a wrong type and more": {
			map[string]any{"max_iterations": "2", "profiler": "cuda", "delay_iterations": -1, "colour": 1, "max_events": 101},
			Config{},
			[]string{
				"max_iterations: got 2 (string)", "profiler: it belongs", "delay_iterations: got -1", `unknown field "colour"`,
				"max_events: got 101, the server allows at most 100",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := base.Within(ceilings, test.settings)
			for _, want := range test.faults {
				if !errors.Is(err, ErrSetting) || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want an ErrSetting with %q", err, want)
				}
			}
			if test.faults == nil && (err != nil || !reflect.DeepEqual(got, test.want)) {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
	if base.RingSeconds != 10 || base.Activities[0] != "CPU" {
		t.Errorf("the base has changed: %+v", base)
	}
}

func TestCeilingsThatAreRefused(t *testing.T) {
	err := Ceilings{MaxSeconds: -1, MaxEvents: -2, MaxTraceMB: math.NaN(), Kept: []string{"recorder", "colour"}}.Validate()
	for _, want := range []string{"max_seconds: got -1", "max_events: got -2", "max_trace_mb: got NaN", `settings to keep: profiler config: unknown field "colour"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if err := (Ceilings{MaxSeconds: 1, Kept: FieldNames()}).Validate(); err != nil {
		t.Error(err)
	}
}
