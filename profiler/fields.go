package profiler

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// field is one setting. at returns a *string, *bool, *int or *float64 into the Config.
type field struct {
	name string
	at   func(*Config) any
}

// fields names every setting once: the same names serve maps, JSON, YAML, flags and documentation.
var fields = []field{
	{"profiler", func(c *Config) any { return &c.Profiler }},
	{"torch_profiler_dir", func(c *Config) any { return &c.TorchProfilerDir }},
	{"torch_profiler_with_stack", func(c *Config) any { return &c.TorchProfilerWithStack }},
	{"torch_profiler_with_flops", func(c *Config) any { return &c.TorchProfilerWithFLOPs }},
	{"torch_profiler_use_gzip", func(c *Config) any { return &c.TorchProfilerUseGzip }},
	{"torch_profiler_dump_cuda_time_total", func(c *Config) any { return &c.TorchProfilerDumpCUDATimeTotal }},
	{"torch_profiler_record_shapes", func(c *Config) any { return &c.TorchProfilerRecordShapes }},
	{"torch_profiler_with_memory", func(c *Config) any { return &c.TorchProfilerWithMemory }},
	{"delay_iterations", func(c *Config) any { return &c.DelayIterations }},
	{"max_iterations", func(c *Config) any { return &c.MaxIterations }},
	{"wait_iterations", func(c *Config) any { return &c.WaitIterations }},
	{"warmup_iterations", func(c *Config) any { return &c.WarmupIterations }},
	{"active_iterations", func(c *Config) any { return &c.ActiveIterations }},
	{"max_seconds", func(c *Config) any { return &c.MaxSeconds }},
	{"detail", func(c *Config) any { return &c.Detail }},
	{"profile_prefix", func(c *Config) any { return &c.ProfilePrefix }},
	{"recorder", func(c *Config) any { return &c.Recorder }},
}

// ToMap returns every field under its name, with nil for KindNone. FromMap is its inverse.
func (c Config) ToMap() map[string]any {
	m := make(map[string]any, len(fields))
	for _, f := range fields {
		m[f.name] = reflect.ValueOf(f.at(&c)).Elem().Interface()
	}
	if c.Profiler == KindNone {
		m["profiler"] = nil
	}
	return m
}

// FromMap returns the defaults with the settings of m laid over them. All unknown keys and wrong types are reported.
func FromMap(m map[string]any) (Config, error) { return Default().With(m) }

// With returns a copy of c with the settings of m laid over it. All unknown keys and wrong types are reported.
func (c Config) With(m map[string]any) (Config, error) {
	var faults []error
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if err := c.set(key, m[key]); err != nil {
			faults = append(faults, err)
		}
	}
	return c, errors.Join(faults...)
}

