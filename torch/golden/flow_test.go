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

	"github.com/omni-run/omni/pipeline/checkpoint"
	"github.com/omni-run/omni/pipeline/family"
	"github.com/omni-run/omni/pipeline/family/familytest"
	"github.com/omni-run/omni/torch"
)

// A pipeline holds the engines of one checkpoint, by the positions of its family's stages. All its methods need the torch
// thread.
type pipeline struct {
	family  *family.Family
	model   family.Model
	engines []*torch.Engine
	infos   map[int]family.StageInfo
}

// openPipeline opens and loads the engines; they are closed when the test ends. One thread is enough for tiny models,
// and a machine that is busy with other tests makes several wait for each other.
func openPipeline(t testing.TB, folder string) *pipeline {
	t.Helper()
	p := &pipeline{infos: map[int]family.StageInfo{}}
	t.Cleanup(func() { checkNothingLives(t) })
	t.Cleanup(func() {
		onThread(t, func() error {
			var faults []error
			for _, engine := range p.engines {
				faults = append(faults, engine.Close())
			}
			return errors.Join(faults...)
		})
	})
	onThread(t, func() error { return p.open(folder) })
	return p
}

func (p *pipeline) open(folder string) error {
	if err := torch.Init(1); err != nil {
		return err
	}
	files, err := checkpoint.Open(folder, func(string) string { return "" })
	if err != nil {
		return err
	}
	if p.family, err = family.Lookup(files); err != nil {
		return err
	}
	if p.model, err = p.family.Open(files, p.family.DefaultConfig()); err != nil {
		return err
	}
	for _, stage := range p.family.Stages {
		config, err := json.Marshal(map[string]any{
			"model": stage.Model, "checkpoint": folder, "dtype": "float32", "device": "cpu", "max_batch": 32,
		})
		if err != nil {
			return err
		}
		engine, err := torch.OpenEngine(config)
		if err != nil {
			return fmt.Errorf("%s: %w", stage.Name, err)
		}
		p.engines = append(p.engines, engine)
		if err := engine.Load(nil); err != nil {
			return fmt.Errorf("%s: %w", stage.Name, err)
		}
		text, err := engine.Info()
		if err != nil {
			return fmt.Errorf("%s: %w", stage.Name, err)
		}
		info := family.StageInfo{}
		if err := json.Unmarshal(text, &info); err != nil {
			return fmt.Errorf("%s: %w", stage.Name, err)
		}
		p.infos[stage.ID] = info
	}
	return nil
}

// A flow is one request on its way through the pipeline.
type flow struct {
	golden   *familytest.Case
	sequence uint64
	late     int // rounds to wait before it is admitted
	prepared *family.Prepared
	passages []passage // by the positions of the stages
	failure  error     // of any stage
}

// A passage is a request's way through one stage, with all that went in and came out.
type passage struct {
	params   json.RawMessage
	fed      []torch.Input
	open     int  // stages before it that have not ended
	runnable bool // may be stepped: not waiting for input
	ended    bool // has returned Done
	outcome
}

// An outcome is what came out of a stage.
type outcome struct {
	tokens  []int64
	tensors map[string][]byte // concatenated by name
	rng     string            // hash of the generator's state after the stage, if it hands that on
	finish  torch.Finish
}

func (o *outcome) add(result torch.Result) error {
	o.tokens = append(o.tokens, result.Tokens...)
	for _, tensor := range result.Tensors {
		if tensor.Name == "rng_state" {
			sum := sha256.Sum256(tensor.Data)
			o.rng = hex.EncodeToString(sum[:])
			continue
		}
		if tensor.DType != "float32" {
			return fmt.Errorf("tensor %s is %s, want float32", tensor.Name, tensor.DType)
		}
		if o.tensors == nil {
			o.tensors = map[string][]byte{}
		}
		o.tensors[tensor.Name] = append(o.tensors[tensor.Name], tensor.Data...)
	}
	if result.State == torch.Done {
		o.finish = result.Finish
	}
	return nil
}

