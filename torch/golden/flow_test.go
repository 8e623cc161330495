package golden_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/omni-run/omni/torch"
)

// stages are the networks in the order of the data.
var stages = [...]string{"thinker", "talker", "token2wav"}

// A pipeline holds the three engines of one checkpoint. All its methods need the torch thread.
type pipeline struct {
	engines [len(stages)]*torch.Engine
}

// openPipeline opens and loads the engines; they are closed when the test ends. One thread is enough for tiny models,
// and a machine that is busy with other tests makes several wait for each other.
func openPipeline(t testing.TB, folder string) *pipeline {
	t.Helper()
	p := &pipeline{}
	t.Cleanup(func() { checkNothingLives(t) })
	t.Cleanup(func() {
		onThread(t, func() error {
			var faults []error
			for _, engine := range p.engines {
				if engine != nil {
					faults = append(faults, engine.Close())
				}
			}
			return errors.Join(faults...)
		})
	})
	onThread(t, func() error {
		if err := torch.Init(1); err != nil {
			return err
		}
		for i, stage := range stages {
			config, err := json.Marshal(map[string]any{
				"model": "qwen2_5_omni." + stage, "checkpoint": folder, "dtype": "float32", "device": "cpu", "max_batch": 32,
			})
			if err != nil {
				return err
			}
			if p.engines[i], err = torch.OpenEngine(config); err != nil {
				return fmt.Errorf("%s: %w", stage, err)
			}
			if err := p.engines[i].Load(nil); err != nil {
				return fmt.Errorf("%s: %w", stage, err)
			}
		}
		return nil
	})
	return p
}

// A flow is one request on its way through the pipeline, with all that came out of its stages.
type flow struct {
	golden   *goldenCase
	sequence uint64
	late     int                 // rounds to wait before it is admitted
	runnable [len(stages)]bool   // may be stepped: not waiting for input
	ended    [len(stages)]bool   // has returned Done
	failure  error               // of any stage
	finish   [2]torch.Finish     // of thinker and talker
	tensors  map[string][]byte   // outputs of all stages, concatenated by name
	tokens   [2][]int64          // of thinker and talker
	rng      [len(stages)]string // hash of the generator's state after the stage
}

// params returns what every stage is admitted with.
func (f *flow) params() ([len(stages)]json.RawMessage, error) {
	g := f.golden
	token2wav := maps.Clone(g.Sampling.Token2wav)
	if token2wav == nil {
		token2wav = map[string]any{}
	}
	token2wav["speaker"], token2wav["rng_from_upstream"] = g.Speaker, true
	all := [len(stages)]map[string]any{
		{"prompt_token_ids": g.PromptTokenIDs, "sampling": g.Sampling.Thinker, "seed": g.Seed, "emit_rows": true},
		{
			"prompt_tokens": len(g.PromptTokenIDs), "speaker": g.Speaker, "sampling": g.Sampling.Talker,
			"rng_from_upstream": true,
		},
		token2wav,
	}
	var encoded [len(stages)]json.RawMessage
	for i, params := range all {
		data, err := json.Marshal(params)
		if err != nil {
			return encoded, err
		}
		encoded[i] = data
	}
	return encoded, nil
}

// run answers all requests at once: every round steps each engine once with all sequences that can go on, and hands
// what came out to the next stage, as a pipeline that streams does.
func (p *pipeline) run(flows []*flow) error {
	for round := 0; ; round++ {
		idle := true
		for _, f := range flows {
			if f.late == round {
				if err := p.admit(f); err != nil {
					return fmt.Errorf("%s: %w", f.golden.Case, err)
				}
			}
			idle = idle && f.late <= round && (f.failure != nil || !slices.Contains(f.ended[:], false))
		}
		if idle {
			return p.release(flows)
		}
		moved := false
		for stage := range stages {
			stepped, err := p.step(stage, flows, round)
			if err != nil {
				return fmt.Errorf("%s: %w", stages[stage], err)
			}
			moved = moved || stepped
		}
		if !moved && !slices.ContainsFunc(flows, func(f *flow) bool { return f.late > round }) {
			return errors.New("every unfinished sequence waits for input")
		}
	}
}

// admit creates a request's sequences in all stages.
func (p *pipeline) admit(f *flow) error {
	f.tensors = map[string][]byte{}
	params, err := f.params()
	if err != nil {
		return err
	}
	for stage, engine := range p.engines {
		if err := engine.Admit(f.sequence, params[stage]); err != nil {
			return fmt.Errorf("%s: %w", stages[stage], err)
		}
		f.runnable[stage] = true
	}
	return nil
}

// release drops the sequences of all stages.
func (p *pipeline) release(flows []*flow) error {
	var faults []error
	for _, f := range flows {
		for _, engine := range p.engines {
			faults = append(faults, engine.Release(f.sequence))
		}
	}
	return errors.Join(faults...)
}

// step advances the sequences of one stage that can go on, and says whether there were any.
func (p *pipeline) step(stage int, flows []*flow, round int) (bool, error) {
	var batch []*flow
	var sequences []uint64
	for _, f := range flows {
		if f.late <= round && f.runnable[stage] && !f.ended[stage] && f.failure == nil {
			batch, sequences = append(batch, f), append(sequences, f.sequence)
		}
	}
	if len(batch) == 0 {
		return false, nil
	}
	results, err := p.engines[stage].Step(sequences)
	if err != nil {
		return true, err
	}
	for i, result := range results {
		if err := p.take(stage, batch[i], result); err != nil {
			return true, fmt.Errorf("%s: %w", batch[i].golden.Case, err)
		}
	}
	return true, nil
}

// take keeps a result and feeds it to the next stage.
func (p *pipeline) take(stage int, f *flow, result torch.Result) error {
	f.runnable[stage] = result.State == torch.Ready
	if result.State == torch.Failed {
		f.failure = fmt.Errorf("%s: %w", stages[stage], result.Err)
		return nil
	}
	f.ended[stage] = result.State == torch.Done
	for _, tensor := range result.Tensors {
		if tensor.Name == "rng_state" {
			sum := sha256.Sum256(tensor.Data)
			f.rng[stage] = hex.EncodeToString(sum[:])
			continue
		}
		if tensor.DType != "float32" {
			return fmt.Errorf("tensor %s is %s, want float32", tensor.Name, tensor.DType)
		}
		f.tensors[tensor.Name] = append(f.tensors[tensor.Name], tensor.Data...)
	}
	if stage == len(stages)-1 {
		return nil
	}
	f.tokens[stage] = append(f.tokens[stage], result.Tokens...)
	if f.ended[stage] {
		f.finish[stage] = result.Finish
	}
	input := torch.Input{Tensors: result.Tensors, Last: f.ended[stage]}
	if stage == 1 {
		input.Tokens = result.Tokens
	}
	// A stage that has reached its limit wants nothing more, but the one before it goes on.
	if len(input.Tokens) == 0 && len(input.Tensors) == 0 && !input.Last || f.ended[stage+1] {
		return nil
	}
	f.runnable[stage+1] = true
	return p.engines[stage+1].Feed(f.sequence, input)
}
