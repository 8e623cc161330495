package profiler

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// field is one setting. at returns a *string, *bool, *int, *float64 or *[]string into the Config.
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
	{"max_events", func(c *Config) any { return &c.MaxEvents }},
	{"max_trace_mb", func(c *Config) any { return &c.MaxTraceMB }},
	{"activities", func(c *Config) any { return &c.Activities }},
	{"ring_seconds", func(c *Config) any { return &c.RingSeconds }},
	{"ring_slo_ms", func(c *Config) any { return &c.RingSLOMS }},
	{"merge_profiles", func(c *Config) any { return &c.MergeProfiles }},
	{"detail", func(c *Config) any { return &c.Detail }},
	{"profile_prefix", func(c *Config) any { return &c.ProfilePrefix }},
	{"recorder", func(c *Config) any { return &c.Recorder }},
}

// ToMap returns every field under its name, with nil for KindNone. FromMap is its inverse.
func (c Config) ToMap() map[string]any {
	c = c.clone()
	m := make(map[string]any, len(fields))
	for _, f := range fields {
		m[f.name] = c.value(f.name)
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
	c = c.clone()
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

// Parse reads the text of --profiler-config over the defaults; see [Config.Parse].
func Parse(text string) (Config, error) { return Default().Parse(text) }

// Parse returns a copy of c with the settings of a text laid over it; see [Settings].
func (c Config) Parse(text string) (Config, error) {
	settings, err := Settings(text)
	laid, layErr := c.With(settings)
	return laid, errors.Join(err, layErr)
}

// Settings reads settings from a text, by name. The text is either a JSON object or name=value pairs separated by commas. The
// values of a list are separated by commas as well: a word without = goes on with the list before it, as in
// activities=CPU,CUDA,max_events=1000. Any other value that holds a comma needs the JSON form. What can be read comes back
// beside the faults of the rest.
func Settings(text string) (map[string]any, error) {
	trimmed := strings.TrimSpace(text)
	if strings.HasPrefix(trimmed, "{") {
		return decodeObject([]byte(trimmed))
	}
	settings := map[string]any{}
	var read Config
	var faults []error
	for _, pair := range pairs(trimmed) {
		name, value, found := strings.Cut(pair, "=")
		if !found {
			faults = append(faults, fmt.Errorf("profiler config: got %q, want name=value", pair))
			continue
		}
		name = strings.TrimSpace(name)
		if err := read.Set(name, strings.TrimSpace(value)); err != nil {
			faults = append(faults, err)
			continue
		}
		settings[name] = read.value(name)
	}
	return settings, errors.Join(faults...)
}

// pairs splits text at its commas and joins what belongs to a list again.
func pairs(text string) []string {
	var list []string
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		if i := len(list) - 1; i >= 0 && !strings.Contains(word, "=") && isList(list[i]) {
			list[i] += "," + word
			continue
		}
		list = append(list, word)
	}
	return list
}

// isList reports whether a name=value pair sets a list.
func isList(pair string) bool {
	name, _, _ := strings.Cut(pair, "=")
	_, list := new(Config).at(strings.TrimSpace(name)).(*[]string)
	return list
}

// Set changes one field from text, as --profiler-config.name=value does. The values of a list are separated by commas.
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
	case *[]string:
		list := []string{}
		for word := range strings.SplitSeq(value, ",") {
			if word = strings.TrimSpace(word); word != "" {
				list = append(list, word)
			}
		}
		*p = list
	case *bool:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%s: got %q, want true or false", name, value)
		}
		*p = b
	case *int:
		n, err := strconv.Atoi(value)
		if err != nil || n > MaxCount || n < -MaxCount {
			return fmt.Errorf("%s: got %q, want an integer of at most %d", name, value, MaxCount)
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
	m, err := decodeObject(text)
	if err != nil {
		return err
	}
	decoded, err := FromMap(m)
	if err != nil {
		return err
	}
	*c = decoded
	return nil
}

// decodeObject decodes a JSON object without rounding its numbers.
func decodeObject(text []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var m map[string]any
	if err := decoder.Decode(&m); err != nil {
		return nil, fmt.Errorf("profiler config: want a JSON object: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("profiler config: there is more after the JSON object")
	}
	return m, nil
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
	case *[]string:
		list, ok := texts(value)
		if !ok {
			return fmt.Errorf("%s: got %v (%T), want a list of strings", name, value, value)
		}
		*p = list
	case *bool:
		b, ok := value.(bool)
		if !ok {
			return fmt.Errorf("%s: got %v (%T), want true or false", name, value, value)
		}
		*p = b
	case *int:
		x, ok := number(value)
		if !ok || x != math.Trunc(x) || math.Abs(x) > MaxCount {
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

// value is that of a known field.
func (c *Config) value(name string) any { return reflect.ValueOf(c.at(name)).Elem().Interface() }

func known(name string) bool {
	return slices.ContainsFunc(fields, func(f field) bool { return f.name == name })
}

func unknown(name string) error {
	return fmt.Errorf("profiler config: unknown field %q, want one of %s", name, strings.Join(FieldNames(), ", "))
}

// texts copies a decoded list of strings.
func texts(value any) ([]string, bool) {
	if list, ok := value.([]string); ok {
		return append([]string{}, list...), true
	}
	values, ok := value.([]any)
	list := make([]string, len(values))
	for i, v := range values {
		text, isText := v.(string)
		list[i], ok = text, ok && isText
	}
	return list, ok
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
