package profiler

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// ErrSetting says that a start asked for a setting that does not exist, is wrong, or is not for a start to choose.
var ErrSetting = errors.New("profiler setting refused")

// Ceilings bound what the settings of one start may ask for, whoever sends them. A zero field sets no bound.
type Ceilings struct {
	MaxSeconds float64
	MaxEvents  int
	MaxTraceMB float64
	// Kept are the names of settings that stay as they are configured: recorder, say, since kineto holds gigabytes until it is
	// stopped.
	Kept []string
}

// Validate reports all faults at once.
func (c Ceilings) Validate() error {
	var faults []error
	for _, amount := range []struct {
		name string
		got  float64
	}{{"max_seconds", c.MaxSeconds}, {"max_events", float64(c.MaxEvents)}, {"max_trace_mb", c.MaxTraceMB}} {
		if !(amount.got >= 0) { // so that NaN is refused as well
			faults = append(faults, fmt.Errorf("ceiling of %s: got %v, want 0 (none) or more", amount.name, amount.got))
		}
	}
	for _, name := range c.Kept {
		if !known(name) {
			faults = append(faults, fmt.Errorf("settings to keep: %w", unknown(name)))
		}
	}
	return errors.Join(faults...)
}

// fixed lists the settings that belong to the server: where files go, and what runs between the sessions.
var fixed = []string{"profiler", "torch_profiler_dir", "ring_seconds", "ring_slo_ms"}

// Within returns the configuration of one session: c with the settings of a start laid over it. A setting above a ceiling
// is refused, and so is one that changes what the ceilings keep; what the start leaves to c is lowered to the ceiling in
// silence. All faults are reported, each names its
// setting, and the error is an ErrSetting.
func (c Config) Within(ceilings Ceilings, settings map[string]any) (Config, error) {
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if slices.Contains(fixed, name) {
			faults = append(faults, fmt.Errorf("%s: it belongs to the server and cannot be changed by a start", name))
		}
	}
	chosen := maps.Clone(settings)
	maps.DeleteFunc(chosen, func(name string, _ any) bool { return slices.Contains(fixed, name) })
	laid, err := c.With(chosen)
	laid.RingSeconds, laid.RingSLOMS = 0, 0 // the ring makes way for a session
	for _, name := range ceilings.Kept {
		if got, want := laid.value(name), c.value(name); chosen[name] != nil && !reflect.DeepEqual(got, want) {
			faults = append(faults, fmt.Errorf("%s: got %v, the server keeps %v", name, got, want))
		}
	}
	faults = append(faults, err, laid.Validate(),
		bound(settings, "max_seconds", &laid.MaxSeconds, ceilings.MaxSeconds),
		bound(settings, "max_events", &laid.MaxEvents, ceilings.MaxEvents),
		bound(settings, "max_trace_mb", &laid.MaxTraceMB, ceilings.MaxTraceMB))
	if err := errors.Join(faults...); err != nil {
		return c, fmt.Errorf("%w: %w", ErrSetting, err)
	}
	return laid, nil
}

// bound applies a ceiling to a budget, for which 0 means no limit.
func bound[T int | float64](settings map[string]any, name string, value *T, ceiling T) error {
	if ceiling == 0 || (*value > 0 && *value <= ceiling) {
		return nil
	}
	if _, asked := settings[name]; asked {
		got := fmt.Sprint(*value)
		if *value == 0 {
			got = "0 (no limit)"
		}
		return fmt.Errorf("%s: got %s, the server allows at most %v", name, got, ceiling)
	}
	*value = ceiling
	return nil
}
