package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/profiler"
)

// startProfileRequest is the body of /start_profile; none means everything as configured.
type startProfileRequest struct {
	// Stages to profile; none or null for all.
	Stages stageIDs `json:"stages"`
	// RequestIDs are the only requests whose times are kept; none or null for all.
	RequestIDs requestIDs `json:"request_ids"`
	// Settings are laid over the configuration.
	Settings givenSettings `json:",embed"`
}

// givenSettings are settings under the names of profiler.Config's fields, or of profileAliases.
type givenSettings map[string]jsontext.Value

// properties implements embedded.
func (givenSettings) properties() object {
	all := object{}
	for _, name := range profiler.FieldNames() {
		if profileFixed[name] == "" {
			all[name] = nullable(settingSchema(name))
		}
	}
	for alias, name := range profileAliases {
		all[alias] = all[name]
	}
	return all
}

// settingSchema describes the values of a setting.
func settingSchema(name string) object {
	schema := object{}
	choices := profiler.Choices(name)
	switch profiler.Default().ToMap()[name].(type) {
	case bool:
		schema["type"] = "boolean"
	case int:
		schema["type"], schema["minimum"], schema["maximum"] = "integer", 0, profiler.MaxCount
		if name == "active_iterations" {
			schema["minimum"] = 1
		}
	case float64:
		schema["type"], schema["minimum"], schema["maximum"] = "number", 0, profiler.MaxAmount
	case []string:
		if name == "activities" {
			choices = append(choices, sglangGPU)
		}
		schema["type"], schema["minItems"], schema["items"] = "array", 1, object{"type": "string", "enum": choices}
	default:
		schema["type"] = "string"
		switch {
		case name == "profile_prefix":
			schema["pattern"] = profiler.PrefixPattern
		case choices != nil:
			values := []any{nil} // which is the same as no setting
			for _, choice := range choices {
				values = append(values, choice)
			}
			schema["enum"] = values
		}
	}
	return schema
}

// maxRequestIDs bounds the requests that a session is begun for.
const maxRequestIDs = 1000

// requestIDs are those of requests, as clients send them in the header X-Request-Id.
type requestIDs []string

// schema implements describer.
func (requestIDs) schema(*schemas) object {
	id := object{"type": "string", "pattern": requestIDPattern, "maxLength": maxRequestIDSize}
	return object{"type": "array", "items": id, "maxItems": maxRequestIDs, "uniqueItems": true}
}

func (ids requestIDs) check() error {
	if len(ids) > maxRequestIDs {
		return invalid("request_ids", "request_ids: %d ids, the limit is %d", len(ids), maxRequestIDs)
	}
	for i, id := range ids {
		place := fmt.Sprintf("request_ids[%d]", i)
		if !fitRequestID(id) {
			return invalid(place, "%s: no request can have the id %q: want 1 to 128 letters, digits, dots, _ and -", place, id)
		}
		if slices.Contains(ids[:i], id) {
			return invalid(place, "%s: %q is listed twice", place, id)
		}
	}
	return nil
}

// profileAliases are what vLLM, SGLang and people call settings.
var profileAliases = map[string]string{
	"start_step":    "delay_iterations",
	"num_steps":     "max_iterations",
	"with_stack":    "torch_profiler_with_stack",
	"with_flops":    "torch_profiler_with_flops",
	"with_memory":   "torch_profiler_with_memory",
	"record_shapes": "torch_profiler_record_shapes",
	"use_gzip":      "torch_profiler_use_gzip",
	"merge":         "merge_profiles",
}

// profileFixed are settings that only whoever starts the server may choose.
var profileFixed = map[string]string{
	"profiler":           "the server was started with it",
	"torch_profiler_dir": "files go to the server's own folder",
	"output_dir":         "files go to the server's own folder",
	"ring_seconds":       "the flight recorder runs as the server was started",
	"ring_slo_ms":        "the flight recorder runs as the server was started",
}