// FromAny converts whatever a caller has into a Config. It returns nil for nil, for a value without a profiler field and
// for one whose profiler is null or empty. A Config or *Config comes back as it is. A map is read by [FromMap]. Any
// other value is read through its JSON form: all fields known here are copied, and a field unknown here is an error
// unless it is empty, so that nothing is dropped in silence.
func FromAny(value any) (*Config, error) {
	switch v := value.(type) {
	case nil:
		return nil, nil
	case Config:
		return enabled(v)
	case *Config:
		if v == nil || !v.Enabled() {
			return nil, nil
		}
		return v, nil
	case map[string]any:
		return fromObject(v)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("profiler config from %T: %w", value, err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("profiler config from %T: want an object: %w", value, err)
	}
	for key, setting := range m {
		if !known(key) && empty(setting) {
			delete(m, key)
		}
	}
	return fromObject(m)
}

func fromObject(m map[string]any) (*Config, error) {
	if m["profiler"] == nil {
		return nil, nil
	}
	c, err := FromMap(m)
	if err != nil {
		return nil, err
	}
	return enabled(c)
}

func enabled(c Config) (*Config, error) {
	if !c.Enabled() {
		return nil, nil
	}
	return &c, nil
}

// Parse reads the text of --profiler-config: either a JSON object or name=value pairs separated by commas. A value that
// holds a comma needs the JSON form.
func Parse(text string) (Config, error) {
	trimmed := strings.TrimSpace(text)
	if strings.HasPrefix(trimmed, "{") {
		var c Config
		err := json.Unmarshal([]byte(trimmed), &c)
		return c, err
	}
	c := Default()
	var faults []error
	for pair := range strings.SplitSeq(trimmed, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		name, value, found := strings.Cut(pair, "=")
		if !found {
			faults = append(faults, fmt.Errorf("profiler config: got %q, want name=value", pair))
			continue
		}
		if err := c.Set(strings.TrimSpace(name), strings.TrimSpace(value)); err != nil {
			faults = append(faults, err)
		}
	}
	return c, errors.Join(faults...)
}

// Set changes one field from text, as --profiler-config.name=value does.
func (c *Config) Set(name, value string) error {
	if !known(name) {
		return unknown(name)
	}
	switch p := c.at(name).(type) {
	case *string:
		if name == "profiler" && (value == "null" || value == "none" || value == "None") {
			value = KindNone
		}
		*p = value
	case *bool:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%s: got %q, want true or false", name, value)
		}
		*p = b
	case *int:
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("%s: got %q, want an integer", name, value)
		}
		*p = n
	case *float64:
		x, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return fmt.Errorf("%s: got %q, want a number", name, value)
		}
		*p = x
	}
	return nil
}

// FieldNames lists the names of all settings, in the order of the documentation.
func FieldNames() []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

// MarshalJSON writes the form of [Config.ToMap].
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.ToMap()) }

// UnmarshalJSON reads the form of [FromMap], strictly; absent fields get their defaults.
func (c *Config) UnmarshalJSON(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var m map[string]any
	if err := decoder.Decode(&m); err != nil {
		return fmt.Errorf("profiler config: want a JSON object: %w", err)
	}
	decoded, err := FromMap(m)
	if err != nil {
		return err
	}
	*c = decoded
	return nil
}

// set stores a decoded value, without converting between kinds.
func (c *Config) set(name string, value any) error {
	if !known(name) {
		return unknown(name)
	}
	switch p := c.at(name).(type) {
	case *string:
		s, ok := value.(string)
		if !ok && !(value == nil && name == "profiler") {
			return fmt.Errorf("%s: got %v (%T), want a string", name, value, value)
		}
		*p = s
	case *bool:
		b, ok := value.(bool)
		if !ok {
			return fmt.Errorf("%s: got %v (%T), want true or false", name, value, value)
		}
		*p = b
	case *int:
		x, ok := number(value)
		if !ok || x != math.Trunc(x) || math.Abs(x) > 1<<53 {
			return fmt.Errorf("%s: got %v (%T), want an integer", name, value, value)
		}
		*p = int(x)
	case *float64:
		x, ok := number(value)
		if !ok {
			return fmt.Errorf("%s: got %v (%T), want a number", name, value, value)
		}
		*p = x
	}
	return nil
}

// at returns the pointer to a known field.
func (c *Config) at(name string) any {
	for _, f := range fields {
		if f.name == name {
			return f.at(c)
		}
	}
	return nil
}

func known(name string) bool {
	return slices.ContainsFunc(fields, func(f field) bool { return f.name == name })
}

func unknown(name string) error {
	return fmt.Errorf("profiler config: unknown field %q, want one of %s", name, strings.Join(FieldNames(), ", "))
}

// number converts any numeric value of a decoded document.
func number(value any) (float64, bool) {
	if n, ok := value.(json.Number); ok {
		x, err := n.Float64()
		return x, err == nil
	}
	v := reflect.ValueOf(value)
	switch {
	case !v.IsValid():
		return 0, false
	case v.CanInt():
		return float64(v.Int()), true
	case v.CanUint():
		return float64(v.Uint()), true
	case v.CanFloat():
		return v.Float(), true
	}
	return 0, false
}

// empty reports whether a decoded JSON value carries nothing.
func empty(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case bool:
		return !v
	case float64:
		return v == 0
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}
