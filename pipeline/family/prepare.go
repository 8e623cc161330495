package family

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/omni-run/omni/pipeline/config"
)

// finals returns the final stages whose output the caller asked for: all that run if nothing was asked for.
func (f *Family) finals(modalities []string, cfg *config.Config) (map[int]string, error) {
	finals := map[int]string{}
	if len(modalities) == 0 {
		for _, s := range f.Stages {
			if _, runs := cfg.Stage(s.ID); runs && s.Final != "" {
				finals[s.ID] = s.Final
			}
		}
		return finals, nil
	}
	for _, want := range modalities {
		var known []string
		found := false
		for _, s := range f.Stages {
			if s.Final == "" {
				continue
			}
			known = append(known, s.Final)
			if s.Final != want {
				continue
			}
			found = true
			for _, id := range f.needed(map[int]string{s.ID: want}) {
				if _, runs := cfg.Stage(id); !runs {
					return nil, fmt.Errorf("modality %q needs stage %d, which the stage configuration %s leaves out", want, id, cfg.Source)
				}
			}
			finals[s.ID] = want
		}
		if !found {
			return nil, fmt.Errorf("unknown modality %q, this model makes %s", want, strings.Join(known, ", "))
		}
	}
	return finals, nil
}

// needed returns the final stages and all stages that feed them, ascending.
func (f *Family) needed(finals map[int]string) []int {
	need := map[int]bool{}
	for i := len(f.Stages) - 1; i >= 0; i-- { // inputs come before the stages that they feed
		s := f.Stages[i]
		if _, final := finals[s.ID]; final || need[s.ID] {
			need[s.ID] = true
			for _, in := range s.Inputs {
				need[in] = true
			}
		}
	}
	var ids []int
	for _, s := range f.Stages {
		if need[s.ID] {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// mergeSampling lays the request's parameters over each configured stage's. textStage is the one that the request's
// MaxTokens is for.
func mergeSampling(cfg *config.Config, req Request, textStage int) (map[int]config.SamplingParams, error) {
	if len(req.Sampling) > len(cfg.Stages) {
		return nil, fmt.Errorf("sampling parameters for %d stages, but the pipeline has %d", len(req.Sampling), len(cfg.Stages))
	}
	if req.MaxTokens < 0 {
		return nil, fmt.Errorf("max_tokens is %d, want 1 or more", req.MaxTokens)
	}
	if req.Seed != nil && *req.Seed < 0 {
		return nil, fmt.Errorf("seed is %d, want 0 or more", *req.Seed)
	}
	merged := map[int]config.SamplingParams{}
	for i, s := range cfg.Stages {
		p := s.Sampling
		if s.ID == textStage && req.MaxTokens > 0 {
			p = p.Merge(config.SamplingParams{MaxTokens: config.Ptr(int64(req.MaxTokens))})
		}
		if i < len(req.Sampling) {
			if err := req.Sampling[i].Validate(); err != nil {
				return nil, fmt.Errorf("sampling parameters of stage %d: %w", s.ID, err)
			}
			p = p.Merge(req.Sampling[i])
		}
		if least, most := value(p.MinTokens, 0), value(p.MaxTokens, math.MaxInt64); least > most {
			return nil, fmt.Errorf("sampling parameters of stage %d: min_tokens is %d, but max_tokens is %d", s.ID, least, most)
		}
		merged[s.ID] = p
	}
	return merged, nil
}

// seedPlan says where a stage's random numbers come from.
type seedPlan struct {
	seed     int64
	upstream bool // from the generator that the stage before hands on
}

func (s seedPlan) params() map[string]any {
	if s.upstream {
		return map[string]any{"rng_from_upstream": true}
	}
	return map[string]any{"seed": s.seed}
}

// alone is the plan of a stage that cannot wait for the generator of the stage before: the request's seed starts one of
// its own.
func (s seedPlan) alone(req Request) seedPlan {
	if s.upstream {
		return seedPlan{seed: *req.Seed}
	}
	return s
}

// mergeSpeech lays the request's wishes over the configuration of the stage that makes sound. The mode is always set.
func mergeSpeech(cfg *config.Config, req Request, stage int) (config.Speech, error) {
	if err := req.Speech.Validate(); err != nil {
		return config.Speech{}, err
	}
	configured, _ := cfg.Stage(stage) // without the stage nothing is made of the result
	return config.Speech{Mode: config.ModeFull}.Merge(configured.Speech).Merge(req.Speech), nil
}

// streamParams are what an engine in mode stream is admitted with, but for what a family adds.
func streamParams(speech config.Speech, seed seedPlan) map[string]any {
	params := seed.params()
	params["mode"] = speech.Mode
	for name, size := range map[string]*int64{
		"initial_codec_chunk_frames": speech.InitialChunk,
		"codec_chunk_frames":         speech.Chunk,
		"codec_right_context_frames": speech.RightContext,
	} {
		if size != nil {
			params[name] = *size
		}
	}
	return params
}

// planSeeds gives each stage its generator. A seed in the request's own parameters of a stage is that stage's. Else
// the request's seed starts one generator for all stages, as in the reference, or one in each if none can be handed on. Else the configured seed of the stage,
// or a random one.
func planSeeds(req Request, sampling map[int]config.SamplingParams) map[int]seedPlan {
	plans := map[int]seedPlan{}
	for i, id := range sortedKeys(sampling) {
		own := i < len(req.Sampling) && req.Sampling[i].Seed != nil
		switch {
		case own:
			plans[id] = seedPlan{seed: *req.Sampling[i].Seed}
		case req.Seed != nil && (i == 0 || req.Stops):
			plans[id] = seedPlan{seed: *req.Seed}
		case req.Seed != nil:
			plans[id] = seedPlan{upstream: true}
		case sampling[id].Seed != nil:
			plans[id] = seedPlan{seed: *sampling[id].Seed}
		default:
			plans[id] = seedPlan{seed: rand.Int64()}
		}
	}
	return plans
}

// engineSampling is the "sampling" object that engines are admitted with. eos are the model's own stop ids.
func engineSampling(p config.SamplingParams, eos []int64) map[string]any {
	stop := append([]int64{}, eos...)
	for _, id := range p.StopTokenIDs {
		if !slices.Contains(stop, id) {
			stop = append(stop, id)
		}
	}
	return map[string]any{
		"temperature":        value(p.Temperature, 0),
		"top_p":              value(p.TopP, 1),
		"top_k":              offTopK(value(p.TopK, -1)),
		"max_tokens":         value(p.MaxTokens, 1024),
		"min_tokens":         value(p.MinTokens, 0),
		"repetition_penalty": value(p.RepetitionPenalty, 1),
		"stop_token_ids":     stop,
	}
}

// limitCodes lowers the number of codes that a talker may write to what a duration of speech takes.
func limitCodes(p config.SamplingParams, limit time.Duration, info StageInfo) config.SamplingParams {
	if limit <= 0 || info.SampleRate <= 0 || info.SamplesPerCode <= 0 {
		return p
	}
	codes := max(1, int64(limit.Seconds()*float64(info.SampleRate)/float64(info.SamplesPerCode)))
	if p.MaxTokens != nil && *p.MaxTokens <= codes {
		return p
	}
	return p.Merge(config.SamplingParams{MaxTokens: &codes})
}

func offTopK(k int64) int64 {
	if k == 0 {
		return -1
	}
	return k
}

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// within drops ids that the vocabulary does not have: they can never be drawn.
func within(ids []int64, vocabulary int64) []int64 {
	if vocabulary <= 0 {
		return ids
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id int64) bool { return id < 0 || id >= vocabulary })
}

// pickSpeaker chooses among the speakers that every one of infos lists. Names match exactly.
func pickSpeaker(want, usual string, infos ...StageInfo) (string, error) {
	var known []string
	for i, info := range infos {
		if i == 0 {
			known = slices.Clone(info.Speakers)
		}
		known = slices.DeleteFunc(known, func(s string) bool { return !slices.Contains(info.Speakers, s) })
	}
	switch {
	case want != "" && slices.Contains(known, want):
		return want, nil
	case want != "":
		hint := ""
		for _, s := range known {
			if strings.EqualFold(s, want) {
				hint = fmt.Sprintf(" (names match exactly: did you mean %q?)", s)
			}
		}
		return "", fmt.Errorf("unknown speaker %q, this checkpoint has %s%s", want, quoteAll(known), hint)
	case slices.Contains(known, usual):
		return usual, nil
	case len(infos) > 0 && slices.Contains(known, infos[0].DefaultSpeaker):
		return infos[0].DefaultSpeaker, nil
	case len(known) > 0:
		return known[0], nil
	}
	return "", fmt.Errorf("this checkpoint has no speakers (spk_dict.pt)")
}

func sortedKeys[V any](m map[int]V) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