// prepare makes the parameters of all stages as a pipeline makes them; what the golden names replaces the family's choice.
func (p *pipeline) prepare(t testing.TB, f *flow) {
	t.Helper()
	var err error
	f.prepared, err = p.model.Prepare(family.Request{
		Messages: f.golden.Messages, Speaker: f.golden.Speaker, Seed: &f.golden.Seed, Sampling: f.golden.Sampling(t, p.family.Stages),
	}, p.infos)
	if err != nil {
		t.Fatalf("%s: %v", f.golden.Name, err)
	}
	f.passages = make([]passage, len(p.family.Stages))
	for i, stage := range p.family.Stages {
		params := map[string]json.RawMessage{}
		if err := json.Unmarshal(f.prepared.Params[stage.ID], &params); err != nil {
			t.Fatalf("%s: %s: %v", f.golden.Name, stage.Name, err)
		}
		maps.Copy(params, f.golden.Stages[stage.Name].Params)
		if f.passages[i].params, err = json.Marshal(params); err != nil {
			t.Fatalf("%s: %s: %v", f.golden.Name, stage.Name, err)
		}
		f.passages[i].open, f.passages[i].runnable = len(stage.Inputs), true
	}
}

// answer answers all requests at once.
func (p *pipeline) answer(t testing.TB, flows ...*flow) {
	t.Helper()
	for _, f := range flows {
		p.prepare(t, f)
	}
	onThread(t, func() error { return p.run(flows) })
}

// run steps, every round, each engine once with all sequences that can go on, and hands what came out to the next stages, as a
// pipeline that streams does.
func (p *pipeline) run(flows []*flow) error {
	for round := 0; ; round++ {
		idle := true
		for _, f := range flows {
			if f.late == round {
				if err := p.admit(f); err != nil {
					return fmt.Errorf("%s: %w", f.golden.Name, err)
				}
			}
			running := slices.ContainsFunc(f.passages, func(s passage) bool { return !s.ended })
			idle = idle && f.late <= round && (f.failure != nil || !running)
		}
		if idle {
			return p.release(flows)
		}
		moved := false
		for stage := range p.engines {
			stepped, err := p.step(stage, flows, round)
			if err != nil {
				return fmt.Errorf("%s: %w", p.family.Stages[stage].Name, err)
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
	for stage, engine := range p.engines {
		if err := engine.Admit(f.sequence, f.passages[stage].params); err != nil {
			return fmt.Errorf("%s: %w", p.family.Stages[stage].Name, err)
		}
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
		if s := f.passages[stage]; f.late <= round && s.runnable && !s.ended && f.failure == nil {
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
			return true, fmt.Errorf("%s: %w", batch[i].golden.Name, err)
		}
	}
	return true, nil
}

// take keeps a result and hands it on along the edges of the graph.
func (p *pipeline) take(stage int, f *flow, result torch.Result) error {
	s := &f.passages[stage]
	s.runnable = result.State == torch.Ready
	if result.State == torch.Failed {
		f.failure = fmt.Errorf("%s: %w", p.family.Stages[stage].Name, result.Err)
		return nil
	}
	s.ended = result.State == torch.Done
	if err := s.add(result); err != nil {
		return err
	}
	for _, edge := range p.family.Edges {
		if edge.From != p.family.Stages[stage].ID {
			continue
		}
		to := slices.IndexFunc(p.family.Stages, func(next family.Stage) bool { return next.ID == edge.To })
		if err := p.feed(to, f, edgeInput(edge, result), s.ended); err != nil {
			return err
		}
	}
	return nil
}

// edgeInput is what an edge hands on of a result.
func edgeInput(edge family.Edge, result torch.Result) torch.Input {
	input := torch.Input{}
	if edge.Tokens {
		input.Tokens = result.Tokens
	}
	for _, tensor := range result.Tensors {
		if slices.Contains(edge.Tensors, tensor.Name) {
			input.Tensors = append(input.Tensors, tensor)
		}
	}
	return input
}

// feed gives a stage input; ended says that nothing more comes from the stage that gave it.
func (p *pipeline) feed(stage int, f *flow, input torch.Input, ended bool) error {
	s := &f.passages[stage]
	if ended {
		s.open--
		input.Last = s.open == 0
	}
	// A stage that has reached its limit wants nothing more, but the one before it goes on.
	if len(input.Tokens) == 0 && len(input.Tensors) == 0 && !input.Last || s.ended {
		return nil
	}
	s.runnable = true
	s.fed = append(s.fed, input)
	return p.engines[stage].Feed(f.sequence, input)
}
