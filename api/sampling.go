package api

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
)

// extensions are the fields beside OpenAI's. They may stand in a request itself, where its SDK puts them, and in its extra_body.
type extensions struct {
	Modalities         *modalityNames   `json:"modalities"`
	TopK               *int64           `json:"top_k" schema:"min=-1"`
	MinTokens          *int64           `json:"min_tokens" schema:"min=0"`
	RepetitionPenalty  *float64         `json:"repetition_penalty" schema:"min=0.01;max=100"`
	StopTokenIDs       tokenIDs         `json:"stop_token_ids"`
	SamplingParamsList []*stageSampling `json:"sampling_params_list" schema:"maxItems=@stages"`
	ReturnStageMetrics *bool            `json:"return_stage_metrics"`
	// MMProcessorKwargs is for media in prompts; text has no use for it.
	MMProcessorKwargs map[string]jsontext.Value `json:"mm_processor_kwargs"`

	speechMode `json:",inline"`
}

// overlay returns e with what over sets.
func (e extensions) overlay(over *extensions) extensions {
	if over == nil {
		return e
	}
	if over.Modalities != nil {
		e.Modalities = over.Modalities
	}
	e.TopK = cmp.Or(over.TopK, e.TopK)
	e.MinTokens = cmp.Or(over.MinTokens, e.MinTokens)
	e.RepetitionPenalty = cmp.Or(over.RepetitionPenalty, e.RepetitionPenalty)
	if over.StopTokenIDs != nil {
		e.StopTokenIDs = over.StopTokenIDs
	}
	if over.SamplingParamsList != nil {
		e.SamplingParamsList = over.SamplingParamsList
	}
	e.ReturnStageMetrics = cmp.Or(over.ReturnStageMetrics, e.ReturnStageMetrics)
	e.speechMode = e.speechMode.overlay(over.speechMode)
	return e
}

// tokenIDs is a list of token ids.
type tokenIDs []int64

// UnmarshalJSONFrom implements json.UnmarshalerFrom: a null among the ids is none.
func (t *tokenIDs) UnmarshalJSONFrom(decoder *jsontext.Decoder) error {
	list, err := numbers[int64](decoder)
	*t = list
	return err
}

// schema implements describer.
func (tokenIDs) schema(*schemas) object {
	return object{"type": "array", "items": object{"type": "integer", "minimum": 0, "maximum": math.MaxInt64}}
}

// stageSampling are the sampling parameters of one stage, or null for its defaults. Detokenize is sent by clients of
// vLLM-Omni; there is no choice about it here.
type stageSampling struct {
	Temperature       *float64    `json:"temperature" schema:"min=0;max=100"`
	TopP              *float64    `json:"top_p" schema:"min=0.000001;max=1"`
	TopK              *int64      `json:"top_k" schema:"min=-1"`
	MaxTokens         *int64      `json:"max_tokens" schema:"min=1;max=@tokens"`
	MinTokens         *int64      `json:"min_tokens" schema:"min=0"`
	RepetitionPenalty *float64    `json:"repetition_penalty" schema:"min=0.01;max=100"`
	Seed              *int64      `json:"seed" schema:"min=0"`
	StopTokenIDs      tokenIDs    `json:"stop_token_ids"`
	Stop              stopStrings `json:"stop"`
	Detokenize        *bool       `json:"detokenize"`
}

// params lays the extensions for sampling over p.
func (e extensions) params(p config.SamplingParams) config.SamplingParams {
	return p.Merge(config.SamplingParams{
		TopK: e.TopK, MinTokens: e.MinTokens, RepetitionPenalty: e.RepetitionPenalty, StopTokenIDs: e.StopTokenIDs,
	})
}

func (s stageSampling) params() config.SamplingParams {
	return config.SamplingParams{
		Temperature: s.Temperature, TopP: s.TopP, TopK: s.TopK, MaxTokens: s.MaxTokens, MinTokens: s.MinTokens, RepetitionPenalty: s.RepetitionPenalty,
		Seed: s.Seed, StopTokenIDs: s.StopTokenIDs,
	}
}

// maxStops and maxStopSize bound the stop strings of a request: their number, and the characters of each.
const (
	maxStops    = 16
	maxStopSize = 256
)

// stopStrings is a string or a list of strings.
type stopStrings []string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (s *stopStrings) UnmarshalJSONFrom(decoder *jsontext.Decoder) error {
	switch decoder.PeekKind() {
	case '"':
		*s = make([]string, 1)
		return json.UnmarshalDecode(decoder, &(*s)[0])
	case '[', 'n':
		return json.UnmarshalDecode(decoder, (*[]string)(s))
	default:
		return invalid("", "want a string or a list of strings")
	}
}

// schema implements describer.
func (stopStrings) schema(*schemas) object {
	text := object{"type": "string", "minLength": 1, "maxLength": maxStopSize}
	return object{"oneOf": []object{text, {"type": "array", "items": text, "maxItems": maxStops}}}
}

func (s stopStrings) check(param string) error {
	if len(s) > maxStops {
		return invalid(param, "%d stop strings, the limit is %d", len(s), maxStops)
	}
	for i, text := range s {
		if n := utf8.RuneCountInString(text); n == 0 || n > maxStopSize {
			return invalid(fmt.Sprintf("%s[%d]", param, i), "a stop string of %d characters, want 1 to %d", n, maxStopSize)
		}
	}
	return nil
}

// sampling is what a request says about sampling in all the places where it can.
type sampling struct {
	top  config.SamplingParams // fields of the request itself, for the first stage
	list []*stageSampling
	seed *int64
	stop stopStrings
}