// startProfile begins a session.
func (s *Server) startProfile(c echo.Context) error {
	var request startProfileRequest
	if err := decode(c, &request); err != nil {
		return err
	}
	settings, err := profileSettings(request.Settings)
	if err := together(err, checkStages(request.Stages), request.RequestIDs.check()); err != nil {
		return err
	}
	options := pipeline.ProfileOptions{Stages: request.Stages, Settings: settings, RequestIDs: request.RequestIDs}
	report, err := s.begin(c.Request().Context(), options)
	if err != nil {
		return err
	}
	return s.answerProfile(c, report, true)
}

// begin begins a session. The error of a setting says which.
func (s *Server) begin(ctx context.Context, options pipeline.ProfileOptions) (*pipeline.ProfileReport, error) {
	report, err := s.cfg.Profiler.StartProfileWith(ctx, options)
	if errors.Is(err, profiler.ErrSetting) {
		return nil, &failure{code: codeInvalid, param: blamed(err, options.Settings), err: err}
	}
	return report, err
}

// blamed is the setting that an error names; empty if it names none or several.
func blamed(err error, settings map[string]any) string {
	var named []string
	for name := range settings {
		if strings.Contains(err.Error(), name+": ") {
			named = append(named, name)
		}
	}
	if len(named) != 1 {
		return ""
	}
	return named[0]
}

// profileSettings decodes settings under the names of profiler.Config. A null is the same as no setting. All faults are
// reported; where some are found here, those that the pipeline would find come along.
func profileSettings(raw map[string]jsontext.Value) (map[string]any, error) {
	settings := map[string]any{}
	var faults []error
	for _, given := range slices.Sorted(maps.Keys(raw)) {
		name, value, err := decodeSetting(given, raw[given])
		_, twice := settings[name]
		switch {
		case err != nil:
			faults = append(faults, err)
		case value == nil:
		case twice:
			faults = append(faults, invalid(given, "%s and %s are the same setting and both are given", given, name))
		default:
			settings[name] = value
		}
	}
	if len(faults) > 0 {
		_, err := profiler.FromDir("profiles").Override(settings)
		return nil, together(append(faults, err)...)
	}
	if len(settings) == 0 {
		return nil, nil
	}
	return settings, nil
}

// decodeSetting decodes one setting. Its value is nil for a null.
func decodeSetting(given string, raw jsontext.Value) (name string, value any, err error) {
	if err := json.Unmarshal(raw, &value); err != nil {
		return "", nil, invalid(given, "%s: got %s, which is too large or too long", given, raw) // the body was valid JSON
	}
	name, err = profileSetting(given)
	if err != nil || value == nil {
		return name, nil, err
	}
	if name == "activities" {
		value = activities(value)
	}
	if _, err := profiler.Default().With(map[string]any{name: value}); err != nil {
		return name, nil, &failure{code: codeInvalid, param: given, err: err}
	}
	return name, value, nil
}

// profileSetting is the name of a setting that a client calls so.
func profileSetting(given string) (string, error) {
	name := given
	if alias, ok := profileAliases[given]; ok {
		name = alias
	}
	if why, fixed := profileFixed[name]; fixed {
		return "", invalid(given, "%s cannot be set here: %s", given, why)
	}
	if !slices.Contains(profiler.FieldNames(), name) {
		var names []string
		for _, n := range profiler.FieldNames() {
			if profileFixed[n] == "" {
				names = append(names, n)
			}
		}
		return "", invalid(given, "unknown field %q, want stages, request_ids or one of %s", given, strings.Join(names, ", "))
	}
	return name, nil
}

// sglangGPU is what SGLang calls profiler.ActivityCUDA.
const sglangGPU = "GPU"

// activities takes SGLang's GPU for CUDA, in a list as JSON or a query has it.
func activities(value any) any {
	switch list := value.(type) {
	case []any:
		return replaced[any](list, sglangGPU, profiler.ActivityCUDA)
	case []string:
		return replaced(list, sglangGPU, profiler.ActivityCUDA)
	}
	return value
}

func replaced[T comparable](list []T, old, with T) []T {
	list = slices.Clone(list)
	for i, v := range list {
		if v == old {
			list[i] = with
		}
	}
	return list
}