// apply checks the sampling and puts it into a request. A stage's own parameters win over the request's.
func (s sampling) apply(req *pipeline.Request, limits Limits, stages int) error {
	if len(s.list) > stages {
		return invalid("sampling_params_list", "parameters for %d stages, but the model has %d", len(s.list), stages)
	}
	if err := checkParams("", s.top, limits); err != nil {
		return err
	}
	if s.seed != nil && *s.seed < 0 {
		return invalid("seed", "seed is %d, want 0 or more", *s.seed)
	}
	if err := s.stop.check("stop"); err != nil {
		return err
	}
	req.Seed, req.Stop = s.seed, s.stop
	req.Sampling = []config.SamplingParams{s.top}
	for i, stage := range s.list {
		if stage == nil {
			stage = &stageSampling{}
		}
		place := fmt.Sprintf("sampling_params_list[%d]", i)
		if err := checkParams(place, stage.params(), limits); err != nil {
			return err
		}
		switch {
		case i == 0:
			if err := stage.Stop.check(place + ".stop"); err != nil {
				return err
			}
			if stage.Stop != nil {
				req.Stop = stage.Stop
			}
			req.Sampling[0] = s.top.Merge(stage.params())
		case len(stage.Stop) > 0:
			return invalid(place+".stop", "stop strings are for the stage that writes text, which is the first")
		default:
			req.Sampling = append(req.Sampling, stage.params())
		}
	}
	if limit := req.Sampling[0].MaxTokens; limit != nil {
		req.MaxTokens, req.Sampling[0].MaxTokens = int(*limit), nil
	}
	return nil
}

// checkParams is config's own check with the place of a fault, and the limit of tokens.
func checkParams(place string, p config.SamplingParams, limits Limits) error {
	for _, field := range []struct {
		name string
		only config.SamplingParams
	}{
		{"temperature", config.SamplingParams{Temperature: p.Temperature}},
		{"top_p", config.SamplingParams{TopP: p.TopP}},
		{"top_k", config.SamplingParams{TopK: p.TopK}},
		{"max_tokens", config.SamplingParams{MaxTokens: p.MaxTokens}},
		{"min_tokens", config.SamplingParams{MinTokens: p.MinTokens}},
		{"repetition_penalty", config.SamplingParams{RepetitionPenalty: p.RepetitionPenalty}},
		{"seed", config.SamplingParams{Seed: p.Seed}},
		{"stop_token_ids", config.SamplingParams{StopTokenIDs: p.StopTokenIDs}},
	} {
		if err := field.only.Validate(); err != nil {
			return &failure{code: codeInvalid, param: join(place, field.name), err: err}
		}
	}
	// Beyond these the arithmetic of float32 has no probabilities left to draw from.
	if v := p.RepetitionPenalty; v != nil && (*v < 0.01 || *v > 100) {
		return invalid(join(place, "repetition_penalty"), "repetition_penalty is %v, want 0.01 to 100", *v)
	}
	if v := p.TopP; v != nil && *v < 1e-6 {
		return invalid(join(place, "top_p"), "top_p is %v, want 0.000001 to 1", *v)
	}
	if v := p.Temperature; v != nil && (*v > 100 || *v > 0 && *v < 0.001) {
		return invalid(join(place, "temperature"), "temperature is %v, want 0 (greedy), or 0.001 to 100", *v)
	}
	if p.MaxTokens != nil && *p.MaxTokens > int64(limits.MaxTokens) {
		return invalid(join(place, "max_tokens"), "max_tokens is %d, the server's limit is %d", *p.MaxTokens, limits.MaxTokens)
	}
	return nil
}

// neutral is a field of OpenAI's that this server takes only where it changes nothing: null, or one of the listed values.
type neutral struct {
	name  string
	value jsontext.Value
	may   []string
}

// check refuses the first field that asks for something.
func checkNeutral(fields []neutral) error {
	for _, f := range fields {
		if len(f.value) == 0 {
			continue
		}
		value := slices.Clone(f.value)
		if err := value.Compact(); err != nil {
			return invalid(f.name, "%q: %w", f.name, err)
		}
		if !slices.ContainsFunc(append(f.may, "null"), func(may string) bool { return bytes.Equal(value, []byte(may)) }) {
			return invalid(f.name, "%q is not supported here, want it left out%s", f.name, alternatives(f.may))
		}
	}
	return nil
}

func alternatives(values []string) string {
	text := ""
	for _, v := range values {
		text += " or " + v
	}
	return text
}

// modalityNames are what an answer shall have.
type modalityNames []string

// schema implements describer.
func (modalityNames) schema(*schemas) object {
	names := []any{pipeline.ModalityText, pipeline.ModalityAudio}
	return object{"type": "array", "items": object{"type": "string", "enum": names}, "minItems": 1, "uniqueItems": true}
}

// modalities checks what a request wants; none is all that the model makes.
func modalities(names *modalityNames) ([]string, error) {
	if names == nil {
		return nil, nil
	}
	if len(*names) == 0 {
		return nil, invalid("modalities", "the list is empty, want text, audio or both")
	}
	for i, name := range *names {
		if name != pipeline.ModalityText && name != pipeline.ModalityAudio {
			return nil, invalid(fmt.Sprintf("modalities[%d]", i), "unknown modality %q, want text, audio or both", name)
		}
		if slices.Contains((*names)[:i], name) {
			return nil, invalid(fmt.Sprintf("modalities[%d]", i), "%q comes twice", name)
		}
	}
	return *names, nil
}
